import { type BytePort, type CommandOutcome, McuLink } from '@outrider/firmware-bridge/link';
import { type McuState as LinkState, MCU_FLAGS, type McuStatus } from '@outrider/firmware-bridge/messages';
import { openSerialPort } from '@outrider/firmware-bridge/serial-port';
import { errorMessage } from '@outrider/shared/errors';
import type { McuState } from '@outrider/shared/failsafe/state';
import type { Logger } from '@outrider/shared/log';
import { aborted, Backoff, pause, type Service } from '@outrider/shared/service';
import type { Sample } from '@outrider/shared/telemetry';
import type { Clock } from '@outrider/shared/time';
import type { McuView } from './actuators.ts';
import type { MotionPort } from './command-runner.ts';

/** How the microcontroller's own words map on the failsafe's. Disarmed after a boot is stopped too. */
const STATES: Readonly<Record<LinkState, McuState>> = {
  DISARMED: 'STOPPED',
  STOPPED: 'STOPPED',
  HOLD: 'HOLDING',
  ARMED: 'ARMED',
};
const REOPEN_MS_FIRST = 100;
const REOPEN_MS_MAX = 3000;

export interface McuLineOptions {
  readonly serial: { readonly path: string; readonly baud: number };
  /** Silence after which the state is not known any more. [ms] */
  readonly silentMs: number;
  readonly clock: Clock;
  readonly log: Logger;
  readonly onSample: (sample: Sample) => void;
  /** The state or the stop button changed: worth an evaluation at once. */
  readonly onChange: () => void;
}

/** The line to the microcontroller: opens it, opens it again when it goes away, and keeps what is known. */
export class McuLine implements Service, MotionPort {
  readonly name = 'mcu-line';
  readonly #options: McuLineOptions;
  #link: McuLink | undefined;
  #state: McuState = 'UNKNOWN';
  #lastFrameMs: number | undefined;
  #bootNonce: number | undefined;
  #hasRestarted = false;
  #hasArmed = false;
  #isHeld = false;
  #isEstopPressed: boolean | undefined;
  #framesOk = 0;
  #framesBad = 0;
  #rttMs = Number.NaN;

  constructor(options: McuLineOptions) {
    this.#options = options;
  }

  view(nowMs: number): McuView {
    const isSilent = this.#lastFrameMs !== undefined && nowMs - this.#lastFrameMs > this.#options.silentMs;
    return {
      state: isSilent ? 'SILENT' : this.#state,
      lastFrameMs: this.#lastFrameMs,
      hasRestarted: this.#hasRestarted,
      hasArmed: this.#hasArmed,
      isHoldWanted: this.#isHeld,
      isEstopPressed: this.#isEstopPressed,
      framesOk: this.#framesOk + (this.#link?.framesOk ?? 0),
      framesBad: this.#framesBad + (this.#link?.framesBad ?? 0),
      heartbeatRttMs: this.#link?.rttMs ?? this.#rttMs,
    };
  }

