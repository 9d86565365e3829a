/* Writes test/vectors. Run by `npm run vectors -w firmware-bridge`, after a change of the protocol; read the diff. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { cobsEncode } from '../src/cobs.ts';
import { crc32 } from '../src/crc.ts';
import { DELIMITER, ENCODED_BYTES_MAX, encodeFrame, type Frame, PAYLOAD_BYTES_MAX } from '../src/frame.ts';
import { decodeMessage, encodeMessage, type Message } from '../src/messages.ts';
import { FrameParser } from '../src/parser.ts';
import { type DialogueVector, dialogueLines, FIRMWARE, type StreamVector, toJson, VECTORS } from './vector-files.ts';
import { ALL_MESSAGES, DIALOGUES } from './vector-messages.ts';

const frameOf = (message: Message, sequence: number): Frame => ({ ...encodeMessage(message), sequence });
const lineOf = (message: Message, sequence = 0): Uint8Array => encodeFrame(frameOf(message, sequence));
const plainFrame = (type: number, payload: Uint8Array, sequence = 0): Uint8Array =>
  encodeFrame({ type, sequence, payload });

function concat(...parts: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(Buffer.concat(parts));
}

const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const describe = (message: Message | 'unknown_type' | 'malformed'): unknown =>
  typeof message === 'string' ? message : toJson(message);

function write(name: string, hex: string, vector: StreamVector | DialogueVector): void {
  writeFileSync(join(VECTORS, `${name}.hex`), hex);
  writeFileSync(join(VECTORS, `${name}.json`), `${JSON.stringify(vector, null, 1)}\n`);
}

function writeStream(name: string, description: string, bytes: Uint8Array, canonical: boolean): void {
  const frames: Frame[] = [];
  const parser = new FrameParser((frame) => frames.push(frame));
  parser.push(bytes);
  const { stats } = parser;
  const lines = hexOf(bytes).match(/.{1,64}/g) ?? [];
  write(name, `# ${description}\n${lines.join('\n')}\n`, {
    description,
    canonical,
    stats: {
      frames_ok: stats.framesOk,
      crc_bad: stats.crcBad,
      cobs_bad: stats.cobsBad,
      oversize: stats.oversize,
      length_bad: stats.lengthBad,
      other_version: stats.otherVersion,
      lost: stats.lost,
    },
    frames: frames.map((frame) => {
      const outcome = decodeMessage(frame);
      const message = describe(outcome.kind === 'message' ? outcome.message : outcome.kind);
      return { type: frame.type, sequence: frame.sequence, payload: hexOf(frame.payload), message };
    }),
  });
}

function withByte(bytes: Uint8Array, at: number, change: (byte: number) => number): Uint8Array {
  return bytes.map((byte, i) => (i === at ? change(byte) : byte));
}

/** A frame as another protocol version would write its start. */
function otherVersion(version: number): Uint8Array {
  const plain = new Uint8Array(30);
  plain.set([version, 0x81, 18, 0, 5, 0, 0, 0]);
  const view = new DataView(plain.buffer);
  view.setUint32(26, crc32(plain.subarray(0, 26)), true);
  return concat(cobsEncode(plain), Uint8Array.of(DELIMITER));
}

