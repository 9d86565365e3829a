import { errorMessage } from '@outrider/shared/errors';
import { type Signals, signalsOf } from '@outrider/shared/failsafe/classify-signals';
import { describe, evaluate } from '@outrider/shared/failsafe/evaluate';
import { FAILSAFE_MODES, type FailsafePhase } from '@outrider/shared/failsafe/modes';
import type { FailsafePolicy } from '@outrider/shared/failsafe/rules';
import {
  bootState,
  type DurableState,
  durableState,
  type FailsafeEvent,
  type FailsafeOutput,
  type FailsafeState,
  type Reading,
  recoverNonce,
} from '@outrider/shared/failsafe/state';
import type { Logger } from '@outrider/shared/log';
import type { outrider } from '@outrider/shared/messages';
import type { Sample } from '@outrider/shared/telemetry';
import type { Clock } from '@outrider/shared/time';
import type { Actuators } from './actuators.ts';
import type { Gate } from './command-runner.ts';
import type { Evidence } from './evidence.ts';
import type { TransitionMessage } from './journal.ts';

type GuardCommand = outrider.v1.GuardCommand.$Properties;
type GuardCommandResult = outrider.v1.GuardCommandResult.$Properties;

/** Who or what set an event off. */
interface Origin {
  /** When its cause was received. [ms] */
  readonly sinceMs: number;
  readonly traceId?: string;
  readonly requestedBy?: string;
  readonly reason?: string;
}

export interface GuardLoopOptions {
  readonly policy: FailsafePolicy;
  readonly clock: Clock;
  readonly log: Logger;
  readonly actuators: Actuators;
  readonly evidence: Evidence;
  readonly stored: DurableState;
  /** Phase that the last run was in when it last wrote. */
  readonly phaseBefore: FailsafePhase;
  readonly damage: string | undefined;
  readonly nonceSeed: string;
  /** Writes in the background. */
  readonly save: (durable: DurableState, phase: FailsafePhase, transition: TransitionMessage) => void;
  readonly answer: (result: GuardCommandResult) => void;
  /** The status changed in a way that the agent should hear of at once. */
  readonly onChange: () => void;
}

/**
 * The guard's decisions: takes what happens, lets the pure reducer judge it, and carries out what follows, in this
 * order: stop, then write, then report.
 */
export class GuardLoop {
  readonly #options: GuardLoopOptions;
  #state: FailsafeState;
  #recovery: GuardCommand | undefined;
  #latencyMs = 0;
  #isBroken = false;

  constructor(options: GuardLoopOptions) {
    this.#options = options;
    const { policy, stored, damage, clock, nonceSeed, phaseBefore } = options;
    this.#state = bootState(policy, stored, damage, clock.monotonicMs(), nonceSeed);
    const reason = damage === undefined ? 'the guard started' : `the guard started: ${damage}`;
    this.#record(phaseBefore, { sinceMs: this.#state.nowMs, reason }, 0);
  }

  get state(): FailsafeState {
    return this.#state;
  }

  /** From the last cause's reception to its stop being written. [ms] */
  get decisionLatencyMs(): number {
    return this.#latencyMs;
  }

