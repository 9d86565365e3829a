import { type ChildProcess, fork } from 'node:child_process';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { errorMessage } from '@outrider/shared/errors';
import { Backoff, pause } from '@outrider/shared/service';
import { JointNames } from './oddities.ts';
import type { Ros2Signal, Ros2Topic } from './options.ts';
import { RateMeter } from './rate-meter.ts';
import { readRosSignal } from './ros-signals.ts';
import { type Environment, sourcedEnvironment } from './ros2-environment.ts';
import { Ros2Unusable } from './ros2-preflight.ts';
import {
  ROS2_CHILD_ADVICE,
  ROS2_CHILD_EXITS,
  type Ros2ChildFailure,
  type Ros2ChildReport,
  type Ros2ChildStart,
  type Ros2ChildStop,
  type Ros2Publishers,
} from './ros2-protocol.ts';
import { monotonicNs, type Source, type SourcePorts, type SourceState, type SourceStatus } from './source.ts';
import { StreamDecoder } from './stream-decoder.ts';

export interface Ros2Options {
  /** Defaults to `ros2`. */
  readonly name?: string;
  /** setup.bash of the ROS 2 to use. Absent: `env` is sourced already. */
  readonly setup?: string;
  /** Refuse any other than this, such as `jazzy`. */
  readonly distro?: string;
  readonly domainId?: number;
  readonly nodeName?: string;
  /** Folder with the node_modules that rclnodejs was installed into. Absent: this program's own. */
  readonly rclnodejsDir?: string;
  readonly topics: readonly Ros2Topic[];
  /** Topics that only the failsafe looks at. */
  readonly signals?: readonly Ros2Signal[];
  /** What to say while the gate is closed. */
  readonly stop?: Ros2ChildStop;
  /** The agent's own environment, which the setup file adds to. */
  readonly env: Environment;
  readonly velocityMaxRadps?: Readonly<Record<string, number>>;
  /** Delays between restarts of the child. */
  readonly backoff?: Backoff;
}

const CHILD_FILE = fileURLToPath(new URL('./ros2-child.js', import.meta.url));
const REPORT_EVERY_MS = 1_000;
/** Declared periods without a message before a stream is called stale. */
const STALE_FACTOR = 5;
/** How long the child may take to start: the first time rclnodejs may generate messages. */
const START_TIMEOUT_MS = 120_000;
/** How long the child may take to end before it is killed. */
const STOP_TIMEOUT_MS = 2_000;
/** A child that lived this long starts the backoff anew. */
const HEALTHY_AFTER_MS = 60_000;
const LOG_LINE_CHARACTERS_MAX = 2_000;

/** One topic's state in the parent. */
interface Stream {
  readonly settings: Ros2Topic;
  readonly decoder: StreamDecoder;
  meter: RateMeter;
  publishers: Ros2Publishers | undefined;
}

/**
 * ROS 2 topics as a source. rclnodejs runs in a child process (see ros2-child.ts), never here; when the child dies,
 * the source is `failed` at once and a new child is started after a delay.
 */
export class Ros2Source implements Source {
  readonly name: string;
  readonly #options: Ros2Options;
  readonly #ports: SourcePorts;
  readonly #streams: readonly Stream[];
  readonly #backoff: Backoff;
  #dropped = 0;
  #droppedBefore = 0;
  #child: ChildProcess | undefined;
  #isGateOpen = false;

