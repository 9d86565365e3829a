import type { HealthVerdict } from '@outrider/shared/health/verdict';
import type { DeviceIdentity } from '@outrider/shared/ids';
import { type Clock, type EpochMs, toIso } from '@outrider/shared/time';
import type { StoredIdentity } from '../enroll/identity.ts';
import type { GuardStatus } from '../guard/guard-link.ts';
import type { AgentStatus, HealthView, LaneView, OutboxView } from '../local-api/status.ts';
import { LANES } from '../outbox/records.ts';
import type { OutboxStats } from '../outbox/types.ts';
import type { BudgetView } from '../uplink/budget.ts';
import type { LinkStatus } from '../uplink/uplink.ts';
import { failsafeView } from './failsafe-recorder.ts';
import type { SourceBoard } from './source-board.ts';

/** Where the view gets its facts from. */
export interface ViewParts {
  readonly device: DeviceIdentity;
  readonly version: string;
  readonly bootId: string;
  readonly pid: number;
  readonly startedMonoMs: number;
  readonly clock: Clock;
  readonly board: SourceBoard;
  readonly outbox: { stats(): OutboxStats };
  readonly link: () => LinkStatus;
  readonly budget: () => BudgetView;
  readonly guard: () => GuardStatus | undefined;
  readonly health: () => HealthVerdict | undefined;
  readonly identity: () => StoredIdentity | undefined;
}

/** The agent as the local API shows it. */
export function agentStatus(parts: ViewParts): AgentStatus {
  const { device, version, bootId, pid, clock, board, outbox } = parts;
  const link = parts.link();
  const guard = parts.guard();
  const health = parts.health();
  const identity = parts.identity();
  return {
    robot: { id: device.robotId, tenant: device.tenantId },
    agent: {
      version,
      boot_id: bootId,
      pid,
      uptime_s: Math.round((clock.monotonicMs() - parts.startedMonoMs) / 1000),
    },
    failsafe: guard ? failsafeView(guard) : null,
    health: health ? healthView(health) : null,
    sources: board.views(),
    outbox: outboxView(outbox.stats(), clock.epochMs()),
    link: { ...link, since: toIso(link.since), url: identity?.mqttUrl ?? null, budget: parts.budget() },
    certificate: identity ? { expires_at: toIso(identity.validTo), serial: identity.serialNumber } : null,
  };
}

function healthView(verdict: HealthVerdict): HealthView {
  return {
    state: verdict.state,
    progress: verdict.progress,
    health_score: verdict.healthScore,
    anomaly_score: verdict.anomalyScore,
    risk_level: verdict.riskLevel,
    alarm_since: verdict.alarmSinceMs === undefined ? null : toIso(verdict.alarmSinceMs as EpochMs),
    normal_h: verdict.evidence?.normalHours ?? null,
    needed_h: verdict.evidence?.neededHours ?? null,
    signals: verdict.signals.map(({ signal, score, cost, sinceMs }) => ({
      signal,
      score,
      cost,
      since: toIso(sinceMs as EpochMs),
    })),
  };
}

function outboxView(stats: OutboxStats, nowMs: EpochMs): OutboxView {
  const lanes = LANES.map((lane): [string, LaneView] => {
    const { records, samples, bytes, maxSeq, oldestMs } = stats.lanes[lane];
    const lagMs = oldestMs === 0 ? 0 : Math.max(0, nowMs - oldestMs);
    return [lane, { records, samples, bytes, max_seq: maxSeq, lag_s: Math.round(lagMs / 100) / 10 }];
  });
  return {
    epoch: stats.epoch,
    fill: stats.fill,
    size_bytes: stats.sizeBytes,
    size_bytes_max: stats.sizeBytesMax,
    full: stats.isFull,
    samples_committed: stats.samplesCommitted,
    samples_acknowledged: stats.samplesAcknowledged,
    samples_dropped: stats.samplesDropped,
    samples_thinned: stats.samplesThinned,
    gap_records: stats.gapRecords,
    lanes: Object.fromEntries(lanes),
  };
}
