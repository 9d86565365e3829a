import { randomInt } from 'node:crypto';
import { DomainError } from '@outrider/shared/errors';
import type { Sample } from '@outrider/shared/telemetry';
import type { Clock } from '@outrider/shared/time';
import { type Command, type CommandOutcome, CommandQueue } from './commands.ts';
import { FRAME_BYTES_MAX, type Frame } from './frame.ts';
import { Handshake } from './handshake.ts';
import { Listeners } from './listeners.ts';
import { McuClock } from './mcu-clock.ts';
import {
  decodeMessage,
  type FaultKind,
  type HeartbeatEcho,
  type McuHello,
  type McuStatus,
  type Message,
  type TelemetryStream,
} from './messages.ts';
import { FrameParser, type ParserStats } from './parser.ts';
import type { BytePort } from './port.ts';
import { isTelemetry, SampleMapper } from './samples.ts';
import { FrameWriter } from './writer.ts';

export type { CommandOutcome } from './commands.ts';
export type { BytePort } from './port.ts';

export interface McuLinkOptions {
  readonly port: BytePort;
  readonly clock: Clock;
  /** Told to the MCU, which fits its rates to it. 0: it does not matter, as on a pty or USB. [bit/s] */
  readonly baud?: number;
  /** How long an answer to a command may take before the command is sent again. [ms] */
  readonly ackTimeoutMs?: number;
  /** How often a command is sent again before it counts as failed. */
  readonly ackRetries?: number;
  /** How often HELLO is sent until it is answered. [ms] */
  readonly helloIntervalMs?: number;
  /** How long the handshake may take in all. [ms] */
  readonly helloTimeoutMs?: number;
}

/** What the link has seen since it was made. */
export interface LinkStats extends Readonly<ParserStats> {
  readonly unknownTypes: number;
  readonly malformed: number;
  /** Telemetry that came before the handshake, or not with the joints that HELLO named. */
  readonly unexpected: number;
  readonly framesWritten: number;
  /** Frames that the port would not take because the line is stuck. */
  readonly framesRefused: number;
  readonly mcuResets: number;
  /** Round trip of the last answered heartbeat; NaN before the first. [ms] */
  readonly rttMs: number;
  readonly rttMsMin: number;
  readonly rttMsMax: number;
}

const ACK_TIMEOUT_MS = 60;
const ACK_RETRIES = 5;
const HELLO_INTERVAL_MS = 100;
const HELLO_TIMEOUT_MS = 3000;

/**
 * The conversation with one MCU over one port. Knows no robot policy: when to stop is the owner's business, and so is
 * calling `sendHeartbeat` every 20 ms. A port that closes ends the link; open a new port and make a new link.
 *
 * When the MCU resets, the link shakes hands again by itself, calls `onReset`, and fails what was waiting. The MCU
 * is then DISARMED, and only `arm` changes that.
 */
export class McuLink {
  readonly #port: BytePort;
  readonly #clock: McuClock;
  readonly #options: McuLinkOptions;
  readonly #parser: FrameParser;
  readonly #writer: FrameWriter;
  readonly #commands: CommandQueue;
  readonly #handshake: Handshake;
  /** Tells this host's run apart from another's, so that the MCU sees the change. Never 0. [FB-12] */
  readonly #session = randomInt(1, 2 ** 32 - 1);
  #hello: McuHello | undefined;
  #status: McuStatus | undefined;
  #mapper: SampleMapper | undefined;
  #closed = false;
  #heartbeatCounter = 0;
  #unknownTypes = 0;
  #malformed = 0;
  #unexpected = 0;
  #mcuResets = 0;
  #rttMs = Number.NaN;
  #rttMsMin = Number.NaN;
  #rttMsMax = Number.NaN;
  readonly #onMessage = new Listeners<[Message]>();
  readonly #onSample = new Listeners<[Sample]>();
  readonly #onStatus = new Listeners<[McuStatus]>();
  readonly #onEcho = new Listeners<[HeartbeatEcho]>();
  readonly #onReset = new Listeners<[McuHello]>();
  readonly #onClose = new Listeners<[error?: Error]>();

