import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import t from 'tap';
import { cobsDecode, cobsEncode, cobsOverheadMax } from './cobs.ts';
import { crc32 } from './crc.ts';
import { DELIMITER, ENCODED_BYTES_MAX, encodeFrame, type Frame, PAYLOAD_BYTES_MAX } from './frame.ts';
import { decodeMessage } from './messages.ts';
import { FrameParser } from './parser.ts';

/** Captured lines of other devices; read when the tests run, not part of this repository. */
const CAPTURES = join(import.meta.dirname, '..', '..', '..', '..', 'shared', 'data', 'serial');

const someFrame = fc.record({
  type: fc.integer({ min: 0, max: 255 }),
  sequence: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
  payload: fc.uint8Array({ maxLength: 700 }),
});

function parse(...pieces: readonly Uint8Array[]): { frames: Frame[]; parser: FrameParser } {
  const frames: Frame[] = [];
  const parser = new FrameParser((frame) => frames.push(frame));
  for (const piece of pieces) parser.push(piece);
  return { frames, parser };
}

const plain = (frame: Frame): unknown => ({ ...frame, payload: Buffer.from(frame.payload).toString('hex') });
const join2 = (...parts: readonly Uint8Array[]): Uint8Array => Uint8Array.from(Buffer.concat(parts));
const key = (frame: Frame): string => JSON.stringify(plain(frame));

/** Cuts bytes at the given places. */
function cut(bytes: Uint8Array, places: readonly number[]): Uint8Array[] {
  const at = [...new Set(places.map((place) => place % (bytes.length + 1)))].sort((a, b) => a - b);
  return [...at, bytes.length].map((end, i) => bytes.subarray(i === 0 ? 0 : at[i - 1], end));
}

t.test('CRC-32 has the check value of the standard', async (t) => {
  t.equal(crc32(Buffer.from('123456789')), 0xcbf43926);
});

t.test('COBS gives back every byte string, without a zero and within its overhead', async () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 1200 }), (bytes) => {
      const encoded = cobsEncode(bytes);
      return (
        !encoded.includes(0) &&
        encoded.length <= bytes.length + cobsOverheadMax(bytes.length) &&
        Buffer.compare(cobsDecode(encoded) ?? new Uint8Array(), bytes) === 0
      );
    }),
  );
});

t.test('COBS refuses what is none instead of guessing', async (t) => {
  t.equal(cobsDecode(Uint8Array.of(5, 1, 2)), undefined, 'a group past the end');
  t.equal(cobsDecode(Uint8Array.of(3, 0, 2)), undefined, 'a zero inside');
  t.equal(cobsDecode(new Uint8Array()), undefined, 'nothing');
});

t.test('frames come back whole and in order, however the line cuts them', async () => {
  fc.assert(
    fc.property(
      fc.array(someFrame, { minLength: 1, maxLength: 8 }),
      fc.array(fc.nat({ max: 8000 }), { maxLength: 20 }),
      (sent, places) => {
        const { frames, parser } = parse(...cut(join2(...sent.map(encodeFrame)), places));
        const isWhole = parser.stats.framesOk === sent.length && parser.stats.crcBad === 0;
        return isWhole && frames.map(key).join() === sent.map(key).join();
      },
    ),
  );
});

t.test('after any garbage and one delimiter the next frame is found', async () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 6000 }),
      someFrame,
      fc.array(fc.nat({ max: 8000 })),
      (garbage, sent, places) => {
        const { frames } = parse(...cut(join2(garbage, Uint8Array.of(DELIMITER), encodeFrame(sent)), places));
        return frames.length >= 1 && key(frames.at(-1) as Frame) === key(sent);
      },
    ),
  );
});

t.test('torn, flipped, merged and doubled frames never become a frame that nobody sent', async (t) => {
  let damaged = 0;
  fc.assert(
    fc.property(
      fc.array(someFrame, { minLength: 2, maxLength: 6 }),
      fc.array(fc.tuple(fc.nat(), fc.constantFrom('flip', 'drop', 'double', 'zero', 'cut')), {
        minLength: 1,
        maxLength: 6,
      }),
      (sent, wounds) => {
        const bytes = [...join2(...sent.map(encodeFrame))];
        for (const [place, wound] of wounds) {
          const at = place % bytes.length;
          if (wound === 'flip') bytes[at] = (bytes[at] ?? 0) ^ (1 << (place % 8));
          else if (wound === 'drop') bytes.splice(at, 1);
          else if (wound === 'double') bytes.splice(at, 0, ...bytes.slice(at, at + 40));
          else if (wound === 'zero') bytes[at] = 0;
          else bytes.splice(at, 30);
        }
        const { frames, parser } = parse(Uint8Array.from(bytes));
        damaged += parser.stats.crcBad + parser.stats.cobsBad + parser.stats.lengthBad;
        const known = new Set(sent.map(key));
        return frames.every((frame) => known.has(key(frame)));
      },
    ),
    { numRuns: 400 },
  );
  t.ok(damaged > 100, `${damaged} damaged frames were refused`);
});

t.test('a line without delimiters is bounded, counted once, and ends with the next delimiter', async (t) => {
  const sent = { type: 3, sequence: 1, payload: Uint8Array.of(1, 0, 0, 0) };
  const endless = new Uint8Array(10 * ENCODED_BYTES_MAX).fill(7);
  const { frames, parser } = parse(endless, endless, Uint8Array.of(DELIMITER), encodeFrame(sent));
  t.equal(parser.stats.oversize, 1);
  t.strictSame(frames.map(key), [key(sent)]);
});

t.test('a payload that is too long is refused before it reaches the line', async (t) => {
  const payload = new Uint8Array(PAYLOAD_BYTES_MAX + 1);
  t.throws(() => encodeFrame({ type: 1, sequence: 0, payload }), { message: /at most 2048 bytes/ });
});

t.test('random payloads of every type are decoded or named as wrong, never thrown', async (t) => {
  const kinds = new Set<string>();
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 255 }), fc.uint8Array({ maxLength: 120 }), (type, payload) => {
      kinds.add(decodeMessage({ type, sequence: 0, payload }).kind);
    }),
    { numRuns: 3000 },
  );
  t.ok(kinds.has('malformed') && kinds.has('unknown_type'), [...kinds].join());
});

t.test(
  'between the bytes of other devices our frames are found and no others',
  { skip: existsSync(CAPTURES) ? false : `${CAPTURES} is missing` },
  async (t) => {
    for (const file of readdirSync(CAPTURES)) {
      const noise = readFileSync(join(CAPTURES, file));
      const sent: Frame[] = [];
      const parts: Uint8Array[] = [];
      for (let at = 0, i = 0; at < noise.length; at += 997, i += 1) {
        const frame = { type: 0x90, sequence: i, payload: noise.subarray(at, at + 64) };
        sent.push(frame);
        parts.push(noise.subarray(at, at + 997), Uint8Array.of(DELIMITER), encodeFrame(frame));
      }
      const { frames, parser } = parse(...cut(join2(...parts), [1, 4096, 8192, 12_345, 20_000]));
      t.strictSame(frames.map(key), sent.map(key), `${file}: ${sent.length} frames in ${noise.length} bytes of noise`);
      t.equal(parser.stats.lost, 0);
      t.ok(parser.stats.cobsBad + parser.stats.crcBad + parser.stats.lengthBad > 0, `${file} was refused`);
    }
  },
);
