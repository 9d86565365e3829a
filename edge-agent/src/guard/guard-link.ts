import { connect, type Socket } from 'node:net';
import { COMMAND_TIMEOUT_MS as COMMAND_TIMEOUT } from '@outrider/shared/command';
import { DomainError } from '@outrider/shared/errors';
import type { FailsafeMode } from '@outrider/shared/failsafe/modes';
import { newId } from '@outrider/shared/ids';
import type { Logger } from '@outrider/shared/log';
import type { outrider } from '@outrider/shared/messages';
import { aborted, Backoff, pause, type Service } from '@outrider/shared/service';
import type { Sample } from '@outrider/shared/telemetry';
import type { Clock } from '@outrider/shared/time';
import { encodeFrame, FrameReader, type GuardFrame } from './framing.ts';
import type { GuardConfig } from './guard-config.ts';
import { GuardProcess } from './guard-process.ts';
import { JOINT_COMMAND, SampleUnpacker, signalReport } from './sample-wire.ts';

export type GuardStatus = outrider.v1.GuardStatus.$Properties;
export type Transition = outrider.v1.Transition.$Properties;

/** What became of a command. */
export interface CommandOutcome {
  readonly done: boolean;
  readonly detail: string;
  readonly latchId: number;
  /** Unmet conditions of a recovery, one sentence each. */
  readonly unmet: readonly string[];
  /** Of an execution: how it ended. */
  readonly outcome?: string;
}

export interface TriggerRequest {
  readonly commandId: string;
  readonly mode: FailsafeMode;
  readonly reason: string;
  readonly requestedBy: string;
  readonly traceId: string;
  readonly local: boolean;
}

/** Something for the actuators. */
export interface ExecuteRequest {
  readonly commandId: string;
  readonly order: outrider.v1.CommandOrder.$Properties;
  readonly motionEpoch: number;
  readonly requestedBy: string;
  readonly traceId: string;
}

export interface RecoverRequest {
  readonly latchId: number;
  readonly nonce: string;
  readonly local: boolean;
  readonly requestedBy: string;
  readonly traceId: string;
}

/** A position of the robot. */
export interface PlaceReport {
  readonly stream: string;
  /** `map`: x y [m]. `wgs84`: latitude longitude [deg]. */
  readonly frame: 'map' | 'wgs84';
  readonly at: readonly [number, number];
  /** 0: it promises nothing. [Hz] */
  readonly declaredRateHz: number;
  readonly receivedMonoNs: bigint;
}

/** Commanded joint positions. */
export interface CommandReport {
  readonly stream: string;
  readonly names: readonly string[];
  readonly positionRad: readonly number[];
  /** 0: said when it changes; it holds until the next. [Hz] */
  readonly declaredRateHz: number;
  readonly receivedMonoNs: bigint;
}

export interface GuardLinkOptions {
  readonly socketPath: string;
  /** Configuration to start a guard with when none is there; left out when others start it (systemd). */
  readonly spawnConfig?: GuardConfig;
  readonly agentBootId: string;
  /** Highest transition that is on disk here. */
  readonly transitionsStored: () => number;
  readonly clock: Clock;
  readonly log: Logger;
}

/** How often progress is proved: four times within the 200 ms that a guard waits by default. [ms] */
const PROGRESS_MS = 50;
const RECONNECT_MS_FIRST = 50;
const RECONNECT_MS_MAX = 1000;
const COMMAND_TIMEOUT_MS = 5000;
const SHUTDOWN_TIMEOUT_MS = 2000;
const COMMANDS_MAX = 64;

interface Waiting {
  readonly resolve: (outcome: CommandOutcome) => void;
  readonly reject: (error: DomainError) => void;
  readonly timer: NodeJS.Timeout;
  readonly onProgress: ((progress: number) => void) | undefined;
}

/**
 * The agent's end of the socket to its guard. Starts the guard when asked to and none is there, connects again when
 * it goes away, and on a clean stop ends the guard too, which leaves the robot stopped.
 */
export class GuardLink implements Service {
  readonly name = 'guard-link';
  readonly #options: GuardLinkOptions;
  readonly #process: GuardProcess | undefined;
  #socket: Socket | undefined;
  #status: GuardStatus | undefined;
  #samplesConsumed = 0;
  #ticks = 0;
  #transitionMax = 0;
  #transitionQueue: Promise<void> = Promise.resolve();
  readonly #waiting = new Map<string, Waiting>();
  #onSample: (sample: Sample) => void = () => {};
  #onTransition: (transition: Transition) => Promise<void> = () =>
    Promise.reject(new Error('nobody takes transitions'));
  #onStatus: (status: GuardStatus) => void = () => {};

