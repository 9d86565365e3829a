import { createServer } from 'node:net';
import { setPriority } from 'node:os';
import { setImmediate as yieldOnce } from 'node:timers/promises';
import { systemClock } from '@outrider/shared/time';
import { connectAsync } from 'mqtt';
import { Random } from './random.ts';
import { noiseLayout, noiseSample, openOutbox } from './sim-edge.ts';

// Bytes of a pty pass through a kernel worker of ordinary priority. The load takes every cycle that is left, and leaves
// that one first; otherwise it is the kernel's queue that is measured.
setPriority(10);

const [kind = 'cpu', secondsMax = '1', dir = '.'] = process.argv.slice(2);
const endMs = systemClock.monotonicMs() + 1000 * Number(secondsMax);
const isOver = (): boolean => systemClock.monotonicMs() > endMs || process.stdin.destroyed;
// Whoever started this is gone when its end of the pipe is.
process.stdin.resume().on('end', () => process.exit(0));

if (kind === 'cpu') {
  while (!isOver()) {
    const until = systemClock.monotonicMs() + 50;
    while (systemClock.monotonicMs() < until);
    await yieldOnce();
  }
} else if (kind === 'sqlite') await writeForEver();
else await sendForEver();
process.exit(0);

/** Commits of a hundred samples, each with its fsync, as fast as they go. */
async function writeForEver(): Promise<void> {
  const outbox = openOutbox(dir, systemClock, 64 * 1024 * 1024);
  const random = new Random(1);
  for (let n = 0; !isOver(); n += 1) {
    outbox.appendSample(noiseSample(noiseLayout('load', 30), n, random));
    if (n % 100 !== 99) continue;
    outbox.flush();
    await yieldOnce();
  }
  outbox.close();
}

/** Batches of 64 kB to a listener that answers each with its acknowledgement, as fast as they go. */
async function sendForEver(): Promise<void> {
  const server = createServer((socket) => {
    let left: Buffer = Buffer.alloc(0);
    socket.on('error', () => socket.destroy());
    socket.on('data', (chunk: Buffer) => {
      left = Buffer.concat([left, chunk]);
      left = answerPackets(left, (reply) => socket.write(reply));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', () => resolve()));
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  const client = await connectAsync(`mqtt://127.0.0.1:${port}`, { protocolVersion: 4 });
  const payload = new Random(2).bytes(64 * 1024);
  while (!isOver()) await client.publishAsync('load', payload, { qos: 1 });
}

/** Just enough of a broker: CONNACK and PUBACK. @returns The bytes of a packet that is not whole yet. */
function answerPackets(bytes: Buffer, reply: (packet: Buffer) => void): Buffer {
  let at = 0;
  for (;;) {
    let length = 0;
    let digits = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[at + 1 + digits];
      if (byte === undefined) return bytes.subarray(at);
      digits += 1;
      length |= (byte & 127) << shift;
      if (byte < 128) break;
    }
    const body = at + 1 + digits;
    if (bytes.length < body + length) return bytes.subarray(at);
    const type = (bytes[at] as number) >> 4;
    if (type === 1) reply(Buffer.of(0x20, 2, 0, 0));
    if (type === 3) {
      const id = body + 2 + bytes.readUInt16BE(body);
      reply(Buffer.of(0x40, 2, bytes[id] as number, bytes[id + 1] as number));
    }
    at = body + length;
  }
}
