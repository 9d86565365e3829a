import { errorMessage } from '@outrider/shared/errors';
import { newId } from '@outrider/shared/ids';
import type { Logger } from '@outrider/shared/log';
import type { Clock, MonotonicMs } from '@outrider/shared/time';
import type { OutboxEvent } from '../outbox/records.ts';

/** One event for each kind of forgery in this time, so that a flood of them does not fill the event lane. */
const QUIET_MS = 10_000;

/** What a message claims to be. Nothing of it is believed. */
export interface Claim {
  readonly keyId: string;
  readonly verb: string;
  readonly commandId: string;
}

/** Tells of messages on the command channel that nobody who may had signed. */
export class UnauthenticAlarm {
  readonly #record: (event: OutboxEvent) => Promise<void>;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #kinds = new Map<string, { count: number; toldAt: MonotonicMs }>();

  constructor(record: (event: OutboxEvent) => Promise<void>, clock: Clock, log: Logger) {
    this.#record = record;
    this.#clock = clock;
    this.#log = log;
  }

  /** @param problem One of a closed list of words: it is what the quiet time is kept by. */
  raise(problem: string, claim: Claim): void {
    const now = this.#clock.monotonicMs();
    const known = this.#kinds.get(problem);
    const count = (known?.count ?? 0) + 1;
    if (known && now - known.toldAt < QUIET_MS) {
      known.count = count;
      return;
    }
    this.#kinds.set(problem, { count: 0, toldAt: now });
    const payload = {
      problem,
      key_id: claim.keyId.slice(0, 64),
      claimed_verb: claim.verb.slice(0, 64),
      claimed_command_id: claim.commandId.slice(0, 64),
      count,
    };
    this.#log.error(payload, 'command.unauthentic');
    const eventId = newId('evt');
    this.#record({
      eventId,
      type: 'command.unauthentic.v1',
      occurredAtMs: this.#clock.epochMs(),
      traceId: eventId,
      payload,
    }).catch((error: unknown) => this.#log.error({ reason: errorMessage(error) }, 'event.lost'));
  }
}
