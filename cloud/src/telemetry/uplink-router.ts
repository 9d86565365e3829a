import { deviceName } from '@outrider/shared/ids';
import type { Logger } from '@outrider/shared/log';
import type { UplinkBus, UplinkMessage } from '../broker/bus.ts';
import { answerHello, type HelloOptions } from './hello.ts';
import type { Inbox } from './inbox.ts';
import type { PresenceKeeper } from './presence.ts';

/** Hellos and presence reports that may be in work at once. More are dropped: edges repeat them. */
const PENDING_MAX = 1000;

export interface UplinkRouterOptions {
  readonly bus: UplinkBus;
  readonly inbox: Inbox;
  readonly presence: PresenceKeeper;
  readonly hello: HelloOptions;
  readonly log: Logger;
}

/** Takes what the robots send to where it belongs. */
export function routeUplink(options: UplinkRouterOptions): void {
  const { bus, hello, inbox, log, presence } = options;
  let pending = 0;
  /** Presence of each robot, in the order it came. */
  const chains = new Map<string, Promise<void>>();
  const start = (work: () => Promise<void>, what: string): Promise<void> | undefined => {
    if (pending >= PENDING_MAX) return undefined;
    pending += 1;
    return work()
      .catch((error: unknown) => log.warn({ err: error, what }, 'uplink.message_failed'))
      .finally(() => {
        pending -= 1;
      });
  };
  const takePresence = async (message: UplinkMessage): Promise<void> => {
    const report = await presence.report(message.device, message.payload);
    if (report) bus.notifyPresence({ device: message.device, report });
  };
  bus.setUplinkHandler((message) => {
    const { channel, device, payload } = message;
    if (channel === 'hello') void start(() => answerHello(hello, device, payload), channel);
    else if (channel === 'presence') {
      const name = deviceName(device);
      const before = chains.get(name);
      const after = start(async () => {
        await before;
        await takePresence(message);
      }, channel);
      if (!after) return;
      chains.set(name, after);
      void after.finally(() => chains.get(name) === after && chains.delete(name));
    } else inbox.receive(device, channel, payload);
  });
}