  /**
   * One round, every 20 ms: judges what is missing, lets time pass, and only then renews the lease.
   *
   * @returns Whether it went through whole, which is the proof that this guard works.
   */
  tick(): boolean {
    const isJudged = this.#guarded(() => {
      const { clock, actuators, evidence } = this.#options;
      const nowMs = clock.monotonicMs();
      this.#lookAtActuators(nowMs, evidence.liveness(actuators, this.#state, nowMs));
      this.#apply({ kind: 'tick', atMs: nowMs }, { sinceMs: nowMs });
      this.#progressRecovery();
    });
    const { phase, motionEpoch } = this.#state;
    const isOpen = phase === 'ARMED' && !this.#isBroken;
    const isTold = this.#guarded(() => this.#options.actuators.heartbeat(isOpen, motionEpoch));
    return isJudged && isTold && !this.#isBroken;
  }

  /** A sample of the microcontroller. */
  sample(sample: Sample): void {
    this.#guarded(() =>
      this.#signals(signalsOf(sample, true), sample.layout.declaredRateHz, Number(sample.receivedMonoNs) / 1e6),
    );
  }

  /** What the agent's own sources measured. */
  report(signals: Signals, declaredRateHz: number, receivedMs: number): void {
    // A time ahead of now would make the stream look fresh for longer than it is.
    const nowMs = this.#options.clock.monotonicMs();
    this.#guarded(() => this.#signals(signals, declaredRateHz, Math.min(nowMs, receivedMs)));
  }

  /** The microcontroller or a line changed: judged at once, not at the next round. */
  actuatorsChanged(): void {
    this.#guarded(() => {
      const { clock, actuators, evidence } = this.#options;
      const nowMs = clock.monotonicMs();
      this.#lookAtActuators(nowMs, evidence.mcu(actuators, this.#state, nowMs));
      this.#progressRecovery();
    });
  }

  /** The microcontroller did not say in time that it stopped. One that is silent has that for a cause already. */
  stopUnconfirmed(detail: string): void {
    this.#options.log.error({ detail }, 'mcu.stop_unconfirmed');
    const atMs = this.#nowMs();
    const { state } = this.#options.actuators.mcu(atMs);
    if (state === 'UNKNOWN' || state === 'SILENT' || this.#isBroken) return;
    const readings = [{ cause: 'mcu_fault', channel: 'serial', verdict: 'severe', detail }] as const;
    this.#guarded(() => this.#apply({ kind: 'readings', atMs, readings }, { sinceMs: atMs }));
  }

  stored(durable: DurableState): void {
    const { latchId, motionEpoch } = durable;
    const atMs = this.#options.clock.monotonicMs();
    this.#guarded(() => this.#apply({ kind: 'stored', atMs, latchId, motionEpoch }, { sinceMs: atMs }));
  }

  storeFailed(detail: string): void {
    this.#options.log.error({ detail }, 'latch_store.failed');
    const atMs = this.#options.clock.monotonicMs();
    this.#guarded(() => this.#apply({ kind: 'store_failed', atMs, detail }, { sinceMs: atMs, reason: detail }));
  }

  /** Something was thrown anywhere in this process. */
  fault(error: unknown): void {
    this.#options.log.error({ err: error }, 'guard.fault');
    try {
      this.#options.actuators.stop('STOP0', this.#state.motionEpoch);
    } catch (err) {
      this.#options.log.error({ err }, 'guard.stop_line_failed');
    }
    const atMs = this.#options.clock.monotonicMs();
    const detail = errorMessage(error);
    try {
      this.#apply({ kind: 'fault', atMs, detail }, { sinceMs: atMs, reason: detail });
    } catch (err) {
      // The reducer itself fails: no lease is ever renewed again with an open gate.
      this.#isBroken = true;
      this.#options.log.fatal({ err }, 'guard.reducer_failed');
    }
  }

  /** A command of the agent. Always answered, a recovery when it has ended. */
  command(command: GuardCommand): void {
    this.#guarded(() => {
      const nowMs = this.#options.clock.monotonicMs();
      const origin = {
        sinceMs: nowMs,
        traceId: command.traceId ?? '',
        requestedBy: command.requestedBy ?? '',
        reason: command.reason ?? '',
      };
      if (command.verb === 'trigger') this.#trigger(command, origin);
      else if (command.verb === 'recover') this.#recover(command, origin);
      else this.#answer(command, false, `unknown verb '${command.verb}': trigger, recover or shutdown`);
    });
  }

  /** Closes the gate for good; the process is about to end. Latches nothing. */
  shutdown(): void {
    this.#isBroken = true;
    const { actuators, log } = this.#options;
    try {
      actuators.stop('STOP0', this.#state.motionEpoch);
    } catch (err) {
      log.error({ err }, 'guard.stop_line_failed');
    }
  }

  #signals(signals: Signals, declaredRateHz: number, receivedMs: number): void {
    const readings = this.#options.evidence.signals(signals, declaredRateHz, receivedMs, this.#state);
    if (readings.length > 0) this.#apply({ kind: 'readings', atMs: this.#nowMs(), readings }, { sinceMs: receivedMs });
  }

  #lookAtActuators(nowMs: number, readings: readonly Reading[]): void {
    const { actuators, evidence } = this.#options;
    const mcu = actuators.mcu(nowMs).state;
    const standstill = evidence.isStandstill(nowMs);
    this.#apply({ kind: 'actuator', atMs: nowMs, mcu, standstill }, { sinceMs: nowMs });
    this.#apply({ kind: 'readings', atMs: nowMs, readings }, { sinceMs: nowMs });
  }

  #trigger(command: GuardCommand, origin: Origin): void {
    const mode = FAILSAFE_MODES.find((known) => known === command.mode);
    if (!mode) {
      this.#answer(command, false, `unknown mode '${command.mode}': ${FAILSAFE_MODES.join(', ')}`);
      return;
    }
    const detail = `requested by ${command.requestedBy || 'unknown'}: ${command.reason || 'no reason given'}`;
    const output = this.#apply({ kind: 'trigger', atMs: origin.sinceMs, mode, detail }, origin);
    this.#answer(command, true, output.rising.length > 0 ? 'stopped and latched' : 'was latched already');
  }

  #recover(command: GuardCommand, origin: Origin): void {
    const { latchId, nonce, local } = command;
    const output = this.#apply(
      { kind: 'recover', atMs: origin.sinceMs, latchId: latchId ?? 0, nonce: nonce ?? '', local: local ?? false },
      origin,
    );
    const answer = output.recover;
    // Answered when it has ended.
    if (answer?.kind === 'accepted') this.#recovery = command;
    else if (answer?.kind === 'unmet') this.#answer(command, false, 'conditions are not met', answer.unmet);
    else this.#answer(command, false, answer?.message ?? 'refused');
  }

  /** Answers a recovery once the microcontroller is armed, or the phase has fallen back. */
  #progressRecovery(): void {
    const recovery = this.#recovery;
    if (!recovery) return;
    const { phase } = this.#state;
    if (phase === 'RECOVERING') return;
    const mcu = this.#options.actuators.mcu(this.#nowMs()).state;
    if (phase === 'ARMED' && mcu !== 'ARMED') return;
    this.#recovery = undefined;
    const causes = describe(this.#state, this.#options.policy).causes.map(({ cause, detail }) => `${cause}: ${detail}`);
    if (phase === 'ARMED') this.#answer(recovery, true, 'armed');
    else this.#answer(recovery, false, 'stopped again', causes);
  }

  /** One step of the reducer and everything that follows from it. */
  #apply(event: FailsafeEvent, origin: Origin): FailsafeOutput {
    const { policy, actuators, log } = this.#options;
    const before = this.#state;
    const { state, output } = evaluate(before, event, policy);
    this.#state = state;
    let lineFailure: unknown;
    // 1: stop. Also when nothing should be moving: a new cause may come from something that moves nevertheless.
    if (!output.gateOpen && (before.phase === 'ARMED' || output.rising.length > 0)) {
      try {
        actuators.stop(output.action, state.motionEpoch);
      } catch (error) {
        lineFailure = error;
      }
      this.#latencyMs = Math.max(0, this.#nowMs() - origin.sinceMs);
    }
    if (before.phase !== 'ARMED' && state.phase === 'ARMED') this.#arm();
    // 2: write. 3: report. Both go on in the background.
    if (output.changed) {
      const words = origin.reason || output.abandoned?.join('; ') || output.causes.map((c) => c.detail).join('; ');
      this.#record(before.phase, { ...origin, reason: words }, output.rising.length > 0 ? this.#latencyMs : 0);
      const { phase, latchId, motionEpoch } = state;
      const causes = output.causes.map(({ cause, detail }) => ({ cause, detail }));
      log.info({ from: before.phase, to: phase, latchId, motionEpoch, causes, reason: words }, 'failsafe.changed');
    }
    if (lineFailure !== undefined && event.kind !== 'fault') this.fault(lineFailure);
    return output;
  }

  #arm(): void {
    const { actuators } = this.#options;
    const { motionEpoch } = this.#state;
    actuators.arm(motionEpoch).then(
      (outcome) => {
        if (outcome.kind === 'accepted' || this.#state.phase !== 'ARMED') return;
        if (this.#state.motionEpoch !== motionEpoch) return;
        const detail = `it would not arm: ${outcome.reason}`;
        const readings = [{ cause: 'mcu_fault', channel: 'serial', verdict: 'severe', detail }] as const;
        const atMs = this.#nowMs();
        this.#guarded(() => this.#apply({ kind: 'readings', atMs, readings }, { sinceMs: atMs }));
      },
      (error: unknown) => this.fault(error),
    );
  }

  #record(from: FailsafePhase, origin: Origin, latencyMs: number): void {
    const { policy, clock, save, onChange } = this.#options;
    const state = this.#state;
    const { mode, action, causes } = describe(state, policy);
    save(durableState(state), state.phase, {
      atMs: clock.epochMs(),
      atMonoMs: state.nowMs,
      fromPhase: from,
      toPhase: state.phase,
      mode,
      action,
      causes: causes.map(({ cause, action, latched, detail, sinceMs }) => ({
        cause,
        action,
        latched,
        detail,
        sinceMonoMs: sinceMs,
      })),
      latchId: state.latchId,
      motionEpoch: state.motionEpoch,
      traceId: origin.traceId ?? '',
      requestedBy: origin.requestedBy ?? '',
      reason: origin.reason ?? '',
      decisionLatencyMs: latencyMs,
    });
    onChange();
  }

  #answer(command: GuardCommand, done: boolean, detail: string, unmet: readonly string[] = []): void {
    const { latchId } = this.#state;
    this.#options.answer({ commandId: command.commandId ?? '', done, detail, latchId, unmet: [...unmet] });
    this.#options.onChange();
  }

  #guarded(step: () => void): boolean {
    try {
      step();
      return true;
    } catch (error) {
      this.fault(error);
      return false;
    }
  }

  #nowMs(): number {
    return this.#options.clock.monotonicMs();
  }

  /** What commands for the actuators must look at before each step. */
  gate(): Gate {
    const { gateOpen, speedFactor, inwardOnly, causes } = describe(this.#state, this.#options.policy);
    return {
      isOpen: gateOpen && this.#state.phase === 'ARMED' && !this.#isBroken,
      motionEpoch: this.#state.motionEpoch,
      speedFactor,
      inwardOnly,
      causes: causes.map(({ cause, detail }) => (detail ? `${cause}: ${detail}` : cause)).join('; '),
    };
  }

  /** What the agent is told of the failsafe. */
  status(): outrider.v1.GuardStatus.$Properties {
    const { policy, actuators } = this.#options;
    const state = this.#state;
    const { mode, action, gateOpen, causes, speedFactor, inwardOnly } = describe(state, policy);
    const view = actuators.mcu(this.#nowMs());
    return {
      phase: state.phase,
      mode,
      action,
      gateOpen: gateOpen && !this.#isBroken,
      latchId: state.latchId,
      motionEpoch: state.motionEpoch,
      causes: causes.map(({ sinceMs, ...cause }) => ({ ...cause, sinceMonoMs: sinceMs })),
      atMonoMs: state.nowMs,
      mcuState: view.state,
      mcuFramesOk: view.framesOk,
      mcuFramesBad: view.framesBad,
      heartbeatRttMs: view.heartbeatRttMs,
      guardPid: process.pid,
      decisionLatencyMsLast: this.#latencyMs,
      recoverNonce: recoverNonce(state),
      speedFactor: this.#isBroken ? 0 : speedFactor,
      inwardOnly,
      inwardSpeedMaxMps: inwardOnly ? policy.inwardSpeedMaxMps : 0,
    };
  }
}
