import type { CommandOutcome as McuOutcome } from '@outrider/firmware-bridge/link';
import {
  COMMAND_JOINTS_MAX,
  COMMAND_KINDS,
  COMMAND_TIMEOUT_MS,
  type CommandJointLimits,
  type CommandKind,
  type JointTarget,
  TOLERANCE_DEFAULT_RAD,
  targetProblems,
} from '@outrider/shared/command';
import { errorMessage } from '@outrider/shared/errors';
import type { Logger } from '@outrider/shared/log';
import type { outrider } from '@outrider/shared/messages';
import type { CommandOutcome } from '@outrider/shared/protocol/instruction';
import { fieldRange, type Sample } from '@outrider/shared/telemetry';
import type { Clock } from '@outrider/shared/time';
import { JointMotion } from './joint-motion.ts';

const JOINTS_STREAM = 'mcu/joint_state';
/** A measurement that is older says nothing of where the joints are. */
const FRESH_MS = 500;
/** Setpoints are sent at most this often, and only when the one before was answered. */
const SETPOINT_MS = 20;
const PROGRESS_MS = 250;
/** Samples in a row without motion that make a hold. */
const STILL_SAMPLES = 3;

type GuardCommand = outrider.v1.GuardCommand.$Properties;

/** The microcontroller, as far as a command needs it. */
export interface MotionPort {
  /** In the order of the microcontroller; `undefined` while there is none. */
  readonly jointNames: readonly string[] | undefined;
  /** It was told to hold, and not to let go. */
  readonly isHeld: boolean;
  setpoints(positionRad: Float64Array, motionEpoch: number): Promise<McuOutcome>;
  hold(): Promise<McuOutcome>;
  release(motionEpoch: number): Promise<McuOutcome>;
}

/** What the failsafe lets through. */
export interface Gate {
  readonly isOpen: boolean;
  readonly motionEpoch: number;
  /** What of its speed the robot may use. */
  readonly speedFactor: number;
  readonly inwardOnly: boolean;
  /** Why it is closed, for a person. */
  readonly causes: string;
}

export interface CommandRunnerOptions {
  readonly port: MotionPort | undefined;
  readonly gate: () => Gate;
  readonly limitsOf: (joint: string) => CommandJointLimits | undefined;
  /** Slower than this is standing still. [rad/s] */
  readonly standstillRadps: number;
  readonly clock: Clock;
  readonly log: Logger;
  readonly answer: (result: outrider.v1.GuardCommandResult.$Properties) => void;
  readonly tell: (progress: outrider.v1.GuardCommandProgress.$Properties) => void;
}

interface Running {
  readonly commandId: string;
  readonly kind: CommandKind;
  readonly motionEpoch: number;
  readonly startedMs: number;
  readonly deadlineMs: number;
  readonly motion: JointMotion | undefined;
  /** The microcontroller has taken it. */
  isTaken: boolean;
  isWaiting: boolean;
  steppedMs: number;
  toldMs: number;
  stillSamples: number;
}

type Plan =
  | { readonly kind: 'planned'; readonly command: CommandKind; readonly motion: JointMotion | undefined }
  | { readonly kind: 'refused'; readonly outcome: CommandOutcome; readonly detail: string };

const refused = (detail: string, outcome: CommandOutcome = 'refused'): Plan => ({ kind: 'refused', outcome, detail });

/**
 * Carries out commands for the actuators, one at a time, behind the failsafe's gate: it looks at the gate before each
 * setpoint, and a gate that closes ends the command with the cause. A command is done when the joints were measured
 * where they should be, never because it was sent.
 */
export class CommandRunner {
  readonly #options: CommandRunnerOptions;
  #running: Running | undefined;
  /** Setpoints that the microcontroller follows, and the motion epoch that they belong to. */
  #followed: { readonly positionRad: Float64Array; readonly motionEpoch: number } | undefined;
  #measured: { readonly positionRad: Float64Array; readonly speedMaxRadps: number; readonly atMs: number } | undefined;

  constructor(options: CommandRunnerOptions) {
    this.#options = options;
  }

  /** A command of the agent: `execute` is answered when it has ended, `cancel` at once. */
  command(command: GuardCommand): void {
    if (command.verb === 'cancel') this.#cancel(command);
    else this.#begin(command);
  }

  /** A sample of the microcontroller. */
  sample(sample: Sample): void {
    if (sample.layout.stream !== JOINTS_STREAM) return;
    const values = (field: string): Float64Array => {
      const range = fieldRange(sample.layout, field);
      return range ? sample.values.slice(range.start, range.start + range.width) : new Float64Array();
    };
    // A NaN makes the whole NaN, which is not standing still.
    const speedMaxRadps = values('velocity').reduce((most, speed) => Math.max(most, Math.abs(speed)), 0);
    const positionRad = values('position');
    this.#measured = { positionRad, speedMaxRadps, atMs: Number(sample.receivedMonoNs) / 1e6 };
    const running = this.#running;
    if (!running) return;
    if (running.motion) {
      if (running.motion.measure(positionRad) && running.isTaken)
        this.#done(running, 'the joints are at their targets');
    } else if (running.kind === 'hold' && running.isTaken) {
      running.stillSamples = speedMaxRadps <= this.#options.standstillRadps ? running.stillSamples + 1 : 0;
      if (running.stillSamples >= STILL_SAMPLES) this.#done(running, 'the joints stand still');
    }
  }

