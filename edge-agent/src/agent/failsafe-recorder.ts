import type { GuardStatus, Transition } from '../guard/guard-link.ts';
import type { FailsafeView } from '../local-api/status.ts';
import type { AgentMetrics } from '../metrics.ts';
import type { Outbox } from '../outbox/outbox.ts';
import { transitionEvents } from '../uplink/transitions.ts';

/** Brings what the guard decided into the outbox. */
export class FailsafeRecorder {
  readonly #outbox: Outbox;
  readonly #metrics: AgentMetrics;
  #latchId: number | undefined;

  constructor(outbox: Outbox, metrics: AgentMetrics) {
    this.#outbox = outbox;
    this.#metrics = metrics;
  }

  /** Resolves once the transition's events are on disk: the guard may forget it then. */
  async record(transition: Transition): Promise<void> {
    const events = transitionEvents(transition, this.#latchId);
    this.#latchId = transition.latchId ?? 0;
    await Promise.all(events.map((event) => this.#outbox.appendEvent(event)));
    this.#metrics.observeTransition(transition.toPhase ?? '', transition.mode ?? '', transition.decisionLatencyMs ?? 0);
  }

  /** Keeps the robot's shadow up to date. Only what a person would call a change makes a record. */
  note(status: GuardStatus): void {
    this.#latchId ??= status.latchId ?? 0;
    const { phase, mode, action, gate_open, latch_id, motion_epoch, causes, mcu_state } = failsafeView(status);
    this.#outbox.appendState('failsafe', {
      phase,
      mode,
      action,
      gate_open,
      latch_id,
      motion_epoch,
      causes: causes.map(({ cause, action: causeAction, latched }) => ({ cause, action: causeAction, latched })),
      mcu_state,
    });
  }
}

export function failsafeView(status: GuardStatus): FailsafeView {
  return {
    phase: status.phase ?? '',
    mode: status.mode ?? '',
    action: status.action ?? '',
    gate_open: status.gateOpen ?? false,
    latch_id: status.latchId ?? 0,
    motion_epoch: status.motionEpoch ?? 0,
    causes: (status.causes ?? []).map(({ cause, action, latched, detail }) => ({
      cause: cause ?? '',
      action: action ?? '',
      latched: latched ?? false,
      detail: detail ?? '',
    })),
    mcu_state: status.mcuState ?? '',
    heartbeat_rtt_ms: status.heartbeatRttMs ?? 0,
    recover_nonce: status.recoverNonce ?? '',
    guard_pid: status.guardPid ?? 0,
  };
}
