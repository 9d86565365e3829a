import { randomBytes } from 'node:crypto';
import { DomainError } from '@outrider/shared/errors';
import { type DeviceIdentity, deviceName } from '@outrider/shared/ids';
import type { Logger } from '@outrider/shared/log';
import { outrider } from '@outrider/shared/messages';
import { decodeWire } from '@outrider/shared/protocol/codec';
import { downFilter, parseTopic, presenceTopic, upTopic } from '@outrider/shared/protocol/topics';
import { PROTOCOL_VERSION } from '@outrider/shared/protocol/version';
import type { Presence } from '@outrider/shared/robot';
import type { Clock } from '@outrider/shared/time';
import type { CommandDesk } from '../commands/command-desk.ts';
import type { Reply } from '../commands/command-log.ts';
import type { Outbox } from '../outbox/outbox.ts';
import { LANE_NUMBERS, LANES, type LaneName, laneOf } from '../outbox/records.ts';
import type { Budget } from './budget.ts';
import { type BatchRange, LaneSender } from './lane-sender.ts';
import type { MqttLink } from './mqtt-link.ts';
import type { Refusal } from './suspicion.ts';

const { Ack, CommandReply, Hello, HelloReply, PresenceReport } = outrider.v1;
/** Unanswered resends before the connection is given up. */
const RESENDS_MAX = 3;
/** A broker that does not like a packet hangs up when it reads it. What ends later has other reasons. */
const REFUSED_WITHIN_MS = 5000;

/** The cloud will not take this robot's data, and says why. */
export class HelloRefused extends DomainError {
  constructor(sentence: string) {
    super('rejected', sentence);
  }
}

export interface SessionOptions {
  readonly device: DeviceIdentity;
  readonly bootId: string;
  readonly agentVersion: string;
  readonly window: number;
  readonly ackTimeoutMs: number;
  readonly helloTimeoutMs: number;
  readonly outbox: Outbox;
  readonly commands: CommandDesk;
  /** What the link may carry of telemetry. Absent: all. */
  readonly budget?: Budget | undefined;
  readonly clock: Clock;
  readonly log: Logger;
  /** What the cloud's clock is ahead of ours. [ms] */
  readonly onClockSkew?: ((skewMs: number) => void) | undefined;
  /** An acknowledgement arrived; the time is from sending to storing. */
  readonly onAck: (lane: LaneName, latencyMs: number, upto: number) => void;
}

/** A batch that the broker has not confirmed yet. */
interface Untaken extends BatchRange {
  readonly lane: LaneName;
  readonly sentAt: number;
}

export function presenceReport(options: SessionOptions, presence: Presence): Uint8Array {
  const { bootId, agentVersion, clock } = options;
  return PresenceReport.encode({ presence, atMs: clock.epochMs(), bootId, agentVersion }).finish();
}

/** One connection's life after it is open: hello, then batches out and acknowledgements in, until it ends. */
export class Session {
  readonly #options: SessionOptions;
  readonly #link: MqttLink;
  readonly #onReply = new Map<string, (reply: outrider.v1.HelloReply) => void>();
  #senders: LaneSender[] = [];
  #epoch = '';
  /** When a careful session may send: a connection that cannot even be quiet says nothing about a record. */
  #quietUntil: number | undefined;
  #untaken: Untaken[] = [];
  #takenAt = 0;
  #resends = 0;
  #ignored = 0;

  constructor(options: SessionOptions, link: MqttLink) {
    this.#options = options;
    this.#link = link;
  }

