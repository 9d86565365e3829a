import { upgradeWebSocket } from '@hono/node-server';
import type { WebSocket } from 'ws';
import type { LiveSink, StreamEnd } from '../../dashboard/stream-hub.ts';
import type { ApiContext } from '../surface.ts';

/** RFC 6455 §7.4.1 and its private range: 1013 try again later, 1001 going away, 4401 as HTTP's 401. */
const CLOSE_CODES: Readonly<Record<StreamEnd, number>> = {
  slow: 1013,
  unauthenticated: 4401,
  shutdown: 1001,
  unresponsive: 1001,
};
/** How long a client may take to answer our close before its connection is cut. */
const CLOSE_GRACE_MS = 2_000;

/**
 * Answers an upgrade with a WebSocket that carries the stream. What the client sends is only looked at for WIA §8.5's
 * `{"type":"ping"}`.
 *
 * @param open Starts the stream on the sink and returns what ends it.
 */
export async function openWebSocketStream(
  c: ApiContext,
  nowIso: () => string,
  open: (sink: LiveSink) => () => void,
): Promise<Response> {
  let close: () => void = () => undefined;
  const response = await upgradeWebSocket(c, {
    onOpen(_event, socket) {
      const raw = socket.raw as unknown as WebSocket;
      let isAlive = true;
      raw.on('pong', () => {
        isAlive = true;
      });
      close = open({
        send: (_type, json) => raw.send(json),
        heartbeat: () => {
          isAlive = false;
          raw.ping();
        },
        waitingBytes: () => raw.bufferedAmount,
        isResponsive: () => isAlive,
        end: (reason) => {
          raw.close(CLOSE_CODES[reason], reason);
          setTimeout(() => raw.terminate(), CLOSE_GRACE_MS).unref();
        },
      });
    },
    onMessage(event, socket) {
      if (typeof event.data === 'string' && isPing(event.data))
        socket.send(JSON.stringify({ type: 'pong', timestamp: nowIso() }));
    },
    onClose: () => close(),
    onError: () => close(),
  });
  return response ?? c.body(null, 400);
}

function isPing(text: string): boolean {
  try {
    const message: unknown = JSON.parse(text);
    return typeof message === 'object' && message !== null && 'type' in message && message.type === 'ping';
  } catch {
    return false;
  }
}