  constructor(options: McuLinkOptions) {
    this.#options = options;
    this.#port = options.port;
    this.#clock = new McuClock(options.clock);
    this.#writer = new FrameWriter((bytes) => !this.#closed && this.#port.write(bytes));
    this.#parser = new FrameParser(
      (frame) => this.#receive(frame),
      (version) => this.#handshake.heardOtherVersion(version),
    );
    this.#handshake = new Handshake({
      sendHello: () => this.#sendHello(),
      intervalMs: options.helloIntervalMs ?? HELLO_INTERVAL_MS,
      timeoutMs: options.helloTimeoutMs ?? HELLO_TIMEOUT_MS,
      stats: this.#parser.stats,
    });
    this.#commands = new CommandQueue({
      send: (message) => this.#writer.send(message),
      ackTimeoutMs: options.ackTimeoutMs ?? ACK_TIMEOUT_MS,
      retries: options.ackRetries ?? ACK_RETRIES,
    });
    this.#port.onData((bytes) => this.#parser.push(bytes));
    this.#port.onClose((error) => this.#ended(error));
  }

  /** What the MCU said of itself; `undefined` before the handshake. */
  get hello(): McuHello | undefined {
    return this.#hello;
  }

  /** The last STATUS. */
  get status(): McuStatus | undefined {
    return this.#status;
  }

  /** Whether the handshake is done, anew after a reset of the MCU, and the port open. */
  get isConnected(): boolean {
    return this.#mapper !== undefined && !this.#closed;
  }

  get framesOk(): number {
    return this.#parser.stats.framesOk;
  }

  /** Frames that were damaged on the way. */
  get framesBad(): number {
    const { crcBad, cobsBad } = this.#parser.stats;
    return crcBad + cobsBad + this.#malformed;
  }

  /** Round trip of the last answered heartbeat; NaN before the first. [ms] */
  get rttMs(): number {
    return this.#rttMs;
  }

  /** All at once, for people; what is asked hundreds of times a second has a property of its own. */
  get stats(): LinkStats {
    return {
      ...this.#parser.stats,
      unknownTypes: this.#unknownTypes,
      malformed: this.#malformed,
      unexpected: this.#unexpected,
      framesWritten: this.#writer.framesWritten,
      framesRefused: this.#writer.framesRefused,
      mcuResets: this.#mcuResets,
      rttMs: this.#rttMs,
      rttMsMin: this.#rttMsMin,
      rttMsMax: this.#rttMsMax,
    };
  }

  /** Every decoded message, telemetry included. @returns A function that removes the listener. */
  onMessage(listener: (message: Message) => void): () => void {
    return this.#onMessage.add(listener);
  }

  /** Telemetry as samples of the `mcu/…` streams. @returns A function that removes the listener. */
  onSample(listener: (sample: Sample) => void): () => void {
    return this.#onSample.add(listener);
  }

  /** Each STATUS, before it becomes a sample. @returns A function that removes the listener. */
  onStatus(listener: (status: McuStatus) => void): () => void {
    return this.#onStatus.add(listener);
  }

  /** Each answered heartbeat: the MCU lives, and says its state. @returns A function that removes the listener. */
  onEcho(listener: (echo: HeartbeatEcho) => void): () => void {
    return this.#onEcho.add(listener);
  }

  /** The MCU was reset and has shaken hands anew. @returns A function that removes the listener. */
  onReset(listener: (hello: McuHello) => void): () => void {
    return this.#onReset.add(listener);
  }

  /** The line is gone, with the reason when it broke. @returns A function that removes the listener. */
  onClose(listener: (error?: Error) => void): () => void {
    return this.#onClose.add(listener);
  }

  /**
   * Shakes hands. [FB-12]
   *
   * @throws DomainError `timeout` when nobody answers, saying what was heard instead; `unsupported` when the MCU
   * speaks another protocol version; `offline` when the port closed.
   */
  async connect(signal?: AbortSignal): Promise<McuHello> {
    if (this.#closed) throw new DomainError('offline', 'the serial port is closed; open it again');
    return await this.#handshake.run(signal);
  }

  /**
   * Renews the lease; the owner calls this every 20 ms. Each call counts one up, so calling it from a timer alone
   * proves nothing: call it from the loop whose life the lease is to witness. [FB-18]
   *
   * @returns Whether the port took it.
   */
  sendHeartbeat({ gateOpen, motionEpoch }: { gateOpen: boolean; motionEpoch: number }): boolean {
    this.#heartbeatCounter = (this.#heartbeatCounter + 1) >>> 0;
    const counter = this.#heartbeatCounter;
    return this.#writer.send({
      kind: 'heartbeat',
      counter,
      gateOpen,
      motionEpoch,
      hostMonoUs: this.#clock.monotonicUs(),
    });
  }

  /** Stops at once, from any state, handshake or not. The first frame is written before this returns. */
  stop(): Promise<CommandOutcome> {
    return this.#submit({ kind: 'stop' }, false);
  }

  /** Stops moving and keeps the position under power. An MCU that is stopped already stays so and accepts. */
  hold(): Promise<CommandOutcome> {
    return this.#submit({ kind: 'hold' });
  }

  /**
   * Leaves DISARMED, STOPPED or HOLD. Quotes the boot nonce of the present handshake; the MCU moves once a heartbeat
   * with an open gate quotes the same motion epoch.
   */
  arm({ motionEpoch }: { motionEpoch: number }): Promise<CommandOutcome> {
    return this.#submit({ kind: 'arm', bootNonce: this.#hello?.bootNonce ?? 0, motionEpoch });
  }

  /** Leaves HOLD, and nothing else, for ARMED. */
  release({ motionEpoch }: { motionEpoch: number }): Promise<CommandOutcome> {
    return this.#submit({ kind: 'release', bootNonce: this.#hello?.bootNonce ?? 0, motionEpoch });
  }

  /** Target positions, one per joint in HELLO's order. [rad] */
  setpoints(positionRad: Float64Array, { motionEpoch }: { motionEpoch: number }): Promise<CommandOutcome> {
    return this.#submit({ kind: 'setpoints', positionRad, motionEpoch });
  }

  /** Changes how often a stream is sent; 0 turns it off. [Hz] */
  setRate(stream: TelemetryStream, rateHz: number): Promise<CommandOutcome> {
    return this.#submit({ kind: 'set_rate', stream, rateHz });
  }

  /** Makes a test build of the firmware misbehave. Others refuse with `not_supported`. [FB-26] */
  fault(fault: FaultKind, { joint = 0, value = 0 }: { joint?: number; value?: number } = {}): Promise<CommandOutcome> {
    return this.#submit({ kind: 'fault', fault, joint, value });
  }

  /** Sends any command as it is; for tests that quote a wrong nonce. */
  command(command: Command): Promise<CommandOutcome> {
    return this.#submit(command);
  }

  /** Closes the port. The MCU stops by itself when its lease ends. Closing twice is harmless. */
  close(): void {
    this.#port.close();
    this.#ended();
  }

  #submit(command: Command, needsHandshake = true): Promise<CommandOutcome> {
    if (this.#closed) return Promise.resolve({ kind: 'failed', reason: 'closed' });
    if (needsHandshake && this.#hello === undefined) {
      return Promise.resolve({ kind: 'failed', reason: 'not_connected' });
    }
    return this.#commands.submit(command);
  }

  #sendHello(): void {
    this.#writer.flushLine();
    this.#writer.send({
      kind: 'host_hello',
      session: this.#session,
      hostMonoUs: this.#clock.monotonicUs(),
      baud: this.#options.baud ?? 0,
      frameBytesMax: FRAME_BYTES_MAX,
    });
  }

  #receive(frame: Frame): void {
    const outcome = decodeMessage(frame);
    if (outcome.kind === 'unknown_type') {
      this.#unknownTypes += 1;
      return;
    }
    if (outcome.kind === 'malformed') {
      this.#malformed += 1;
      return;
    }
    const { message } = outcome;
    switch (message.kind) {
      case 'mcu_hello':
        this.#helloReceived(message);
        break;
      case 'heartbeat_echo':
        this.#echoReceived(message);
        break;
      case 'ack':
      case 'nack':
        this.#answerReceived(message);
        break;
      case 'status':
        this.#statusReceived(message);
        break;
      default:
        break;
    }
    this.#onMessage.tell(message);
    if (isTelemetry(message)) this.#sampleReceived(message);
  }

  #helloReceived(hello: McuHello): void {
    if (this.#hello !== undefined && hello.bootNonce !== this.#hello.bootNonce) this.#mcuWasReset();
    // Unasked, or an answer to another host: wait for the answer to ours.
    if (hello.session !== this.#session) return;
    const before = this.#hello;
    if (before?.bootNonce === hello.bootNonce && this.#mapper !== undefined) return;
    this.#clock.reset();
    this.#clock.roundTrip(hello.hostMonoUs, hello.mcuUs);
    this.#mapper = new SampleMapper(hello, this.#clock, before);
    this.#hello = hello;
    this.#handshake.answered(hello);
    if (before !== undefined) this.#onReset.tell(hello);
  }

  #mcuWasReset(): void {
    if (this.#mapper === undefined) return;
    this.#mapper = undefined; // telemetry waits for the new handshake
    this.#mcuResets += 1;
    this.#commands.failAll('reset');
    this.#handshake.begin();
  }

  #echoReceived(echo: HeartbeatEcho): void {
    this.#rttMs = this.#clock.roundTrip(echo.hostMonoUs, echo.mcuUs);
    if (!(this.#rttMs >= this.#rttMsMin)) this.#rttMsMin = this.#rttMs;
    if (!(this.#rttMs <= this.#rttMsMax)) this.#rttMsMax = this.#rttMs;
    this.#onEcho.tell(echo);
  }

  #answerReceived(answer: Extract<Message, { kind: 'ack' | 'nack' }>): void {
    const done = this.#commands.answered(answer);
    if (done?.kind === 'set_rate') this.#mapper?.rateChanged(done.stream, done.rateHz);
  }

  #statusReceived(status: McuStatus): void {
    // The HELLO that an MCU sends at boot can be lost; its STATUS then gives the reset away. [FB-24]
    if (this.#hello !== undefined && status.bootNonce !== this.#hello.bootNonce) this.#mcuWasReset();
    this.#status = status;
    this.#onStatus.tell(status);
  }

  #sampleReceived(message: Extract<Message, { kind: TelemetryStream }>): void {
    const sample = this.#mapper?.toSample(message);
    if (sample === undefined) {
      this.#unexpected += 1;
      return;
    }
    this.#onSample.tell(sample);
  }

  #ended(error?: Error): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#commands.failAll('closed');
    this.#handshake.fail(new DomainError('offline', 'the serial port closed during the handshake', { cause: error }));
    this.#onClose.tell(error);
  }
}