  constructor(options: GuardLinkOptions) {
    this.#options = options;
    const { spawnConfig, clock, log } = options;
    this.#process = spawnConfig && new GuardProcess(spawnConfig, clock, log);
  }

  /** Samples of the microcontroller. One listener; it must not throw. */
  onSample(listener: (sample: Sample) => void): void {
    this.#onSample = listener;
  }

  /**
   * Changes of the latched state, in order. The guard forgets a transition when the promise resolves, so it must
   * mean "on disk"; one that rejects comes again after the next connection.
   */
  onTransition(listener: (transition: Transition) => Promise<void>): void {
    this.#onTransition = listener;
  }

  /** The guard's state, five times a second and at each change. */
  onStatus(listener: (status: GuardStatus) => void): void {
    this.#onStatus = listener;
  }

  /** The last status; `undefined` while no guard answers. */
  status(): GuardStatus | undefined {
    return this.#status;
  }

  /**
   * Proves progress: how many samples this agent has consumed since it started. The guard stops the robot when
   * samples wait and the number stands still.
   */
  progress(samplesConsumed: number): void {
    this.#samplesConsumed = samplesConsumed;
  }

  /** Gives a sample of the agent's own sources to the evaluator. Samples of recordings are left out. */
  report(sample: Sample): void {
    const signals = signalReport(sample);
    if (signals) this.#send({ signals });
  }

  /** What the joints are told to do, for the tracking error. */
  reportCommands(commands: CommandReport): void {
    const { stream, names, positionRad, declaredRateHz, receivedMonoNs } = commands;
    const times = { declaredRateHz, receivedMonoNs: Number(receivedMonoNs) };
    const said = { names: [...names], positionCommandRad: [...positionRad] };
    this.#send({ signals: { source: 'agent', kind: JOINT_COMMAND, stream, ...times, ...said } });
  }

  /** Where the robot is, for the geofence. */
  reportPlace(place: PlaceReport): void {
    const { stream, frame, at, declaredRateHz, receivedMonoNs } = place;
    const signals = { source: 'agent', kind: 'place', stream, declaredRateHz, positionFrame: frame, position: [...at] };
    this.#send({ signals: { ...signals, receivedMonoNs: Number(receivedMonoNs) } });
  }

  /** Tells the guard what only the agent can see: link, disk, clock. Several times a second. */
  health(health: outrider.v1.AgentHealth.$Properties): void {
    this.#send({ health });
  }

  /** Stops the robot and latches a mode. @throws DomainError `unavailable`, `timeout`. */
  trigger(request: TriggerRequest): Promise<CommandOutcome> {
    return this.#command({ verb: 'trigger', ...request });
  }

  /** Asks for a recovery; resolves when it has ended. @throws DomainError `unavailable`, `timeout`. */
  recover(request: RecoverRequest): Promise<CommandOutcome> {
    return this.#command({ verb: 'recover', commandId: newId('cmd'), ...request });
  }

  /**
   * Has a command carried out; resolves when it has ended. Progress is told once it has begun.
   *
   * @throws DomainError `unavailable`, `timeout`: then nobody knows what came of it.
   */
  execute(request: ExecuteRequest, onProgress: (progress: number) => void): Promise<CommandOutcome> {
    const timeoutMs = (request.order.timeoutMs || COMMAND_TIMEOUT.default) + COMMAND_TIMEOUT_MS;
    return this.#command({ verb: 'execute', ...request }, timeoutMs, onProgress);
  }

  /** Calls off what is being carried out. */
  cancel(targetId: string, requestedBy: string, traceId: string): Promise<CommandOutcome> {
    return this.#command({ verb: 'cancel', commandId: newId('can'), targetId, requestedBy, traceId });
  }

