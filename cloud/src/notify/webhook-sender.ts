import { errorMessage } from '@outrider/shared/errors';
import type { Logger } from '@outrider/shared/log';
import { pause, type Service } from '@outrider/shared/service';
import type { Clock } from '@outrider/shared/time';
import { Webhook as Signer } from 'standardwebhooks';
import { type Egress, EgressError } from './egress.ts';
import type { AttemptResult, ClaimedDelivery, WebhookStore } from './ports.ts';

/** Attempts before a delivery is given up: with the delays below, about a day. */
export const ATTEMPTS_MAX = 12;
const RETRY_FIRST_MS = 5_000;
const RETRY_MS_MAX = 4 * 3_600_000;
/** A claim is held longer than an attempt can take. */
const CLAIM_MS = 30_000;
const CLAIMED_AT_ONCE = 16;
/** A receiver that is slow holds up its own queue only. */
const CLAIMED_PER_WEBHOOK = 4;
const POLL_MS = 1_000;
const KEEP_ENDED_MS = 7 * 86_400_000;
const TIDY_MS = 3_600_000;
const ERROR_CHARACTERS_MAX = 300;

export interface WebhookSenderOptions {
  readonly store: WebhookStore;
  readonly egress: Egress;
  readonly openSecret: (webhookId: string, sealed: string) => string;
  readonly clock: Clock;
  readonly log: Logger;
  readonly random?: () => number;
  readonly onAttempt?: (outcome: 'delivered' | 'failed' | 'dead') => void;
}

/** How long to wait after an attempt: doubling, and between half of that and the whole. */
export const retryDelayMs = (attempts: number, random: () => number): number =>
  Math.min(RETRY_MS_MAX, RETRY_FIRST_MS * 2 ** (attempts - 1)) * (0.5 + 0.5 * random());

/** Sends what is in the queue, each at least once and always under the same id. Any number of replicas may run it. */
export class WebhookSender implements Service {
  readonly name = 'webhooks';
  readonly #options: WebhookSenderOptions;
  #wake: (() => void) | undefined;
  #isWoken = false;

  constructor(options: WebhookSenderOptions) {
    this.#options = options;
  }

  /** There may be something to send. */
  wake(): void {
    this.#isWoken = true;
    this.#wake?.();
  }

  async run(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#options;
    let tidyAtMs: number = clock.monotonicMs();
    while (!signal.aborted) {
      this.#isWoken = false;
      const sent = await this.sendDue().catch((error: unknown) => {
        log.warn({ err: error }, 'webhook.queue_failed');
        return 0;
      });
      if (clock.monotonicMs() >= tidyAtMs) {
        tidyAtMs = clock.monotonicMs() + TIDY_MS;
        await this.#options.store.removeEnded(clock.epochMs() - KEEP_ENDED_MS).catch((error: unknown) => {
          log.warn({ err: error }, 'webhook.tidy_failed');
        });
      }
      if (sent === 0 && !this.#isWoken) await this.#rest(signal);
    }
  }

  /** Sends what is due now, once. @returns How many were tried. */
  async sendDue(): Promise<number> {
    const { clock, store } = this.#options;
    const claimed = await store.claim(clock.epochMs(), CLAIM_MS, CLAIMED_AT_ONCE, CLAIMED_PER_WEBHOOK);
    await Promise.all(
      claimed.map(async (delivery) => {
        const result = await this.#attempt(delivery);
        await store.settle([result], clock.epochMs());
      }),
    );
    return claimed.length;
  }

  async #rest(signal: AbortSignal): Promise<void> {
    const rested = new AbortController();
    this.#wake = () => rested.abort();
    await pause(POLL_MS, AbortSignal.any([signal, rested.signal]));
    this.#wake = undefined;
  }

  async #attempt({
    deliveryId,
    webhookId,
    url,
    sealedSecret,
    body,
    attempts,
  }: ClaimedDelivery): Promise<AttemptResult> {
    const { clock, egress, log, onAttempt, openSecret, random } = this.#options;
    const nowMs = clock.epochMs();
    let status: number | undefined;
    let error: string;
    let isVain = false;
    try {
      const signer = new Signer(openSecret(webhookId, sealedSecret));
      const at = new Date(nowMs);
      const answer = await egress.post(
        url,
        {
          'content-type': 'application/json',
          'user-agent': 'outrider-webhooks/1',
          'webhook-id': deliveryId,
          'webhook-timestamp': `${Math.floor(nowMs / 1000)}`,
          'webhook-signature': signer.sign(deliveryId, at, body),
        },
        body,
      );
      status = answer.status;
      if (status >= 200 && status < 300) {
        onAttempt?.('delivered');
        return { deliveryId, state: 'delivered', status };
      }
      error = `the receiver answered ${status}`;
      // Standard Webhooks: 410 says that nobody listens there any more.
      isVain = status === 410;
    } catch (cause) {
      error = errorMessage(cause).slice(0, ERROR_CHARACTERS_MAX);
      isVain = cause instanceof EgressError && cause.isRefusal && attempts >= 3;
    }
    const isDead = isVain || attempts >= ATTEMPTS_MAX;
    onAttempt?.(isDead ? 'dead' : 'failed');
    log.warn({ webhookId, deliveryId, attempts, status, reason: error, dead: isDead }, 'webhook.attempt_failed');
    if (isDead) return { deliveryId, state: 'dead', status, error };
    const dueMs = clock.epochMs() + retryDelayMs(attempts, random ?? Math.random);
    return { deliveryId, state: 'pending', dueMs, status, error };
  }
}