  /** First record that is in flight, event lane first. */
  get oldestInFlight(): { lane: LaneName; seq: number } | undefined {
    for (const { lane, oldestInFlight: seq } of this.#senders) if (seq !== undefined) return { lane, seq };
    return undefined;
  }

  /**
   * Introduces the robot and learns what the cloud has.
   *
   * @throws HelloRefused when the cloud refuses; DomainError `timeout` when it does not answer.
   */
  async open(isCautious: boolean, signal: AbortSignal): Promise<void> {
    const { device, outbox, clock, window, budget, log } = this.#options;
    this.#options.commands.speakThrough((said) => void this.#say(said));
    await this.#link.subscribe(downFilter(device));
    await this.#link.publish(presenceTopic(device), presenceReport(this.#options, 'ONLINE'), true);
    let reply = await this.#hello(signal);
    if (reply.lanes.some((ack) => isAhead(Ack.create(ack), outbox))) {
      // The cloud has positions that we never gave out: this database is an old copy. Its numbers must not be reused.
      log.error({ epoch: outbox.epoch }, 'outbox.rolled_back');
      if (!outbox.startEpoch('rolled_back')) throw new DomainError('unavailable', 'the outbox cannot be written');
      reply = await this.#hello(signal);
    }
    this.#epoch = outbox.epoch;
    if (isCautious) this.#quietUntil = clock.monotonicMs() + this.#refusedWithinMs;
    const send = (lane: LaneName, payload: Uint8Array, range: BatchRange): void => this.#publish(lane, payload, range);
    this.#senders = LANES.map((lane) => {
      const ack = reply.lanes.find(
        (candidate) => laneOf(candidate.lane ?? 0) === lane && candidate.epoch === this.#epoch,
      );
      const cloudHas = ack?.upto ?? 0;
      // What the cloud has beyond what it acknowledged here may be another robot's with a copy of this database. So what
      // was on its way when the last connection ended is sent again and compared, and the position alone not believed.
      const watermark = outbox.ackedUpto(lane);
      if (cloudHas > watermark) outbox.cutGap(lane, cloudHas);
      const limit = lane === 'telemetry' ? budget : undefined;
      const isNaming = reply.namesBatches;
      return new LaneSender(lane, outbox, clock, { window, watermark, cloudHas, isNaming, budget: limit, send });
    });
    if (reply.lanes.some((ack) => ack.collision)) this.#collide();
  }

  /** Sends what fits: events before states before telemetry. */
  pump(): void {
    if (!this.#link.isOpen || this.#senders.length === 0) return;
    const { outbox, log } = this.#options;
    if (outbox.epoch !== this.#epoch) {
      log.warn({ epoch: outbox.epoch }, 'uplink.epoch_changed');
      this.#link.destroy();
      return;
    }
    const isCautious = this.#quietUntil !== undefined;
    if (this.#isQuiet()) return;
    for (const sender of this.#senders) {
      sender.fill(isCautious);
      if (isCautious && sender.oldestInFlight !== undefined) return;
    }
  }

  /** What the broker hung up on. To be asked when the connection is gone; `undefined` when that was not the reason. */
  refusal(): Refusal | undefined {
    const first = this.#untaken[0];
    if (!first || !this.#link.wasClosedByPeer) return undefined;
    const waitedMs = this.#options.clock.monotonicMs() - Math.max(first.sentAt, this.#takenAt);
    if (waitedMs > this.#refusedWithinMs) return undefined;
    const { lane, from, upto } = first;
    return { lane, from, upto, isAlone: this.#quietUntil !== undefined };
  }

  get #refusedWithinMs(): number {
    return Math.min(REFUSED_WITHIN_MS, this.#options.ackTimeoutMs / 2);
  }

  #isQuiet(): boolean {
    return this.#quietUntil !== undefined && this.#options.clock.monotonicMs() < this.#quietUntil;
  }

  /** To be called now and then: sends again what was not acknowledged in time. */
  checkTimeouts(): void {
    const { ackTimeoutMs, log } = this.#options;
    if (this.#quietUntil !== undefined || this.#options.budget?.isLimited) this.pump();
    for (const sender of this.#senders) {
      if (!sender.isOverdue(ackTimeoutMs)) continue;
      this.#resends += 1;
      log.warn({ lane: sender.lane, from_seq: sender.oldestInFlight, resends: this.#resends }, 'uplink.ack_overdue');
      if (this.#resends > RESENDS_MAX) {
        this.#link.destroy();
        return;
      }
      sender.resend();
    }
  }

  /** Whatever arrives here may be hostile: it is answered, ignored or refused, and never ends the agent. */
  receive(topic: string, payload: Uint8Array, retained: boolean): void {
    const { device, log } = this.#options;
    const parsed = parseTopic(topic);
    try {
      const isOwn = parsed?.direction === 'down' && deviceName(parsed.device) === deviceName(device);
      // A retained command is answered by an alarm; anything else that is retained by nothing.
      if (!isOwn || (retained && parsed.channel !== 'command'))
        throw new DomainError('invalid', 'not a message for this robot now');
      if (parsed.channel === 'ack') this.#acknowledged(decodeWire(Ack, payload, 'ack'));
      else if (parsed.channel === 'hello') this.#replied(decodeWire(HelloReply, payload, 'hello reply'));
      else if (parsed.channel === 'keys') this.#options.commands.takeKeys(payload);
      else void this.#command(payload, retained);
    } catch (error) {
      this.#ignored += 1;
      const isPowerOfTwo = (this.#ignored & (this.#ignored - 1)) === 0;
      // One line for the first, second, fourth, eighth, …: a flood must not fill the log.
      if (isPowerOfTwo)
        log.warn(
          { topic: topic.slice(0, 200), bytes: payload.length, ignored: this.#ignored, err: error },
          'uplink.message_ignored',
        );
    }
  }

  /** Forgets what was in flight: it may be evicted or sent again. */
  close(): void {
    for (const lane of LANES) this.#options.outbox.setInFlight(lane, 0);
    this.#options.commands.noteClockSkew(undefined);
    this.#options.commands.speakThrough(undefined);
    this.#senders = [];
  }

  async #hello(signal: AbortSignal): Promise<outrider.v1.HelloReply> {
    const { device, outbox, bootId, agentVersion, clock, helloTimeoutMs, log } = this.#options;
    const nonce = randomBytes(12).toString('hex');
    const answered = new Promise<outrider.v1.HelloReply>((resolve) => this.#onReply.set(nonce, resolve));
    const sentAt = clock.epochMs();
    const hello = Hello.encode({
      protocolVersion: PROTOCOL_VERSION,
      epoch: outbox.epoch,
      bootId,
      agentVersion,
      wallMs: sentAt,
      lanes: LANES.map((lane) => ({
        lane: LANE_NUMBERS[lane],
        maxSeq: outbox.maxSeq(lane),
        oldestSeq: outbox.oldestSeq(lane),
      })),
      nonce,
    }).finish();
    try {
      await this.#link.publish(upTopic(device, 'hello'), hello);
      const reply = await this.#orGiveUp(answered, helloTimeoutMs, signal);
      if (reply.refused !== '') throw new HelloRefused(reply.refused.slice(0, 500));
      const skewMs = reply.wallMs - (sentAt + clock.epochMs()) / 2;
      this.#options.commands.noteClockSkew(skewMs);
      this.#options.onClockSkew?.(skewMs);
      log.info(
        {
          epoch: outbox.epoch,
          lanes: reply.lanes.map(({ lane, upto }) => [lane, upto]),
          clock_skew_ms: Math.round(skewMs),
        },
        'uplink.hello_answered',
      );
      return reply;
    } finally {
      this.#onReply.delete(nonce);
    }
  }

  /** The answer, or a failure when the connection ends, the program stops, or the time is over. */
  #orGiveUp<T>(answered: Promise<T>, timeoutMs: number, signal: AbortSignal): Promise<T> {
    return new Promise((resolve, reject) => {
      const settle = (outcome: () => void): void => {
        clearTimeout(timer);
        signal.removeEventListener('abort', stop);
        outcome();
      };
      const stop = (): void => settle(() => reject(new DomainError('unavailable', 'stopping')));
      const timer = setTimeout(() => {
        const words = `the cloud did not answer the hello within ${timeoutMs} ms`;
        settle(() => reject(new DomainError('timeout', words)));
      }, timeoutMs);
      signal.addEventListener('abort', stop, { once: true });
      void answered.then((answer) => settle(() => resolve(answer)));
      void this.#link.closed.then((reason) =>
        settle(() => reject(new DomainError('unavailable', reason || 'the connection closed'))),
      );
    });
  }

  #replied(reply: outrider.v1.HelloReply): void {
    this.#onReply.get(reply.nonce)?.(reply);
  }

  #acknowledged(ack: outrider.v1.Ack): void {
    const sender = this.#senders.find(({ lane }) => lane === laneOf(ack.lane));
    if (!sender || ack.epoch !== this.#epoch) return;
    if (ack.collision) {
      this.#collide();
      return;
    }
    const latencyMs = sender.acknowledge(ack);
    if (latencyMs === undefined)
      throw new DomainError('invalid', `ack of ${sender.lane} up to ${ack.upto}, of batches that were not sent here`);
    this.#resends = 0;
    if (latencyMs > 0) this.#options.onAck(sender.lane, latencyMs, sender.ackedUpto);
    this.pump();
  }

  #collide(): void {
    this.#options.log.error({ epoch: this.#epoch }, 'uplink.seq_collision');
    this.#options.outbox.startEpoch('seq_collision');
    this.#link.destroy();
  }

  async #command(payload: Uint8Array, retained: boolean): Promise<void> {
    const reply = await this.#options.commands.take(payload, retained);
    if (reply) await this.#say(reply);
  }

  async #say(reply: Reply): Promise<void> {
    const { device, log } = this.#options;
    try {
      await this.#link.publish(upTopic(device, 'reply'), CommandReply.encode(reply).finish());
    } catch (error) {
      log.warn({ command_id: reply.commandId, err: error }, 'uplink.reply_lost');
    }
  }

  #publish(lane: LaneName, payload: Uint8Array, range: BatchRange): void {
    const { clock, device } = this.#options;
    const untaken: Untaken = { ...range, lane, sentAt: clock.monotonicMs() };
    this.#untaken.push(untaken);
    this.#link.publish(upTopic(device, lane), payload).then(
      () => {
        this.#untaken = this.#untaken.filter((other) => other !== untaken);
        this.#takenAt = clock.monotonicMs();
      },
      // It shows as a closed connection; the records stay where they are.
      () => {},
    );
  }
}

function isAhead(ack: outrider.v1.Ack, outbox: Outbox): boolean {
  const lane = laneOf(ack.lane);
  return lane !== undefined && ack.epoch === outbox.epoch && ack.upto > outbox.maxSeq(lane);
}
