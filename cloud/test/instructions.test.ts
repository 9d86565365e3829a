import { verify } from 'node:crypto';
import { createLogger } from '@outrider/shared/log';
import { outrider } from '@outrider/shared/messages';
import { instructionBytes, isKeyListSigned, publicKeyOf } from '@outrider/shared/protocol/instruction';
import { systemClock } from '@outrider/shared/time';
import t from 'tap';
import { InstructionKeys } from '../src/failsafe/instruction-keys.ts';
import { PgInstructionStore } from '../src/storage/instruction-store.ts';
import { openSecretBox } from '../src/storage/secret-box.ts';
import { until } from '../src/testing/engines.ts';
import { describeRobot, type SentInstruction, startHarness } from './api-harness.ts';

const harness = await startHarness({ answerTimeoutMs: 300, recoverTimeoutMs: 300 });
const { call, bus, database } = harness;
const token = await harness.token('default');
const log = createLogger('test', 'silent');
t.teardown(() => harness.close());
for (const robotId of ['RB-1', 'RB-2', 'RB-3', 'RB-4', 'RB-5'])
  await call('POST', '/v1/robots', { token, body: describeRobot(robotId) });

/** What the robot says of its failsafe, as it is stored. */
async function report(robotId: string, motionEpoch: number, atMs = Date.now()): Promise<void> {
  await database.query(
    `insert into robot_shadow (robot_pk, key, at, ingested_at, value)
     select robot_pk, 'failsafe', to_timestamp($2::float8 / 1000), now(), $3::jsonb from robot where robot_id = $1
     on conflict (robot_pk, key) do update set value = excluded.value, at = excluded.at`,
    [robotId, atMs, JSON.stringify({ phase: 'LATCHED', latch_id: 7, motion_epoch: motionEpoch })],
  );
}
const recover = (robotId: string, body: unknown = { latch_id: 7 }, headers: Record<string, string> = {}) =>
  call('POST', `/api/v1/robots/${robotId}/failsafe/recover`, { token, body, headers });
const trigger = (robotId: string) =>
  call('POST', `/api/v1/robots/${robotId}/failsafe/trigger`, { token, body: { mode: 'emergency_stop' } });
const device = (robotId: string) => ({ tenantId: 'default', robotId });

/** The list of keys that a robot of this installation holds. */
function readList(list: outrider.v1.SignedKeyList): { serial: number; keys: Map<string, Uint8Array> } {
  const read = outrider.v1.InstructionKeyList.decode(list.payload);
  return {
    serial: read.serial,
    keys: new Map(read.keys.map((key) => [key.keyId ?? '', key.publicKey ?? new Uint8Array()])),
  };
}
function isSigned({ signed }: SentInstruction, list: outrider.v1.SignedKeyList): boolean {
  const key = publicKeyOf(readList(list).keys.get(signed.keyId) ?? new Uint8Array());
  return key !== undefined && verify(null, instructionBytes(signed.payload), key, signed.signature);
}

t.test('a recovery goes out signed, numbered and bound, and is answered by the robot', async (t) => {
  bus.online.add('default.RB-1');
  t.match(await recover('RB-1'), { status: 409, json: { error: { message: /not reported its failsafe/ } } });
  await report('RB-1', 4);
  bus.answer = ({ motionEpoch }) => ({
    done: true,
    outcome: 'done',
    latchId: 7,
    motionEpoch: (motionEpoch ?? 0) + 1,
    atMs: Date.now(),
    detail: 'armed',
  });
  const body = { latch_id: 7, nonce: 'abc', reason: 'cell is clear', confirmed: ['area_clear'] };
  const done = await recover('RB-1', body, { 'x-request-id': 'why-2' });
  t.match(done, { status: 200, json: { robot_id: 'RB-1', recovered: true, latch_id: 7, motion_epoch: 5 } });
  const sent = bus.sent.at(-1)?.trigger;
  t.match(sent, {
    ...device('RB-1'),
    verb: 'recover',
    motionEpoch: 4,
    ttlMs: 5000,
    traceId: 'why-2',
    recover: { latchId: 7, nonce: 'abc', confirmed: ['area_clear'] },
  });
  const [list] = bus.lists;
  if (!sent || !list) throw new Error('nothing was sent');
  t.ok(isKeyListSigned(list, harness.caPem), 'the key list is the authority’s');
  t.ok(isSigned(sent, list), 'the instruction is signed by a key of the list');
  await recover('RB-1');
  t.equal(bus.sent.at(-1)?.trigger.motionEpoch, 5, 'the answer is newer than what was stored');
  t.ok((bus.sent.at(-1)?.trigger.counter ?? 0) > sent.counter, 'the number rises');
  t.equal(bus.lists.length, 1, 'the list is sent once a connection');
  bus.appear(device('RB-1'));
  await recover('RB-1');
  t.equal(bus.lists.length, 2, 'and again on the next');
  await harness.api.core.instructionKeys.rotate();
  await recover('RB-1');
  const [rotated, latest] = [bus.lists.at(-1), bus.sent.at(-1)?.trigger];
  t.equal(bus.lists.length, 3, 'a new key is announced before it is used');
  t.ok(rotated && latest && isSigned(latest, rotated) && !isSigned(latest, list), 'and used');
  const audit = await database.query<{ outcome: string; details: object; duration_ms: number }>(
    `select outcome, details, duration_ms from audit_entry where action = 'failsafe.recover' and request_id = 'why-2'`,
  );
  t.match(audit, [{ outcome: 'done', details: { latch_id: 7, confirmed: ['area_clear'] }, duration_ms: Number }]);
});