  /** One round, after the failsafe's own. */
  tick(): void {
    const running = this.#running;
    if (!running) return;
    const nowMs = this.#options.clock.monotonicMs();
    const gate = this.#options.gate();
    if (!gate.isOpen || gate.motionEpoch !== running.motionEpoch) {
      this.#end(running, 'failed', `the robot was stopped: ${gate.causes || 'the gate was closed'}`);
      return;
    }
    if (nowMs > running.deadlineMs) {
      const where = running.motion ? `: ${running.motion.furthest}` : '';
      this.#brake(running);
      this.#end(running, 'failed', `not done within ${Math.round(running.deadlineMs - running.startedMs)} ms${where}`);
      return;
    }
    this.#step(running, gate, nowMs);
    if (running.isTaken && nowMs - running.toldMs >= PROGRESS_MS) this.#tell(running, nowMs);
  }

  /** Whoever asked is gone. */
  abandon(why: string): void {
    const running = this.#running;
    if (!running) return;
    this.#brake(running);
    this.#end(running, 'failed', why);
  }

  #begin(command: GuardCommand): void {
    const { clock, gate: gateOf, log } = this.#options;
    const commandId = command.commandId ?? '';
    const nowMs = clock.monotonicMs();
    const gate = gateOf();
    const plan = this.#plan(command, gate, nowMs);
    if (plan.kind === 'refused') {
      this.#answer(commandId, plan.outcome, plan.detail);
      return;
    }
    if (this.#running) this.#end(this.#running, 'failed', `${commandId} told the robot to hold`);
    const asked = command.order?.timeoutMs || COMMAND_TIMEOUT_MS.default;
    const timeoutMs = Math.min(COMMAND_TIMEOUT_MS.max, Math.max(COMMAND_TIMEOUT_MS.min, asked));
    const running: Running = {
      commandId,
      kind: plan.command,
      motionEpoch: gate.motionEpoch,
      startedMs: nowMs,
      deadlineMs: nowMs + timeoutMs,
      motion: plan.motion,
      isTaken: false,
      isWaiting: false,
      steppedMs: nowMs - SETPOINT_MS,
      toldMs: nowMs,
      stillSamples: 0,
    };
    this.#running = running;
    log.info({ commandId, kind: plan.command, motionEpoch: gate.motionEpoch }, 'command.begun');
    this.#step(running, gate, nowMs);
  }

  /** What to do, or why not to begin. */
  #plan(command: GuardCommand, gate: Gate, nowMs: number): Plan {
    const { port } = this.#options;
    const { order } = command;
    const kind = COMMAND_KINDS.find((known) => known === order?.kind);
    if (!kind || !order) return refused(`'${order?.kind}' is not known here`);
    if (!gate.isOpen) return refused(`the gate is closed: ${gate.causes || 'the robot is not armed'}`);
    if (gate.motionEpoch !== (command.motionEpoch ?? 0))
      return refused(`it was meant for motion epoch ${command.motionEpoch}, now is ${gate.motionEpoch}`, 'conflict');
    if (!port?.jointNames) return refused('there is no microcontroller to carry it out');
    // Holding still may always come between.
    if (this.#running && kind !== 'hold') return refused(`${this.#running.commandId} is being carried out`, 'conflict');
    if (kind === 'release' && !port.isHeld) return refused('the robot is not held');
    if (kind !== 'set_joint_positions') return { kind: 'planned', command: kind, motion: undefined };
    const motion = this.#motion(order, port, gate, nowMs);
    return typeof motion === 'string' ? refused(motion) : { kind: 'planned', command: kind, motion };
  }

