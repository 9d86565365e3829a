import type { MqttLink } from '@outrider/edge-agent/uplink/mqtt-link';
import type { Random } from './random.ts';

/** What the network does to messages at the moment. Probabilities from 0 to 1. */
export interface Weather {
  readonly drop: number;
  readonly duplicate: number;
  /** A message takes up to this long, so that later ones overtake it. [ms] */
  readonly delayMaxMs: number;
  /** Nothing passes; both ends believe in the connection. */
  readonly isPartitioned: boolean;
}

export const CALM: Weather = { drop: 0, duplicate: 0, delayMaxMs: 20, isPartitioned: false };

interface Letter {
  readonly dueMs: number;
  readonly order: number;
  readonly isUp: boolean;
  readonly topic: string;
  readonly payload: Uint8Array;
}

/** A network of letters that are due at a virtual time. */
export class SimNetwork {
  weather: Weather = CALM;
  readonly counts = { sent: 0, dropped: 0, duplicated: 0 };
  readonly #random: Random;
  readonly #nowMs: () => number;
  #letters: Letter[] = [];
  #order = 0;

  constructor(random: Random, nowMs: () => number) {
    this.#random = random;
    this.#nowMs = nowMs;
  }

  send(isUp: boolean, topic: string, payload: Uint8Array): void {
    const { drop, duplicate, delayMaxMs, isPartitioned } = this.weather;
    this.counts.sent += 1;
    if (isPartitioned || this.#random.chance(drop)) {
      this.counts.dropped += 1;
      return;
    }
    const copies = this.#random.chance(duplicate) ? 2 : 1;
    this.counts.duplicated += copies - 1;
    for (let copy = 0; copy < copies; copy += 1) {
      this.#order += 1;
      // A second copy may come much later, as after a broker's restart.
      const dueMs = this.#nowMs() + this.#random.next() * (copy === 0 ? delayMaxMs : 40 * delayMaxMs);
      this.#letters.push({ dueMs, order: this.#order, isUp, topic, payload });
    }
  }

  /** Letters that have arrived by now, in the order of their arrival. */
  arrived(): Letter[] {
    const now = this.#nowMs();
    const due = this.#letters.filter(({ dueMs }) => dueMs <= now);
    if (due.length === 0) return due;
    this.#letters = this.#letters.filter(({ dueMs }) => dueMs > now);
    return due.sort((a, b) => a.dueMs - b.dueMs || a.order - b.order);
  }

  /** What was on its way and is lost with a connection or a process. */
  lose(share: number): void {
    this.#letters = this.#letters.filter(() => !this.#random.chance(share));
  }

  /** The robot's end of a connection. */
  open(): MqttLink {
    let isOpen = true;
    let close: (reason: string) => void = () => undefined;
    const closed = new Promise<string>((resolve) => {
      close = (reason) => {
        isOpen = false;
        resolve(reason);
      };
    });
    return {
      closed,
      get isOpen() {
        return isOpen;
      },
      wasClosedByPeer: false,
      publish: async (topic, payload) => {
        if (isOpen) this.send(true, topic, payload);
      },
      subscribe: async () => undefined,
      end: async () => close('ended'),
      destroy: () => close('destroyed'),
    };
  }
}
