import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import t from 'tap';
import { DomainError } from '../errors.ts';
import { bodyCrc, decodeWire, isEpoch } from './codec.ts';
import { outrider } from './messages.ts';
import { downFilter, downTopic, parseTopic, presenceTopic, upTopic } from './topics.ts';
import { PROTOCOL_VERSION } from './version.ts';

/** The wire of each version, by the hash of messages.proto without comments and blank space. */
const WIRE_OF_VERSION: Readonly<Record<number, string>> = {
  1: 'c216eaa35983d274',
};

t.test('the wire changes only together with its version', async (t) => {
  const source = readFileSync(new URL('../../../src/protocol/messages.proto', import.meta.url), 'utf8');
  const bare = source
    .replace(/\/\/.*$/gm, '')
    .replace(/\s+/g, ' ')
    .trim();
  const hash = createHash('sha256').update(bare).digest('hex').slice(0, 16);
  t.equal(
    hash,
    WIRE_OF_VERSION[PROTOCOL_VERSION],
    'messages.proto changed: raise PROTOCOL_VERSION, add its line to the history and this hash to the table',
  );
});

t.test('topics read back as what they were made of, and nothing else is a topic', async (t) => {
  const device = { tenantId: 'default', robotId: 'RB-1022' };
  t.same(parseTopic(upTopic(device, 'telemetry')), { device, direction: 'up', channel: 'telemetry' });
  t.same(parseTopic(downTopic(device, 'ack')), { device, direction: 'down', channel: 'ack' });
  t.same(parseTopic(presenceTopic(device)), { device, direction: 'presence' });
  t.equal(downFilter(device), 'outrider/v1/default.RB-1022/down/+');
  for (const bad of [
    '',
    'outrider/v1',
    'outrider/v2/default.RB-1022/up/telemetry',
    'outrider/v1/RB-1022/up/telemetry',
    'outrider/v1/default.RB-1022/up/nothing',
    'outrider/v1/default.RB-1022/up/telemetry/more',
    'outrider/v1/default.+/up/telemetry',
    'outrider/v1/default.a.b/up/telemetry',
    'outrider/v1/default.RB-1022/presence/x',
    '$SYS/broker',
  ])
    t.equal(parseTopic(bad), undefined, bad);
});

t.test('bytes that are no message are refused, not thrown through', async (t) => {
  t.throws(
    () => decodeWire(outrider.v1.UplinkBatch, Uint8Array.of(0xff, 0xff, 0xff), 'batch'),
    new DomainError('invalid', 'batch: not a valid protobuf message'),
  );
  t.throws(() => decodeWire(outrider.v1.Ack, new Uint8Array(1024 * 1024 + 1), 'ack'), { code: 'payload_too_large' });
  const nested = Buffer.alloc(2000, 0x0b); // group starts without end
  t.throws(() => decodeWire(outrider.v1.UplinkBatch, nested, 'batch'), { code: 'invalid' });
});

t.test('positions survive the wire up to 2^53', async (t) => {
  const seq = Number.MAX_SAFE_INTEGER;
  const back = outrider.v1.Ack.decode(outrider.v1.Ack.encode({ epoch: '0', lane: 3, upto: seq }).finish());
  t.equal(back.upto, seq);
});

t.test('record bodies are guarded by the usual CRC-32', async (t) => {
  t.equal(bodyCrc(Buffer.from('123456789')), 0xcbf43926, 'the check value of CRC-32/ISO-HDLC');
  t.ok(isEpoch('0123456789abcdef'));
  t.notOk(isEpoch('0123456789ABCDEF'));
});

t.test('counters are plain numbers, absent ones too', async (t) => {
  const { Ack } = outrider.v1;
  t.equal(Ack.decode(new Uint8Array()).upto, 0);
  t.equal(Ack.decode(Ack.encode({ upto: 2 ** 53 - 1 }).finish()).upto, 2 ** 53 - 1);
});