  async run(signal: AbortSignal): Promise<void> {
    const backoff = new Backoff(RECONNECT_MS_FIRST, RECONNECT_MS_MAX);
    while (!signal.aborted) {
      const socket = await open(this.#options.socketPath);
      if (socket) {
        backoff.reset();
        await this.#converse(socket, signal);
      } else this.#process?.startIfGone();
      if (!signal.aborted) await pause(backoff.nextMs(), signal);
    }
  }

  async #converse(socket: Socket, signal: AbortSignal): Promise<void> {
    const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
    const unpacker = new SampleUnpacker();
    const reader = new FrameReader();
    socket.on('data', (bytes) => {
      try {
        for (const frame of reader.push(bytes)) this.#receive(frame, unpacker);
      } catch (err) {
        this.#options.log.error({ err }, 'guard.connection_failed');
        socket.destroy();
      }
    });
    this.#socket = socket;
    const transitionsStored = Math.max(this.#transitionMax, this.#options.transitionsStored());
    this.#send({ hello: { agentBootId: this.#options.agentBootId, transitionsStored } });
    const progress = setInterval(() => this.#proveProgress(), PROGRESS_MS);
    this.#proveProgress();
    this.#options.log.info({ socket: this.#options.socketPath }, 'guard.connected');
    const ended = new AbortController();
    await Promise.race([closed, aborted(AbortSignal.any([signal, ended.signal]))]);
    ended.abort();
    if (signal.aborted && this.#process) await this.#shutdown(closed);
    clearInterval(progress);
    this.#socket = undefined;
    this.#status = undefined;
    socket.destroy();
    this.#failWaiting(new DomainError('unavailable', 'the connection to the guard was lost'));
    if (!signal.aborted) this.#options.log.warn({}, 'guard.lost');
  }

  /** Stops the guard that this agent started; a guard of systemd stays and stops the robot by itself. */
  async #shutdown(closed: Promise<void>): Promise<void> {
    this.#send({ command: { commandId: newId('cmd'), verb: 'shutdown', reason: 'the agent stops' } });
    const limit = new AbortController();
    await Promise.race([closed, pause(SHUTDOWN_TIMEOUT_MS, limit.signal)]);
    limit.abort();
    await this.#transitionQueue;
  }

  #proveProgress(): void {
    this.#ticks += 1;
    this.#send({ progress: { samplesConsumed: this.#samplesConsumed, evaluatorTicks: this.#ticks } });
  }

  #receive(frame: GuardFrame, unpacker: SampleUnpacker): void {
    if (frame.sample) {
      const sample = unpacker.unpack(frame.sample);
      if (sample) this.#onSample(sample);
      else this.#options.log.error({ layoutId: frame.sample.layoutId }, 'guard.sample_unreadable');
    }
    if (frame.status) {
      this.#status = frame.status;
      this.#onStatus(frame.status);
    }
    if (frame.transition) this.#take(frame.transition);
    if (frame.commandResult) this.#settle(frame.commandResult);
    if (frame.commandProgress)
      this.#waiting.get(frame.commandProgress.commandId ?? '')?.onProgress?.(frame.commandProgress.progress ?? 0);
  }

  #take(transition: Transition): void {
    const socket = this.#socket;
    this.#transitionQueue = this.#transitionQueue.then(async () => {
      const id = transition.transitionId ?? 0;
      // One that failed cuts the connection, so nothing after it may overtake it.
      if (socket?.destroyed) return;
      try {
        if (id > Math.max(this.#transitionMax, this.#options.transitionsStored())) await this.#onTransition(transition);
        this.#transitionMax = Math.max(this.#transitionMax, id);
        if (this.#socket === socket) this.#send({ transitionAck: { transitionId: id } });
      } catch (err) {
        this.#options.log.error({ err, transitionId: id }, 'transition.not_stored');
        socket?.destroy();
      }
    });
  }

  #command(
    command: outrider.v1.GuardCommand.$Properties & { readonly commandId: string },
    timeoutMs = COMMAND_TIMEOUT_MS,
    onProgress?: (progress: number) => void,
  ): Promise<CommandOutcome> {
    const { commandId } = command;
    if (!this.#socket) return Promise.reject(new DomainError('unavailable', 'the guard does not answer'));
    if (this.#waiting.size >= COMMANDS_MAX)
      return Promise.reject(new DomainError('too_many', `${COMMANDS_MAX} commands wait for the guard already`));
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(commandId);
        reject(new DomainError('timeout', `the guard did not answer within ${timeoutMs} ms`));
      }, timeoutMs);
      this.#waiting.set(commandId, { resolve, reject, timer, onProgress });
      this.#send({ command });
    });
  }

  #settle(result: outrider.v1.GuardCommandResult.$Properties): void {
    const waiting = this.#waiting.get(result.commandId ?? '');
    if (!waiting) return;
    this.#waiting.delete(result.commandId ?? '');
    clearTimeout(waiting.timer);
    const { done, detail, latchId, unmet, outcome } = result;
    waiting.resolve({
      done: done ?? false,
      detail: detail ?? '',
      latchId: latchId ?? 0,
      unmet: unmet ?? [],
      ...(outcome ? { outcome } : {}),
    });
  }

  #failWaiting(error: DomainError): void {
    for (const { reject, timer } of this.#waiting.values()) {
      clearTimeout(timer);
      reject(error);
    }
    this.#waiting.clear();
  }

  #send(frame: GuardFrame): void {
    if (this.#socket && !this.#socket.destroyed) this.#socket.write(encodeFrame(frame));
  }
}

/** A connection to whoever serves the socket; `undefined` when nobody does. */
function open(path: string): Promise<Socket | undefined> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.removeAllListeners('error');
      socket.on('error', () => socket.destroy());
      resolve(socket);
    });
    socket.once('error', () => resolve(undefined));
  });
}