  constructor(options: Ros2Options, ports: SourcePorts) {
    this.name = options.name ?? 'ros2';
    this.#options = options;
    this.#ports = ports;
    this.#backoff = options.backoff ?? new Backoff(1_000, 60_000);
    const jointNames = new JointNames();
    const limits = options.velocityMaxRadps ? { velocityMaxRadps: options.velocityMaxRadps } : {};
    this.#streams = options.topics.map((settings) => {
      const { stream, type, rateHz } = settings;
      const decoder = new StreamDecoder({ stream, type, declaredRateHz: rateHz, jointNames, ...limits });
      return { settings, decoder, meter: this.#newMeter(rateHz), publishers: undefined };
    });
  }

  /** Runs until the signal aborts; never throws. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const startedMs = this.#ports.clock.monotonicMs();
      const failure = await this.#runChild(signal).catch(
        (error: unknown): Failure => ({
          code: error instanceof Ros2Unusable ? error.code : 'ros_failed',
          message: errorMessage(error),
        }),
      );
      if (signal.aborted || !failure) return;
      this.#ports.log.error({ source: this.name, ...failure }, 'source.failed');
      this.#status({ state: 'failed', ...failure });
      for (const { settings } of this.#streams) this.#status({ stream: settings.stream, state: 'failed', ...failure });
      if (this.#ports.clock.monotonicMs() - startedMs > HEALTHY_AFTER_MS) this.#backoff.reset();
      await pause(this.#backoff.nextMs(), signal);
    }
  }

  /** Says stop on its topics while the gate is closed. */
  setGate(isOpen: boolean): void {
    if (isOpen === this.#isGateOpen) return;
    this.#isGateOpen = isOpen;
    this.#tellGate();
  }

  #tellGate(): void {
    if (this.#options.stop && this.#child?.connected)
      this.#child.send({ kind: 'gate', isOpen: this.#isGateOpen }, () => undefined);
  }

  /** One child, from its environment to its end. Resolves with nothing when it was told to stop. */
  async #runChild(signal: AbortSignal): Promise<Failure | undefined> {
    this.#status({ state: 'starting' });
    const { setup, env, domainId } = this.#options;
    const sourced = await sourcedEnvironment(setup, env, signal);
    const child = fork(CHILD_FILE, [], {
      env: { ...sourced, ...(domainId === undefined ? {} : { ROS_DOMAIN_ID: String(domainId) }) },
      execArgv: [],
      serialization: 'advanced',
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    });
    this.#child = child;
    this.#logLines(child.stdout, 'stdout');
    this.#logLines(child.stderr, 'stderr');
    const attempt: Attempt = { isReady: false, failure: undefined };
    const ended = new Promise<Failure>((resolve) => {
      child.once('error', (error) => resolve({ code: 'ros_failed', message: `cannot start: ${error.message}` }));
      child.once('exit', (code, exitSignal) => resolve(attempt.failure ?? explainExit(code, exitSignal)));
    });
    child.on('message', (report: Ros2ChildReport) => this.#take(report, attempt));
    child.send(this.#startMessage(sourced['ROS_DISTRO']), () => undefined); // A child that died says so by its exit.
    const startTimer = setTimeout(() => {
      if (attempt.isReady) return;
      attempt.failure = { code: 'ros_failed', message: `did not start within ${START_TIMEOUT_MS / 1000} s` };
      child.kill('SIGKILL');
    }, START_TIMEOUT_MS);
    const reportTimer = setInterval(() => attempt.isReady && this.#reportStreams(), REPORT_EVERY_MS);
    const stop = (): void => stopChild(child);
    signal.addEventListener('abort', stop, { once: true });
    if (signal.aborted) stop();
    try {
      const failure = await ended;
      return signal.aborted ? undefined : failure;
    } finally {
      clearTimeout(startTimer);
      clearInterval(reportTimer);
      signal.removeEventListener('abort', stop);
      this.#droppedBefore = this.#dropped;
    }
  }

  #startMessage(sourcedDistro: string | undefined): Ros2ChildStart {
    const { distro, nodeName = 'outrider_edge', rclnodejsDir, signals = [], stop } = this.#options;
    return {
      kind: 'start',
      nodeName,
      topics: [...this.#streams.map(({ settings }) => settings), ...signals].map(({ topic, type, qos }) => ({
        topic,
        type,
        qos,
      })),
      ...(stop && { stop }),
      ...(sourcedDistro === undefined ? {} : { sourcedDistro }),
      ...(distro === undefined ? {} : { expectedDistro: distro }),
      ...(rclnodejsDir === undefined ? {} : { rclnodejsFrom: join(resolve(rclnodejsDir), 'package.json') }),
    };
  }

  #take(report: Ros2ChildReport, attempt: Attempt): void {
    switch (report.kind) {
      case 'failed':
        attempt.failure = { code: report.code, message: report.message };
        return;
      case 'ready':
        attempt.isReady = true;
        for (const stream of this.#streams) stream.meter = this.#newMeter(stream.settings.rateHz);
        this.#status({ state: 'running' });
        this.#tellGate();
        return;
      case 'publishers':
        this.#dropped = this.#droppedBefore + report.dropped;
        for (const publishers of report.publishers) {
          const stream = this.#streams[publishers.topic];
          if (stream) stream.publishers = publishers;
        }
        return;
      case 'messages':
        this.#dropped = this.#droppedBefore + report.dropped;
        for (const { topic, payload, receivedNs, receivedMonoNs } of report.messages) {
          const stream = this.#streams[topic];
          if (!stream) {
            this.#signal(topic - this.#streams.length, payload, receivedMonoNs);
            continue;
          }
          stream.meter.observe(receivedMonoNs);
          this.#emit(stream, payload, receivedNs, receivedMonoNs);
        }
        return;
    }
  }

  #signal(index: number, payload: Uint8Array, receivedMonoNs: bigint): void {
    const settings = this.#options.signals?.[index];
    if (!settings) return;
    const { type, use, frameId, topic, rateHz } = settings;
    this.#ports.onSignal?.(readRosSignal(type, use, frameId, payload), topic, rateHz, receivedMonoNs);
  }

  /** A live source does not wait: what the agent does with a sample is its own affair, trouble included. */
  #emit({ decoder, settings }: Stream, payload: Uint8Array, receivedNs: bigint, receivedMonoNs: bigint): void {
    const refused = (error: unknown): void =>
      this.#ports.log.error({ source: this.name, stream: settings.stream, err: error }, 'sample.refused');
    try {
      Promise.resolve(this.#ports.emit(decoder.decode(payload, receivedNs, receivedMonoNs))).catch(refused);
    } catch (error) {
      refused(error);
    }
  }

  #reportStreams(): void {
    const nowNs = monotonicNs(this.#ports.clock);
    for (const { settings, meter, publishers } of this.#streams) {
      const state: SourceState = meter.isStale(nowNs) ? 'stale' : 'running';
      this.#status({
        stream: settings.stream,
        state,
        measuredRateHz: meter.rateHz(nowNs),
        declaredRateHz: settings.rateHz,
        dropped: this.#dropped,
        ...(publishers ? { publishers: publishers.count } : {}),
        ...silence(state, publishers),
      });
    }
  }

  #newMeter(rateHz: number): RateMeter {
    return new RateMeter(rateHz, STALE_FACTOR, monotonicNs(this.#ports.clock));
  }

  #logLines(stream: Readable | null, from: string): void {
    if (!stream) return;
    createInterface({ input: stream }).on('line', (line) => {
      this.#ports.log.debug(
        { source: this.name, from, line: line.slice(0, LOG_LINE_CHARACTERS_MAX) },
        'ros2.child_said',
      );
    });
  }

  #status(status: Omit<SourceStatus, 'source'>): void {
    this.#ports.onStatus({ source: this.name, ...status });
  }
}