function writeStreams(): void {
  const stop = lineOf({ kind: 'stop', commandId: 9 }, 1);
  const echo = lineOf(
    { kind: 'heartbeat_echo', mcuUs: 5000, counter: 3, hostMonoUs: 4000, state: 'ARMED', fresh: true },
    2,
  );
  const counting = (length: number): Uint8Array => Uint8Array.from({ length }, (_, i) => (i % 255) + 1);
  const delimiter = Uint8Array.of(DELIMITER);
  writeStream('stream-two-frames', 'two frames on end', concat(stop, echo), true);
  writeStream(
    'stream-idle-delimiters',
    'empty frames between frames',
    concat(delimiter, stop, delimiter, delimiter, echo),
    false,
  );
  writeStream(
    'stream-starts-in-the-middle',
    'the tail of a frame, then a whole one',
    concat(stop.subarray(5), echo),
    false,
  );
  writeStream(
    'stream-torn',
    'a frame cut off by the next one, then a whole one',
    concat(stop.subarray(0, 9), delimiter, echo),
    false,
  );
  writeStream(
    'stream-merged',
    'a delimiter was lost, so that two frames become one',
    concat(stop.subarray(0, -1), echo, stop),
    false,
  );
  writeStream(
    'stream-bit-flip',
    'one bit of the payload is wrong',
    concat(
      withByte(stop, 10, (b) => b ^ 4),
      echo,
    ),
    false,
  );
  writeStream('stream-bad-cobs', 'a group that runs past the end', concat(Uint8Array.of(200, 1, 2, 0), echo), false);
  writeStream(
    'stream-garbage-between',
    'bytes of something else between frames',
    concat(stop, counting(300), delimiter, echo),
    false,
  );
  writeStream(
    'stream-oversize',
    'more bytes without delimiter than any frame has',
    concat(counting(ENCODED_BYTES_MAX + 500), delimiter, echo),
    false,
  );
  writeStream(
    'stream-just-not-oversize',
    'as many bytes as the largest frame, which are none',
    concat(counting(ENCODED_BYTES_MAX), delimiter, echo),
    false,
  );
  writeStream(
    'stream-sequence-hole',
    'frames 3 to 6 are missing, then the sender restarts',
    concat(
      lineOf({ kind: 'stop', commandId: 1 }, 2),
      lineOf({ kind: 'stop', commandId: 2 }, 7),
      lineOf({ kind: 'stop', commandId: 3 }, 0),
    ),
    true,
  );
  writeStream(
    'stream-sequence-wraps',
    'the sequence passes 2^32',
    concat(lineOf({ kind: 'stop', commandId: 1 }, 0xffffffff), lineOf({ kind: 'stop', commandId: 2 }, 0)),
    true,
  );
  writeStream(
    'stream-other-version',
    'a frame of protocol version 2, then one of ours',
    concat(otherVersion(2), echo),
    false,
  );
  writeStream(
    'stream-unknown-type',
    'a type that nobody knows',
    concat(plainFrame(0x7e, Uint8Array.of(1, 2, 3, 4)), echo),
    true,
  );
  writeStream(
    'stream-payload-too-short',
    'a HEARTBEAT of three bytes',
    concat(plainFrame(0x02, Uint8Array.of(1, 2, 3)), echo),
    true,
  );
  writeStream(
    'stream-payload-too-long',
    'a STOP with a byte too many',
    concat(plainFrame(0x03, Uint8Array.of(1, 0, 0, 0, 9)), echo),
    true,
  );
  writeStream(
    'stream-too-short-for-a-header',
    'COBS of five bytes',
    concat(cobsEncode(counting(5)), delimiter, echo),
    false,
  );
  const wrongLength = new Uint8Array(16);
  wrongLength.set([1, 3, 5, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
  new DataView(wrongLength.buffer).setUint32(12, crc32(wrongLength.subarray(0, 12)), true);
  writeStream(
    'stream-wrong-length',
    'the header says 5 bytes, 4 are there, the CRC is right',
    concat(cobsEncode(wrongLength), delimiter, echo),
    false,
  );
  for (const length of [0, 241, 242, 243, 496, 497]) {
    writeStream(
      `stream-cobs-${length}`,
      `a payload of ${length} bytes without zero, at a border of COBS groups`,
      plainFrame(0x7e, counting(length), 0x01010101),
      true,
    );
  }
  writeStream('stream-largest', 'the largest payload', plainFrame(0x7e, counting(PAYLOAD_BYTES_MAX), 0x01010101), true);
}

/** The host's lines come from here; the core, on its bench, answers them. */
function writeDialogues(): void {
  for (const { name, description, steps } of DIALOGUES) {
    let sequence = 0;
    const asked = steps.map((step) => {
      if ('estop' in step) return `@${step.atUs} ! estop ${step.estop}`;
      const line = lineOf(step.message, sequence);
      sequence += 1;
      return `@${step.atUs} > ${hexOf(line)}`;
    });
    const path = join(VECTORS, `dialogue-${name}.hex`);
    writeFileSync(path, `# ${description}\n${asked.join('\n')}\n`);
    const filled = execFileSync(join(FIRMWARE, 'build', 'test-vectors'), ['--fill', path], { encoding: 'utf8' });
    const messages = dialogueLines(filled).flatMap(({ atUs, from, bytes }) => {
      const heard: DialogueVector['messages'][number][] = [];
      new FrameParser((frame) => {
        const outcome = decodeMessage(frame);
        const message = describe(outcome.kind === 'message' ? outcome.message : outcome.kind);
        heard.push({ at_us: atUs, from, message });
      }).push(bytes);
      return heard;
    });
    write(`dialogue-${name}`, filled, { description, messages });
  }
}

rmSync(VECTORS, { recursive: true, force: true });
mkdirSync(VECTORS, { recursive: true });
for (const [i, message] of ALL_MESSAGES.entries()) {
  const name = `message-${String(i + 1).padStart(2, '0')}-${message.kind.replaceAll('_', '-')}`;
  writeStream(name, `one ${message.kind}`, lineOf(message, 1000 + i), true);
}
writeStreams();
writeDialogues();