t.test('a recovery that the robot refuses says why; one that cannot reach it is not kept', async (t) => {
  await report('RB-2', 0);
  const before = bus.sent.length;
  t.match(await recover('RB-2'), { status: 503, json: { error: { code: 'UNAVAILABLE', message: /never kept/ } } });
  bus.appear(device('RB-2'));
  t.equal(bus.sent.length, before, 'nothing is delivered when it appears');
  bus.answer = () => undefined;
  t.match(await recover('RB-2'), { status: 504, json: { error: { code: 'DEADLINE_EXCEEDED' } } });
  const refusals: [outrider.v1.CommandReply.$Properties, number, string, RegExp, object[]?][] = [
    [
      {
        outcome: 'unmet',
        detail: 'conditions are not met',
        unmet: [
          'thermal_shutdown: 96 °C at knee_l',
          'the joints do not stand still',
          'the microcontroller does not confirm the stop: SILENT',
          'source_stale (mcu/joint_state): not clear: silent for 150 ms',
          'something else',
        ],
      },
      409,
      'FAILED_PRECONDITION',
      /conditions are not met/,
      [
        { field: 'thermal_shutdown', reason: '96 °C at knee_l' },
        { field: 'standstill' },
        { field: 'mcu' },
        { field: 'source_stale', reason: 'mcu/joint_state: not clear: silent for 150 ms' },
        { field: 'recovery', reason: 'something else' },
      ],
    ],
    [
      { outcome: 'conflict', detail: 'latch 6 is not the present one, 7' },
      409,
      'FAILED_PRECONDITION',
      /present one, 7/,
    ],
    [{ outcome: 'expired', detail: 'too late' }, 409, 'FAILED_PRECONDITION', /too late/],
    [{ outcome: 'unknown', detail: 'cut short' }, 503, 'UNAVAILABLE', /cut short/],
  ];
  for (const [reply, status, code, message, details] of refusals) {
    bus.answer = () => ({ done: false, ...reply });
    const answer = await recover('RB-2');
    t.match(answer, { status, json: { error: { code, message } } });
    if (details) t.match(answer.json, { error: { details } });
  }
  for (const [body, field] of [
    [{}, 'latch_id'],
    [{ latch_id: '7' }, 'latch_id'],
    [{ latch_id: -1 }, 'latch_id'],
    [{ latch_id: 7, force: true }, 'force'],
    [{ latch_id: 7, confirmed: 'area_clear' }, 'confirmed'],
  ] as const)
    t.match(await recover('RB-2', body), { status: 400, json: { error: { details: [{ field }] } } });
  const reader = await harness.token('default', ['telemetry:read']);
  const forbidden = await call('POST', '/api/v1/robots/RB-2/failsafe/recover', {
    token: reader,
    body: { latch_id: 7 },
  });
  t.equal(forbidden.status, 403);
});

t.test('a database that was restored from an older copy catches up with the robot', async (t) => {
  bus.online.add('default.RB-3');
  await report('RB-3', 0);
  bus.answer = ({ counter }) =>
    counter <= 5000
      ? { done: false, outcome: 'stale', counterSeen: 5000, detail: 'old' }
      : { done: true, outcome: 'done', latchId: 7 };
  t.match(await recover('RB-3'), { status: 200 });
  t.equal(bus.sent.at(-1)?.trigger.counter, 5001);
});

