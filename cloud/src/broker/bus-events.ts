import type { DeviceIdentity } from '@outrider/shared/ids';
import type { Logger } from '@outrider/shared/log';
import { outrider } from '@outrider/shared/messages';
import { decodeWire } from '@outrider/shared/protocol/codec';
import { parseTopic } from '@outrider/shared/protocol/topics';
import type { PresenceChange, Unsubscribe, UplinkMessage } from './bus.ts';

type ReplyListener = (device: DeviceIdentity, reply: outrider.v1.CommandReply) => void;
type PresenceListener = (change: PresenceChange) => void;

/** What every kind of bus does with the messages it gets. */
export class BusEvents {
  readonly #log: Logger;
  readonly #replyListeners = new Set<ReplyListener>();
  readonly #presenceListeners = new Set<PresenceListener>();
  #uplink: ((message: UplinkMessage) => void) | undefined;

  constructor(log: Logger) {
    this.#log = log;
  }

  setUplinkHandler(handler: (message: UplinkMessage) => void): void {
    this.#uplink = handler;
  }

  onReply(listener: ReplyListener): Unsubscribe {
    this.#replyListeners.add(listener);
    return () => this.#replyListeners.delete(listener);
  }

  onPresence(listener: PresenceListener): Unsubscribe {
    this.#presenceListeners.add(listener);
    return () => this.#presenceListeners.delete(listener);
  }

  notifyPresence(change: PresenceChange): void {
    for (const listener of this.#presenceListeners) this.guard(() => listener(change));
  }

  /** Passes a message on to whoever takes its channel. Never throws. */
  dispatch(topic: string, payload: Uint8Array): void {
    const parsed = parseTopic(topic);
    if (!parsed || parsed.direction === 'down') return;
    const { device } = parsed;
    this.guard(() => {
      if (parsed.direction === 'presence') this.#uplink?.({ device, channel: 'presence', payload });
      else if (parsed.channel !== 'reply') this.#uplink?.({ device, channel: parsed.channel, payload });
      else {
        const reply = decodeWire(outrider.v1.CommandReply, payload, 'command reply');
        for (const listener of this.#replyListeners) listener(device, reply);
      }
    });
  }

  /** Runs work that must not throw into a client library. */
  guard(work: () => void): void {
    try {
      work();
    } catch (error) {
      this.#log.warn({ err: error }, 'bus.message_refused');
    }
  }
}
