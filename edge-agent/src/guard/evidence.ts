import {
  type CommLimits,
  classifyComm,
  classifyHost,
  type HealthFacts,
} from '@outrider/shared/failsafe/classify-agent';
import {
  type AgentFacts,
  classifyAgent,
  classifyMcu,
  classifyMcuSilence,
  classifyStopLine,
  classifyStream,
  type LivenessLimits,
  staleAfterMs,
} from '@outrider/shared/failsafe/classify-liveness';
import { isStandstill, type Signals } from '@outrider/shared/failsafe/classify-signals';
import { gateOf, type JudgeLimits, SignalJudge } from '@outrider/shared/failsafe/judge';
import type { FailsafeState, Reading } from '@outrider/shared/failsafe/state';
import type { Actuators } from './actuators.ts';
import { JOINT_COMMAND } from './sample-wire.ts';

/** Stream whose velocities say whether the robot stands still. */
const OWN_JOINTS = 'mcu/joint_state';
/** Streams that can be relied on at most; the reducer has the same bound per cause. */
const STREAMS_MAX = 64;
const COMMANDS_MAX = 1024;

const NO_AGENT: AgentFacts = {
  isConnected: false,
  wasConnected: false,
  hasProved: false,
  tickMovedMs: 0,
  samplesWaitSinceMs: undefined,
};

/** What a joint was told last. */
interface JointCommand {
  readonly rad: number;
  readonly receivedMs: number;
  readonly declaredRateHz: number;
}

interface StreamFacts {
  lastMs: number | undefined;
  declaredRateHz: number;
}

/** What the guard has seen, and what it says about each cause now. */
export class Evidence {
  readonly #limits: JudgeLimits;
  readonly #judge: SignalJudge;
  readonly #liveness: LivenessLimits;
  readonly #comm: CommLimits;
  readonly #startedMs: number;
  readonly #streams = new Map<string, StreamFacts>();
  readonly #commands = new Map<string, JointCommand>();
  #isStill = false;
  #agent: AgentFacts;
  #agentTicks = -1;
  #agentConsumed = -1;
  #health: HealthFacts | undefined;
  #wasHealthJudged = true;

  constructor(
    limits: { readonly signals: JudgeLimits; readonly liveness: LivenessLimits; readonly comm: CommLimits },
    requiredStreams: readonly string[],
    startedMs: number,
  ) {
    this.#limits = limits.signals;
    this.#judge = new SignalJudge(limits.signals);
    this.#liveness = limits.liveness;
    this.#comm = limits.comm;
    this.#startedMs = startedMs;
    for (const stream of requiredStreams) this.#streams.set(stream, { lastMs: undefined, declaredRateHz: 0 });
    this.#agent = NO_AGENT;
  }

  /** Whether all joints stood still in the last sample, and that is recent. */
  isStandstill(nowMs: number): boolean {
    const lastMs = this.#streams.get(OWN_JOINTS)?.lastMs;
    return this.#isStill && lastMs !== undefined && nowMs - lastMs < this.#liveness.staleMsMin;
  }