t.test(
  'a stop carries a number when one is at hand, and is sent anew to a robot that did not believe it',
  async (t) => {
    const counters: number[] = [];
    bus.answer = ({ counter }) => {
      counters.push(counter);
      return { done: true, outcome: 'done', latchId: 7 };
    };
    bus.appear(device('RB-4'));
    const store = new PgInstructionStore(database);
    await until(async () => (await store.nextCounter(device('RB-4'), 0)) > 1, 'a number to be reserved');
    for (let n = 0; n < 4; n += 1) t.match(await trigger('RB-4'), { status: 200 });
    t.equal(counters.length, 4);
    t.ok((counters[0] ?? 0) > 0, 'the first stop after it appeared has one');
    const given = counters.filter((counter) => counter > 0);
    t.equal(new Set(given).size, given.length, 'and none has another’s');

    let asked = 0;
    const lists = bus.lists.length;
    bus.answer = () => {
      asked += 1;
      return asked === 1
        ? { done: false, outcome: 'unauthentic', detail: 'key is not known' }
        : { done: true, outcome: 'done', latchId: 8 };
    };
    const first = trigger('RB-4');
    await until(() => asked === 1, 'the first try');
    t.match(await first, { status: 504 }, 'not believed is not stopped');
    bus.appear(device('RB-4'));
    await until(() => asked === 2, 'the second try');
    t.ok(bus.lists.length > lists, 'with the list of keys before it');
    t.equal(harness.api.core.failsafe.pendingCount, 0);
  },
);

t.test('a kept stop goes with its robot', async (t) => {
  t.equal((await trigger('RB-5')).status, 503);
  const { failsafe } = harness.api.core;
  t.equal(failsafe.pendingCount, 1);
  await failsafe.forgetDeregistered();
  t.equal(failsafe.pendingCount, 1, 'kept while the robot is there');
  await database.query(`update robot set deregistered_at = now() where robot_id = 'RB-5'`);
  await call('POST', '/v1/robots', { token, body: describeRobot('RB-5') });
  await failsafe.forgetDeregistered();
  t.equal(failsafe.pendingCount, 0, 'another robot of its name is not meant');
  const sent = bus.sent.length;
  bus.appear(device('RB-5'));
  t.equal(bus.sent.length, sent);
  await until(async () => {
    const rows = await database.query(`select 1 from audit_entry where outcome = 'dropped'`);
    return rows.length === 1;
  }, 'the line in the audit trail');
});

t.test('replicas agree on the key, and never give a number twice', async (t) => {
  const store = new PgInstructionStore(database);
  const secrets = await openSecretBox('another key of at least thirty-two characters', 'memory://');
  const authority = { signStatement: async () => new Uint8Array(64) };
  await database.query('delete from instruction_key');
  const replicas = [1, 2, 3].map(() => new InstructionKeys({ store, secrets, authority, clock: systemClock, log }));
  await Promise.all(replicas.map((replica) => replica.open()));
  t.equal(new Set(replicas.map((replica) => replica.signer.keyId)).size, 1, 'one key was made');
  const [one, two] = replicas;
  if (!one || !two) throw new Error('no replicas');
  const before = one.signer.keyId;
  const next = await one.rotate();
  t.not(next, before);
  t.equal(two.signer.keyId, before);
  await two.open();
  t.equal(two.signer.keyId, next, 'the others see it');
  t.ok(two.list.serial >= Date.now() - 60_000, 'lists are ordered by time, also after a restore');
  const accepted = readList(outrider.v1.SignedKeyList.decode(two.list.bytes));
  t.same([...accepted.keys.keys()], [next, before], 'what is on its way under the old key is still good');
  await one.rotate();
  t.notOk(readList(outrider.v1.SignedKeyList.decode(one.list.bytes)).keys.has(before), 'and after two it is not');
  const [row] = await database.query<{ private_key_pem: string }>('select private_key_pem from instruction_key');
  t.notMatch(row?.private_key_pem, /PRIVATE/, 'the key is not readable in the database');

  const numbers = await Promise.all(Array.from({ length: 200 }, () => store.nextCounter(device('RB-1'), 0)));
  t.equal(new Set(numbers).size, 200);
});
