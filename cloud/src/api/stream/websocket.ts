import { upgradeWebSocket } from '@hono/node-server';
import type { WebSocket } from 'ws';
import type { LiveSink, StreamEnd } from '../../dashboard/stream-client.ts';
import type { OpenStream } from '../../dashboard/stream-hub.ts';
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
 * Answers an upgrade with a WebSocket that carries the stream. Of what the client sends, WIA §8.5's `{"type":"ping"}`
 * is answered here; `{"type":"subscribe"}` is passed on; the rest is ignored.
 *
 * @param open Starts the stream on the sink.
 * @param onSubscribe Changes the stream as the message says. Must not throw.
 */
export async function openWebSocketStream(
  c: ApiContext,
  nowIso: () => string,
  open: (sink: LiveSink) => OpenStream,
  onSubscribe: (message: unknown, stream: OpenStream) => void,
): Promise<Response> {
  let stream: OpenStream | undefined;
  const response = await upgradeWebSocket(c, {
    onOpen(_event, socket) {
      const raw = socket.raw as unknown as WebSocket;
      let isAlive = true;
      raw.on('pong', () => {
        isAlive = true;
      });
      stream = open({
        send: (frame) => raw.send(frame.bytes, { binary: false }),
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
      const message = typeof event.data === 'string' ? readMessage(event.data) : undefined;
      if (message?.type === 'ping') socket.send(JSON.stringify({ type: 'pong', timestamp: nowIso() }));
      else if (message?.type === 'subscribe' && stream) onSubscribe(message, stream);
    },
    onClose: () => stream?.close(),
    onError: () => stream?.close(),
  });
  return response ?? c.body(null, 400);
}

function readMessage(text: string): { readonly type: unknown } | undefined {
  try {
    const message: unknown = JSON.parse(text);
    return typeof message === 'object' && message !== null && 'type' in message ? message : undefined;
  } catch {
    return undefined;
  }
}
