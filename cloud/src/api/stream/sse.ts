import type { LiveSink, StreamEnd } from '../../dashboard/stream-client.ts';
import type { OpenStream } from '../../dashboard/stream-hub.ts';
import type { ApiContext } from '../surface.ts';

/** How long a client that was dropped may still read the reason before its connection is cut. */
const LAST_WORDS_MS = 2_000;
const encoder = new TextEncoder();

/**
 * A response of server-sent events.
 *
 * No connection headers are set: `transfer-encoding`, which the usual helpers set, kills the process on HTTP/2
 * (honojs/hono#4041).
 *
 * @param open Starts the stream on the sink.
 */
export function openEventStream(c: ApiContext, open: (sink: LiveSink) => OpenStream): Response {
  let stream: OpenStream | undefined;
  const body = new ReadableStream<Uint8Array>(
    {
      start(controller) {
        let isOpen = true;
        const write = (bytes: Uint8Array): void => {
          if (isOpen) controller.enqueue(bytes);
        };
        stream = open({
          send: (frame) => write(frame.event),
          heartbeat: () => write(encoder.encode(': heartbeat\n\n')),
          waitingBytes: () => -(controller.desiredSize ?? 0) + bytesBehind(c),
          isResponsive: () => true,
          end: (reason: StreamEnd) => {
            write(encoder.encode(`event: end\ndata: ${JSON.stringify({ reason })}\n\n`));
            isOpen = false;
            controller.close();
            const { outgoing } = c.env as { outgoing?: { destroy(): void; writableFinished?: boolean } };
            setTimeout(() => {
              if (outgoing && outgoing.writableFinished !== true) outgoing.destroy();
            }, LAST_WORDS_MS).unref();
          },
        });
      },
      cancel: () => stream?.close(),
    },
    { highWaterMark: 0, size: (chunk) => chunk?.byteLength ?? 0 },
  );
  c.header('Content-Type', 'text/event-stream; charset=utf-8');
  c.header('Cache-Control', 'no-store');
  // Proxies that buffer would turn a live stream into a late one.
  c.header('X-Accel-Buffering', 'no');
  return c.body(body);
}

/** Bytes that the socket has taken from us and not sent. */
function bytesBehind(c: ApiContext): number {
  const { outgoing } = c.env as { outgoing?: { writableLength?: number } };
  return outgoing?.writableLength ?? 0;
}
