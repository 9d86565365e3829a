import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import t from 'tap';
import { encodeFrame, type Frame } from '../src/frame.ts';
import {
  decodeMessage,
  encodeMessage,
  FAULT_KINDS,
  MCU_STATES,
  MESSAGE_KINDS,
  NACK_REASONS,
  STOP_REASONS,
  TELEMETRY_STREAMS,
  typeNumberOf,
} from '../src/messages.ts';
import { FrameParser } from '../src/parser.ts';
import {
  bytesOfHex,
  type DialogueVector,
  dialogueLines,
  FIRMWARE,
  readHex,
  readVector,
  type StreamVector,
  toJson,
  vectorNames,
  WORKSPACE,
} from './vector-files.ts';

const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

function describeFrame(frame: Frame): unknown {
  const outcome = decodeMessage(frame);
  return outcome.kind === 'message' ? toJson(outcome.message) : outcome.kind;
}

t.test('every recorded stream decodes to what stands beside it, in one piece and byte by byte', async (t) => {
  const names = vectorNames().filter((name) => !name.startsWith('dialogue-'));
  t.ok(names.length >= 40, `${names.length} vectors`);
  for (const name of names) {
    const vector = readVector<StreamVector>(name);
    const bytes = bytesOfHex(readHex(name));
    for (const size of [bytes.length, 1, 7]) {
      const frames: Frame[] = [];
      const parser = new FrameParser((frame) => frames.push(frame));
      for (let at = 0; at < bytes.length; at += size) parser.push(bytes.subarray(at, at + size));
      const { stats } = parser;
      t.strictSame(
        {
          frames_ok: stats.framesOk,
          crc_bad: stats.crcBad,
          cobs_bad: stats.cobsBad,
          oversize: stats.oversize,
          length_bad: stats.lengthBad,
          other_version: stats.otherVersion,
          lost: stats.lost,
        },
        vector.stats,
        `${name} in pieces of ${size}`,
      );
      const described = frames.map((frame) => ({
        type: frame.type,
        sequence: frame.sequence,
        payload: hexOf(frame.payload),
        message: describeFrame(frame),
      }));
      t.strictSame(described, vector.frames, name);
      if (vector.canonical)
        t.equal(hexOf(Buffer.concat(frames.map(encodeFrame))), hexOf(bytes), `${name} encoded again`);
    }
  }
});

t.test('every message kind has a vector, and encodes to its payload', async (t) => {
  const seen = new Set<string>();
  for (const name of vectorNames().filter((name) => name.startsWith('message-'))) {
    const [frame] = readVector<StreamVector>(name).frames;
    const payload = Uint8Array.from(Buffer.from(frame?.payload ?? '', 'hex'));
    const outcome = decodeMessage({ type: frame?.type ?? 0, sequence: 0, payload });
    const message = outcome.kind === 'message' ? outcome.message : undefined;
    t.ok(message, `${name} is a message`);
    if (message === undefined) continue;
    seen.add(message.kind);
    t.equal(hexOf(encodeMessage(message).payload), frame?.payload, name);
  }
  t.strictSame(
    MESSAGE_KINDS.filter((kind) => !seen.has(kind)),
    [],
  );
});

t.test('what the C core answered in the recorded dialogues is understood', async (t) => {
  for (const name of vectorNames().filter((name) => name.startsWith('dialogue-'))) {
    const vector = readVector<DialogueVector>(name);
    const messages: unknown[] = [];
    const sides = { host: [] as Frame[], mcu: [] as Frame[] };
    const parsers = {
      host: new FrameParser((frame) => sides.host.push(frame)),
      mcu: new FrameParser((frame) => sides.mcu.push(frame)),
    };
    for (const { atUs, from, bytes } of dialogueLines(readHex(name))) {
      parsers[from].push(bytes);
      for (const frame of sides[from].splice(0)) messages.push({ at_us: atUs, from, message: describeFrame(frame) });
    }
    t.ok(isDeepStrictEqual(messages, vector.messages), `${name}: ${messages.length} messages`);
    t.equal(parsers.mcu.stats.lost, 0, `${name} lost nothing`);
  }
});

t.test('PROTOCOL.md has every rule that code cites, every message, every list, and a true example', async (t) => {
  const page = readFileSync(join(WORKSPACE, 'PROTOCOL.md'), 'utf8');
  const sources = ['src', 'firmware/core', 'firmware/host'].flatMap((folder) =>
    readdirSync(join(WORKSPACE, folder)).map((file) => readFileSync(join(WORKSPACE, folder, file), 'utf8')),
  );
  const cited = new Set(sources.join().match(/\[FB-\d+\]/g));
  t.ok(cited.size > 15, `${cited.size} rules are cited`);
  for (const rule of cited) t.ok(page.includes(`**${rule}**`), `${rule} is written`);
  for (const kind of MESSAGE_KINDS) {
    const type = `0x${typeNumberOf(kind).toString(16).padStart(2, '0')}`;
    t.ok(page.includes(`| ${type} | ${kind} |`), `${type} ${kind}`);
  }
  const words = page.replace(/\s+/g, ' ');
  for (const list of [MCU_STATES, STOP_REASONS, NACK_REASONS, FAULT_KINDS, TELEMETRY_STREAMS]) {
    for (const [number, name] of list.entries()) t.ok(words.includes(`${number} ${name}`), `${number} ${name}`);
  }
  const example = /```\n([0-9a-f ]+)\n```/.exec(page)?.[1] ?? '';
  const frames: Frame[] = [];
  new FrameParser((frame) => frames.push(frame)).push(bytesOfHex(example));
  t.match(frames.map(describeFrame), [{ kind: 'stop', commandId: 1 }]);
  t.equal(frames[0]?.sequence, 1003);
});

t.test('the C core passes its own tests and the same vectors under sanitizers', async (t) => {
  const output = execFileSync('make', ['-s', '-C', FIRMWARE, 'test'], { encoding: 'utf8' });
  t.match(output, /ok no_sequence_of_frames_moves_without_lease_gate_and_arm/);
  t.match(output, new RegExp(`ok ${vectorNames().length} vectors`));
});