  /** Takes in a set of signals. A stream that a cause was judged by is relied on from then on. */
  signals(given: Signals, declaredRateHz: number, receivedMs: number, state: FailsafeState): Reading[] {
    if (given.kind === JOINT_COMMAND) {
      this.#noteCommands(given, declaredRateHz, receivedMs);
      return [];
    }
    // A stopped joint need not be where it was told to be; when the gate opens again, it is judged at once.
    const signals = state.phase === 'ARMED' ? this.#withCommands(given, receivedMs) : given;
    const readings = this.#judge.judge(signals, receivedMs, declaredRateHz, gateOf(state));
    const known = this.#streams.get(signals.stream);
    if (known || (readings.length > 0 && this.#streams.size < STREAMS_MAX))
      this.#streams.set(signals.stream, { lastMs: Math.max(receivedMs, known?.lastMs ?? 0), declaredRateHz });
    if (signals.stream === OWN_JOINTS) this.#isStill = isStandstill(signals, this.#limits);
    return readings;
  }

  #noteCommands({ names, commandRad = [] }: Signals, declaredRateHz: number, receivedMs: number): void {
    names.forEach((name, i) => {
      const rad = commandRad[i];
      if (rad !== undefined && (this.#commands.size < COMMANDS_MAX || this.#commands.has(name)))
        this.#commands.set(name, { rad, receivedMs, declaredRateHz });
    });
  }

  /** Adds what the joints were told. Where that comes at a rate and has ended, nobody knows what they should do. */
  #withCommands(signals: Signals, nowMs: number): Signals {
    if (this.#commands.size === 0 || signals.kind !== 'joint_state' || (signals.commandRad?.length ?? 0) > 0)
      return signals;
    const known = signals.names.map((name, i) => {
      const command = this.#commands.get(name);
      const isOld =
        command !== undefined &&
        command.declaredRateHz > 0 &&
        nowMs - command.receivedMs > staleAfterMs(command.declaredRateHz, this.#liveness);
      // A joint that nobody commands is where it should be.
      return command === undefined || isOld ? (signals.positionRad[i] ?? Number.NaN) : command.rad;
    });
    return { ...signals, commandRad: known };
  }

  agentConnected(nowMs: number): void {
    this.#agent = { ...NO_AGENT, isConnected: true, wasConnected: true, tickMovedMs: nowMs };
    this.#agentTicks = -1;
    this.#agentConsumed = -1;
  }

  agentGone(): void {
    this.#agent = { ...this.#agent, isConnected: false };
  }

  agentProgress(samplesConsumed: number, evaluatorTicks: number, nowMs: number): void {
    // Only movement counts; a counter that goes back moves too, for an agent that started over.
    if (evaluatorTicks !== this.#agentTicks)
      this.#agent = { ...this.#agent, tickMovedMs: nowMs, hasProved: this.#agentTicks >= 0 };
    if (samplesConsumed !== this.#agentConsumed) this.#agent = { ...this.#agent, samplesWaitSinceMs: undefined };
    this.#agentTicks = evaluatorTicks;
    this.#agentConsumed = samplesConsumed;
  }

  /** A sample was given to the agent. */
  agentOwes(nowMs: number): void {
    if (this.#agent.isConnected && this.#agent.samplesWaitSinceMs === undefined)
      this.#agent = { ...this.#agent, samplesWaitSinceMs: nowMs };
  }

  /** What only the agent can see: link, disk, clock. */
  agentHealth(health: HealthFacts): void {
    this.#health = health;
    this.#wasHealthJudged = false;
  }

  /** What stands on each watch now. */
  liveness(actuators: Actuators, state: FailsafeState, nowMs: number): Reading[] {
    const limits = this.#liveness;
    const readings = [...this.#streams].map(([stream, facts]) =>
      classifyStream(stream, facts.lastMs, facts.declaredRateHz, this.#startedMs, nowMs, limits),
    );
    readings.push(classifyAgent(this.#agent, nowMs, limits), ...this.mcu(actuators, state, nowMs));
    if (this.#health) {
      // The age of the link grows while nothing is reported; disk and clock are judged once per report.
      readings.push(...classifyComm(this.#health, nowMs, this.#comm));
      if (!this.#wasHealthJudged) readings.push(...classifyHost(this.#health, this.#limits.host));
      this.#wasHealthJudged = true;
    }
    // A robot without any stream to rely on says nothing; that is not the same as all being well.
    if (this.#streams.size === 0)
      readings.push({ cause: 'source_stale', channel: 'none', verdict: 'pending', detail: 'no stream is required' });
    return readings;
  }

  /** What the microcontroller and the emergency-stop lines say now. */
  mcu(actuators: Actuators, state: FailsafeState, nowMs: number): Reading[] {
    const view = actuators.mcu(nowMs);
    const readings: Reading[] = [];
    const line = actuators.estopLine();
    if (line !== undefined)
      readings.push(classifyStopLine('gpio', line === 'unknown' ? undefined : line === 'pressed'));
    if (!actuators.hasMcu) {
      const pending = { channel: 'serial', verdict: 'pending', detail: 'no microcontroller is configured' } as const;
      return [...readings, { cause: 'mcu_silent', ...pending }, { cause: 'mcu_fault', ...pending }];
    }
    if (view.isEstopPressed !== undefined && view.state !== 'SILENT')
      readings.push(classifyStopLine('mcu', view.isEstopPressed));
    readings.push(
      classifyMcuSilence(view.lastFrameMs, this.#startedMs, nowMs, this.#liveness),
      classifyMcu(view, state.phase, state.phaseSinceMs, nowMs, this.#liveness),
    );
    return readings;
  }
}