interface Failure {
  readonly code: Ros2ChildFailure | 'ros_child_died';
  readonly message: string;
}

/** What is known of one child. */
interface Attempt {
  isReady: boolean;
  /** Its last words. */
  failure: Failure | undefined;
}

/** Why a stream says nothing, as far as the ROS graph tells. */
function silence(state: SourceState, publishers: Ros2Publishers | undefined): { code?: string; message?: string } {
  const [reason] = publishers?.incompatible ?? [];
  if (reason !== undefined)
    return { code: 'incompatible_qos', message: `publisher present, incompatible QoS or type: ${reason}` };
  if (state === 'stale' && publishers?.count === 0)
    return { code: 'no_publisher', message: 'nobody publishes this topic; check its name and the ROS domain id' };
  return {};
}

function explainExit(exitCode: number | null, signal: NodeJS.Signals | null): Failure {
  const known = Object.entries(ROS2_CHILD_EXITS).find(([, code]) => code === exitCode);
  if (known) {
    const code = known[0] as Ros2ChildFailure;
    return { code, message: ROS2_CHILD_ADVICE[code] };
  }
  return { code: 'ros_child_died', message: `the ROS 2 process ended by ${signal ?? `exit code ${exitCode}`}` };
}

function stopChild(child: ChildProcess): void {
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_TIMEOUT_MS);
  child.once('exit', () => clearTimeout(timer));
}
