import type { BudgetView } from '../uplink/budget.ts';

/** What `GET /status` of the local API answers, and `outrider-edge status` prints. Times are ISO 8601, UTC. */
export interface AgentStatus {
  readonly robot: { readonly id: string; readonly tenant: string };
  readonly agent: {
    readonly version: string;
    readonly boot_id: string;
    readonly pid: number;
    readonly uptime_s: number;
  };
  /** `null` while there is no guard to ask. */
  readonly failsafe: FailsafeView | null;
  /** `null` when the analyser is switched off. */
  readonly health: HealthView | null;
  readonly sources: readonly SourceView[];
  readonly outbox: OutboxView;
  readonly link: {
    readonly state: string;
    readonly since: string;
    readonly reason: string;
    readonly connections: number;
    readonly url: string | null;
    readonly budget: BudgetView;
  };
  readonly certificate: { readonly expires_at: string; readonly serial: string } | null;
}

export interface FailsafeView {
  readonly phase: string;
  readonly mode: string;
  readonly action: string;
  readonly gate_open: boolean;
  readonly latch_id: number;
  readonly motion_epoch: number;
  readonly causes: readonly { cause: string; action: string; latched: boolean; detail: string }[];
  readonly mcu_state: string;
  readonly heartbeat_rtt_ms: number;
  /** To be quoted by the next recovery. */
  readonly recover_nonce: string;
  readonly guard_pid: number;
}

/** What the analyser says of the robot. */
export interface HealthView {
  readonly state: 'learning' | 'watching';
  /** Of the learning, 0 to 1. */
  readonly progress: number;
  readonly health_score: number;
  /** 0.5 is where an alarm begins; `null` while nothing is learnt. */
  readonly anomaly_score: number | null;
  readonly risk_level: string;
  readonly alarm_since: string | null;
  /** Normal work on which the alarm level rests, and how much would show its false-alarm rate. */
  readonly normal_h: number | null;
  readonly needed_h: number | null;
  readonly signals: readonly { signal: string; score: number; cost: number; since: string }[];
}

export interface SourceView {
  readonly source: string;
  /** `null`: about the source as a whole. */
  readonly stream: string | null;
  readonly state: string;
  readonly code: string | null;
  readonly message: string | null;
  readonly rate_hz: number | null;
  readonly declared_rate_hz: number | null;
  /** Of a recording, 0 to 100. */
  readonly percent: number | null;
}

export interface OutboxView {
  readonly epoch: string;
  /** 0 to 1. */
  readonly fill: number;
  readonly size_bytes: number;
  readonly size_bytes_max: number;
  readonly full: boolean;
  readonly samples_committed: number;
  readonly samples_acknowledged: number;
  readonly samples_dropped: number;
  /** Left out of old blocks for want of room. */
  readonly samples_thinned: number;
  readonly gap_records: number;
  readonly lanes: Readonly<Record<string, LaneView>>;
}

export interface LaneView {
  readonly records: number;
  readonly samples: number;
  readonly bytes: number;
  readonly max_seq: number;
  /** How long the oldest record has waited since it was written, whatever its samples' time; 0 when none does. [s] */
  readonly lag_s: number;
}