  /** @returns The motion, or why there can be none. */
  #motion(
    order: outrider.v1.CommandOrder.$Properties,
    port: MotionPort,
    gate: Gate,
    nowMs: number,
  ): JointMotion | string {
    const names = port.jointNames ?? [];
    if (port.isHeld) return 'the robot is held: release it first';
    if (gate.inwardOnly) return 'the robot is outside its geofence';
    const joints = (order.joints ?? []).map(
      ({ name = '', positionRad = Number.NaN, velocityMaxRadps = 0 }): JointTarget => ({
        name: name ?? '',
        positionRad: positionRad ?? Number.NaN,
        ...(velocityMaxRadps ? { velocityMaxRadps } : {}),
      }),
    );
    if (joints.length === 0) return 'it names no joint';
    if (joints.length > COMMAND_JOINTS_MAX) return `it names more than ${COMMAND_JOINTS_MAX} joints`;
    const problems = targetProblems(joints, names, this.#options.limitsOf);
    if (problems.length > 0)
      return problems.map(({ at, field, reason }) => `joints[${at}].${field} ${reason}`).join('; ');
    const measured = this.#measured;
    if (!measured || nowMs - measured.atMs > FRESH_MS || measured.positionRad.length !== names.length)
      return 'where the joints are was not measured lately';
    if (!measured.positionRad.every(Number.isFinite)) return 'where the joints are is not known';
    const followed = this.#followed?.motionEpoch === gate.motionEpoch ? this.#followed.positionRad : undefined;
    const tolerance = order.toleranceRad || TOLERANCE_DEFAULT_RAD;
    const { limitsOf } = this.#options;
    return new JointMotion(names, followed ?? measured.positionRad, measured.positionRad, joints, limitsOf, tolerance);
  }

  /** Sends what is due, when what was sent before has been answered. */
  #step(running: Running, gate: Gate, nowMs: number): void {
    const { port } = this.#options;
    if (!port || running.isWaiting) return;
    const { motion, kind, motionEpoch } = running;
    if (motion) {
      if (running.isTaken && motion.isCommanded) return;
      const elapsedMs = nowMs - running.steppedMs;
      if (elapsedMs < SETPOINT_MS) return;
      running.steppedMs = nowMs;
      // After a pause of this process it goes on; it does not catch up.
      const positionRad = motion.step(Math.min(elapsedMs, 2 * SETPOINT_MS) / 1000, gate.speedFactor);
      this.#send(running, port.setpoints(positionRad, motionEpoch), () => {
        this.#followed = { positionRad, motionEpoch };
      });
    } else if (!running.isTaken) {
      this.#followed = undefined;
      const isHold = kind === 'hold';
      this.#send(running, isHold ? port.hold() : port.release(motionEpoch), () => {
        if (!isHold) this.#done(running, 'the hold was released');
      });
    }
  }

  #send(running: Running, sent: Promise<McuOutcome>, accepted: () => void): void {
    running.isWaiting = true;
    const settle = (failure: string | undefined): void => {
      running.isWaiting = false;
      if (this.#running !== running) return;
      if (failure === undefined) {
        const isFirst = !running.isTaken;
        running.isTaken = true;
        if (isFirst) this.#tell(running, this.#options.clock.monotonicMs());
        accepted();
        return;
      }
      // A gate that has just closed is the better reason.
      const gate = this.#options.gate();
      const isStopped = !gate.isOpen || gate.motionEpoch !== running.motionEpoch;
      this.#end(running, 'failed', isStopped ? `the robot was stopped: ${gate.causes}` : failure);
    };
    sent.then(
      (outcome) =>
        settle(
          outcome.kind === 'accepted' ? undefined : `the microcontroller answered ${outcome.kind}: ${outcome.reason}`,
        ),
      (error: unknown) => settle(`the microcontroller could not be told: ${errorMessage(error)}`),
    );
  }

  /** Keeps the joints where they are now: what was sent must not go on. */
  #brake({ motion, motionEpoch, commandId }: Running): void {
    const { port, log } = this.#options;
    const positionRad = this.#measured?.positionRad;
    const gate = this.#options.gate();
    if (!motion || !port || !positionRad || !gate.isOpen || gate.motionEpoch !== motionEpoch) return;
    this.#followed = { positionRad, motionEpoch };
    port.setpoints(positionRad, motionEpoch).then(
      (outcome) => {
        if (outcome.kind !== 'accepted') log.error({ commandId, outcome }, 'command.brake_refused');
      },
      (err: unknown) => log.error({ commandId, err }, 'command.brake_refused'),
    );
  }

  #cancel(command: GuardCommand): void {
    const running = this.#running;
    if (!running || running.commandId !== command.targetId) {
      this.#answer(command.commandId ?? '', 'refused', 'it is not being carried out');
      return;
    }
    this.#brake(running);
    this.#end(running, 'cancelled', `called off by ${command.requestedBy || 'somebody'}`);
    this.#answer(command.commandId ?? '', 'done', 'called off');
  }

  #tell(running: Running, nowMs: number): void {
    running.toldMs = nowMs;
    this.#options.tell({ commandId: running.commandId, progress: running.motion?.progress ?? 0 });
  }

  #done(running: Running, what: string): void {
    const tookMs = Math.round(this.#options.clock.monotonicMs() - running.startedMs);
    this.#end(running, 'done', `${what}, after ${tookMs} ms`);
  }

  #end(running: Running, outcome: CommandOutcome, detail: string): void {
    if (this.#running === running) this.#running = undefined;
    this.#options.log.info({ commandId: running.commandId, outcome, detail }, 'command.ended');
    this.#answer(running.commandId, outcome, detail);
  }

  #answer(commandId: string, outcome: CommandOutcome, detail: string): void {
    this.#options.answer({ commandId, done: outcome === 'done', outcome, detail, latchId: 0, unmet: [] });
  }
}