  heartbeat(gateOpen: boolean, motionEpoch: number): void {
    if (this.#link?.isConnected) this.#link.sendHeartbeat({ gateOpen, motionEpoch });
  }

  /** Tells the microcontroller twice: by a heartbeat with the gate closed and by a stop that is acknowledged. */
  stop(motionEpoch: number): Promise<CommandOutcome> {
    const link = this.#link;
    if (!link) return Promise.resolve(NOT_CONNECTED);
    link.sendHeartbeat({ gateOpen: false, motionEpoch });
    return link.stop();
  }

  get jointNames(): readonly string[] | undefined {
    return this.#link?.isConnected ? this.#link.hello?.jointNames : undefined;
  }

  get isHeld(): boolean {
    return this.#isHeld;
  }

  setpoints(positionRad: Float64Array, motionEpoch: number): Promise<CommandOutcome> {
    return this.#link?.setpoints(positionRad, { motionEpoch }) ?? Promise.resolve(NOT_CONNECTED);
  }

  async hold(): Promise<CommandOutcome> {
    const link = this.#link;
    if (!link) return NOT_CONNECTED;
    const wasHeld = this.#isHeld;
    // Before it is sent, so that its going to HOLD is no surprise.
    this.#isHeld = true;
    const outcome = await link.hold();
    // One that was not heard of may have been done: then it holds.
    if (outcome.kind === 'refused') this.#isHeld = wasHeld;
    return outcome;
  }

  async release(motionEpoch: number): Promise<CommandOutcome> {
    const outcome = (await this.#link?.release({ motionEpoch })) ?? NOT_CONNECTED;
    if (outcome.kind !== 'accepted') return outcome;
    // The answer says the state after it; the last echo may be older.
    this.#noteState(outcome.state);
    this.#isHeld = false;
    return outcome;
  }

  async arm(motionEpoch: number): Promise<CommandOutcome> {
    this.#hasArmed = false;
    this.#isHeld = false;
    this.#hasRestarted = false;
    const link = this.#link;
    if (!link?.isConnected) return NOT_CONNECTED;
    link.sendHeartbeat({ gateOpen: true, motionEpoch });
    return link.arm({ motionEpoch });
  }

  async run(signal: AbortSignal): Promise<void> {
    const { serial, log } = this.#options;
    const backoff = new Backoff(REOPEN_MS_FIRST, REOPEN_MS_MAX);
    let lastProblem = '';
    while (!signal.aborted) {
      try {
        const port = await openSerialPort(serial);
        await this.#converse(port, signal, () => {
          backoff.reset();
          lastProblem = '';
        });
      } catch (error) {
        // One line per problem, not per attempt.
        const problem = errorMessage(error);
        if (problem !== lastProblem && !signal.aborted) log.warn({ path: serial.path, problem }, 'mcu.line_lost');
        lastProblem = problem;
      }
      await pause(backoff.nextMs(), signal);
    }
  }

  async #converse(port: BytePort, signal: AbortSignal, onConnected: () => void): Promise<void> {
    const { clock, serial, log } = this.#options;
    const link = new McuLink({ port, clock, baud: serial.baud });
    const closed = new Promise<Error | undefined>((resolve) => {
      link.onClose((error) => resolve(error));
    });
    this.#link = link;
    this.#listen(link);
    try {
      const hello = await link.connect(signal);
      this.#noteBoot(hello.bootNonce);
      log.info({ path: serial.path, firmware: hello.firmware, joints: hello.jointNames.length }, 'mcu.connected');
      onConnected();
      // Whatever it was doing: nothing moves before a recovery.
      void link.stop();
      const stop = new AbortController();
      const error = await Promise.race([closed, aborted(AbortSignal.any([signal, stop.signal])).then(() => undefined)]);
      stop.abort();
      if (error) throw error;
      if (!signal.aborted) throw new Error('the serial port was closed');
    } finally {
      this.#framesOk += link.framesOk;
      this.#framesBad += link.framesBad;
      this.#rttMs = link.rttMs;
      this.#link = undefined;
      link.close();
    }
  }

  #listen(link: McuLink): void {
    link.onMessage(() => {
      this.#lastFrameMs = this.#options.clock.monotonicMs();
    });
    link.onEcho((echo) => this.#noteState(echo.state));
    link.onStatus((status) => this.#noteStatus(status));
    link.onReset((hello) => this.#noteBoot(hello.bootNonce));
    link.onSample((sample) => this.#options.onSample(sample));
  }

  #noteBoot(bootNonce: number): void {
    if (this.#bootNonce !== undefined && this.#bootNonce !== bootNonce) {
      this.#hasRestarted = true;
      this.#options.log.warn({}, 'mcu.restarted');
    }
    this.#bootNonce = bootNonce;
    this.#options.onChange();
  }

  #noteStatus(status: McuStatus): void {
    const isPressed = (status.flags & MCU_FLAGS.estopPressed) !== 0;
    if (isPressed !== this.#isEstopPressed) {
      this.#isEstopPressed = isPressed;
      this.#options.onChange();
    }
    this.#noteState(status.state);
  }

  #noteState(word: LinkState): void {
    const state = STATES[word];
    if (state === 'ARMED') this.#hasArmed = true;
    if (state === this.#state) return;
    this.#state = state;
    this.#options.onChange();
  }
}

const NOT_CONNECTED: CommandOutcome = { kind: 'failed', reason: 'not_connected' };
