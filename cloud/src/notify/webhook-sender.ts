import { errorMessage } from '@outrider/shared/errors';
import type { Logger } from '@outrider/shared/log';
import type { Service } from '@outrider/shared/service';
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
const IN_FLIGHT_MAX = 32;
/** A receiver that is slow holds up its own queue only. */
const IN_FLIGHT_PER_WEBHOOK_MAX = 4;
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
  readonly #inFlight = new Map<string, { readonly webhookId: string; readonly ended: Promise<void> }>();
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
    signal.addEventListener('abort', () => this.wake(), { once: true });
    while (!signal.aborted) {
      this.#isWoken = false;
      const started = await this.#startDue().catch((error: unknown) => {
        log.warn({ err: error }, 'webhook.queue_failed');
        return 0;
      });
      if (clock.monotonicMs() >= tidyAtMs) {
        tidyAtMs = clock.monotonicMs() + TIDY_MS;
        await this.#options.store.removeEnded(clock.epochMs() - KEEP_ENDED_MS).catch((error: unknown) => {
          log.warn({ err: error }, 'webhook.tidy_failed');
        });
      }
      if (started === 0 && !this.#isWoken) await this.#rest();
    }
    await this.#settled();
  }

  /** Sends what is due now, once, and waits for the answers. */
  async sendDue(): Promise<void> {
    await this.#startDue();
    await this.#settled();
  }

  async #settled(): Promise<void> {
    await Promise.all([...this.#inFlight.values()].map(({ ended }) => ended));
  }

  /** @returns How many attempts it began. */
  async #startDue(): Promise<number> {
    const { clock, log, store } = this.#options;
    const room = IN_FLIGHT_MAX - this.#inFlight.size;
    if (room <= 0) return 0;
    // Whoever still has some under way waits for them, so that no more than the limit are ever with one receiver.
    const busy = [...new Set([...this.#inFlight.values()].map(({ webhookId }) => webhookId))];
    const claimed = await store.claim(clock.epochMs(), CLAIM_MS, room, IN_FLIGHT_PER_WEBHOOK_MAX, busy);
    for (const delivery of claimed) {
      const ended = this.#attempt(delivery)
        .then((result) => store.settle([result], clock.epochMs()))
        // The claim runs out, and it is sent again.
        .catch((error: unknown) => log.warn({ err: error, deliveryId: delivery.deliveryId }, 'webhook.settle_failed'))
        .finally(() => {
          this.#inFlight.delete(delivery.deliveryId);
          this.wake();
        });
      this.#inFlight.set(delivery.deliveryId, { webhookId: delivery.webhookId, ended });
    }
    return claimed.length;
  }

  async #rest(): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, POLL_MS);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
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
