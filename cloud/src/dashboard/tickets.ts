import { newSecret } from '@outrider/shared/ids';
import type { Clock } from '@outrider/shared/time';
import type { Principal } from '../identity/principal.ts';
import { fingerprint } from '../identity/secrets.ts';

const LIFETIME_MS = 30_000;
const OPEN_MAX = 10_000;

/** What a stream is opened with: who it is for, and the secret to check again while it is open. */
export interface StreamGrant {
  readonly principal: Principal;
  readonly secret: string | undefined;
}

/** Single-use tickets for streams, so that no token has to stand in a URL. They live in this process only. */
export class LiveTickets {
  readonly #clock: Clock;
  readonly #open = new Map<string, { grant: StreamGrant; untilMs: number }>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  issue(principal: Principal, secret: string | undefined): { ticket: string; expiresInS: number } {
    const nowMs = this.#clock.monotonicMs();
    // Oldest first: the first one that still holds ends the search.
    for (const [hash, { untilMs }] of this.#open) {
      if (untilMs > nowMs && this.#open.size < OPEN_MAX) break;
      this.#open.delete(hash);
    }
    const ticket = newSecret('tkt_');
    this.#open.set(fingerprint(ticket), { grant: { principal, secret }, untilMs: nowMs + LIFETIME_MS });
    return { ticket, expiresInS: LIFETIME_MS / 1000 };
  }

  /** What the ticket was issued for; a second use finds nothing. */
  redeem(ticket: string): StreamGrant | undefined {
    const hash = fingerprint(ticket);
    const found = this.#open.get(hash);
    this.#open.delete(hash);
    return found && found.untilMs > this.#clock.monotonicMs() ? found.grant : undefined;
  }
}
