import '../enroll/signing-request.ts';
import { generateKeyPairSync, webcrypto } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { eventSchema } from '@outrider/shared/event-schemas';
import { createLogger } from '@outrider/shared/log';
import { outrider } from '@outrider/shared/messages';
import { keyListBytes, rawPublicKey, signInstruction } from '@outrider/shared/protocol/instruction';
import type { Clock, EpochMs, MonotonicMs } from '@outrider/shared/time';
import * as x509 from '@peculiar/x509';
import t from 'tap';
import type { OutboxEvent } from '../outbox/records.ts';
import { CommandDesk, type FailsafeTarget, type TargetOutcome } from './command-desk.ts';
import { CommandLog } from './command-log.ts';
import { TrustedKeys } from './trusted-keys.ts';

type Order = outrider.v1.Instruction.$Properties;
const EC = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const DEVICE = { tenantId: 'default', robotId: 'RB-1' } as const;
const log = createLogger('test', 'silent');

class StepClock implements Clock {
  nowMs = 1_000_000;
  wallOffsetMs = 1_790_000_000_000;
  epochMs = (): EpochMs => (this.wallOffsetMs + this.nowMs) as EpochMs;
  monotonicMs = (): MonotonicMs => this.nowMs as MonotonicMs;
}

async function authority() {
  const keys = await webcrypto.subtle.generateKey(EC, true, ['sign', 'verify']);
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    name: 'CN=authority',
    keys,
    signingAlgorithm: EC,
  });
  return {
    pem: certificate.toString('pem'),
    async list(serial: number, pairs: readonly ReturnType<typeof pair>[]): Promise<Uint8Array> {
      const payload = outrider.v1.InstructionKeyList.encode({
        serial,
        keys: pairs.map(({ keyId, publicKey }) => ({ keyId, publicKey: rawPublicKey(publicKey) })),
      }).finish();
      const signature = new Uint8Array(await webcrypto.subtle.sign(EC, keys.privateKey, keyListBytes(payload)));
      return outrider.v1.SignedKeyList.encode({ payload, signature }).finish();
    },
  };
}
const pair = (keyId: string) => ({ keyId, ...generateKeyPairSync('ed25519') });

const ca = await authority();
const good = pair('k1');

/** A desk on a folder of its own, with a guard that counts what it was asked. */
async function openDesk(t: { testdir(): string; teardown(fn: () => void): unknown }, folder = t.testdir()) {
  const clock = new StepClock();
  const events: OutboxEvent[] = [];
  const asked: string[] = [];
  let stored: Uint8Array | undefined;
  const guard = {
    motionEpoch: 3,
    outcome: { done: true, detail: 'ok', latchId: 7, unmet: [] } as TargetOutcome,
    failure: undefined as Error | undefined,
  };
  const act = (what: string): Promise<TargetOutcome> => {
    asked.push(what);
    return guard.failure ? Promise.reject(guard.failure) : Promise.resolve(guard.outcome);
  };
  const target: FailsafeTarget = {
    trigger: ({ mode, commandId, local }) => act(`trigger ${mode} ${commandId}${local ? ' local' : ''}`),
    recover: ({ latchId, nonce, local }) => act(`recover ${latchId} ${nonce}${local ? ' local' : ''}`),
    status: () => ({ motionEpoch: guard.motionEpoch, recoverNonce: 'present' }),
  };
  const keys = new TrustedKeys(
    {
      loadInstructionKeys: () => stored,
      saveInstructionKeys: (bytes) => {
        stored = bytes;
      },
    },
    () => ca.pem,
  );
  keys.accept(await ca.list(1, [good]));
  const commands = CommandLog.open(folder, log);
  t.teardown(() => commands.close());
  const record = (event: OutboxEvent): Promise<void> => {
    events.push(event);
    return Promise.resolve();
  };
  const desk = new CommandDesk({ device: DEVICE, keys, commands, target, record, clock, log });
  const stop = (order: Order = {}): Order => ({
    ...DEVICE,
    commandId: 'stop-1',
    verb: 'trigger',
    counter: 1,
    issuedAtMs: clock.epochMs(),
    requestedBy: 'op',
    reason: 'test',
    trigger: { mode: 'emergency_stop' },
    ...order,
  });
  const recover = (order: Order = {}): Order => ({
    ...stop(),
    commandId: 'rec-1',
    verb: 'recover',
    counter: 2,
    ttlMs: 5000,
    motionEpoch: 3,
    trigger: null,
    recover: { latchId: 7 },
    ...order,
  });
  const take = (order: Order, key = good) => desk.take(signInstruction(order, key.keyId, key.privateKey), false);
  return { desk, keys, commands, guard, clock, events, asked, take, stop, recover };
}

t.test('a stop and a recovery are done once, answered again, and their results recorded', async (t) => {
  const { take, stop, recover, asked, events, commands } = await openDesk(t);
  t.match(await take(stop()), { commandId: 'stop-1', done: true, outcome: 'done', latchId: 7, motionEpoch: 3 });
  t.match(await take(stop()), { done: true, latchId: 7 }, 'the same answer');
  t.match(await take(recover()), { done: true, outcome: 'done', motionEpoch: 4, counterSeen: 2 });
  t.match(await take(recover()), { done: true, outcome: 'done' });
  const [one, two] = await Promise.all([take(stop({ commandId: 'stop-2' })), take(stop({ commandId: 'stop-2' }))]);
  t.same(one, two, 'two at once are one');
  t.same(asked, ['trigger emergency_stop stop-1', 'recover 7 present', 'trigger emergency_stop stop-2']);
  t.same(
    events.map(({ eventId }) => eventId),
    ['evt_command_stop-1', 'evt_command_rec-1', 'evt_command_stop-2'],
  );
  t.same(commands.unreported(), []);
  const { payload: described } = eventSchema('command.answered.v1')['properties'] as {
    payload: { required: readonly string[] };
  };
  for (const { eventId, payload } of events)
    t.same(Object.keys(payload as object).sort(), [...described.required].sort(), `${eventId} is as its schema says`);
});

t.test('what is not authentic is never done, answered with a refusal, and raises one alarm of its kind', async (t) => {
  const { desk, take, stop, recover, asked, events } = await openDesk(t);
  const thief = pair('k1');
  const stranger = pair('k9');
  t.match(await take(stop(), thief), { done: false, outcome: 'unauthentic', detail: /signature/ }, 'a wrong key');
  t.match(await take(recover(), stranger), { outcome: 'unauthentic', detail: /key is not known/ });
  t.match(await take(stop({ robotId: 'RB-2' })), { outcome: 'unauthentic', detail: /another robot/ });
  t.match(await take(recover({ tenantId: 'other' })), { outcome: 'unauthentic' });
  const signed = signInstruction(stop(), good.keyId, good.privateKey);
  t.equal(await desk.take(signed, true), undefined, 'a retained one, however good');
  const bare = outrider.v1.SignedInstruction.decode(signed);
  const unsigned = outrider.v1.SignedInstruction.encode({ payload: bare.payload, keyId: 'k1' }).finish();
  t.match(await desk.take(unsigned, false), { outcome: 'unauthentic' }, 'no signature');
  let read = 0;
  for (let length = 0; length < signed.length; length += 1) {
    const reply = await desk.take(signed.subarray(0, length), false);
    if (reply) read += 1;
    t.ok(reply === undefined || reply.outcome === 'unauthentic', `cut to ${length}`);
  }
  t.ok(read > 0, 'some cuts leave something readable');
  for (let bit = 0; bit < signed.length * 8; bit += 1) {
    const changed = Uint8Array.from(signed);
    changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    const reply = await desk.take(changed, false);
    if (reply && reply.outcome !== 'unauthentic') t.fail(`bit ${bit} flipped: ${reply.outcome} ${reply.detail}`);
  }
  t.same(asked, [], 'nothing of it was done');
  const kinds = events.map(({ type, payload }) => [type, (payload as { problem: string }).problem]);
  t.equal(new Set(kinds.map(String)).size, kinds.length, 'a flood is one event of each kind');
  t.ok(kinds.every(([type]) => type === 'command.unauthentic.v1'));
  for (const problem of ['bad_signature', 'unknown_key', 'other_robot', 'retained', 'no_signature', 'unreadable'])
    t.ok(
      kinds.some(([, kind]) => kind === problem),
      problem,
    );
  t.match(await take(stop()), { done: true }, 'and the good one still works');
});

t.test('a late stop stops; a late, old or reordered recovery does not recover', async (t) => {
  const { desk, take, stop, recover, asked, guard, clock, commands } = await openDesk(t);
  desk.noteClockSkew(100);
  t.match(await take(recover({ counter: 10 })), { done: true });
  guard.motionEpoch = 4;
  const hourAgo = clock.epochMs() - 3_600_000;
  t.match(await take(stop({ counter: 5, motionEpoch: 1, issuedAtMs: hourAgo })), { done: true }, 'old in every way');
  t.match(await take(stop({ commandId: 'stop-0', counter: 0 })), { done: true }, 'without a number');
  const done = asked.length;
  const late = { counter: 11, motionEpoch: 4 };
  const cases: [Order, string, RegExp][] = [
    [{ counter: 10 }, 'stale', /not above 10/],
    [{ counter: 0 }, 'stale', /not above 10/],
    [{ ...late, motionEpoch: 3 }, 'conflict', /motion epoch 3, and the present one is 4/],
    [{ ...late, motionEpoch: 5 }, 'conflict', /motion epoch/],
    [{ ...late, motionEpoch: null }, 'refused', /motion epoch/],
    [{ ...late, ttlMs: 0 }, 'refused', /time to live/],
    [{ ...late, issuedAtMs: hourAgo }, 'expired', /3600100 ms ago/],
    [{ ...late, verb: 'dance' }, 'refused', /'dance' is not known/],
    [{ ...late, recover: null }, 'refused', /not known/],
  ];
  for (const [index, [order, outcome, detail]] of cases.entries())
    t.match(await take(recover({ commandId: `no-${index}`, ...order })), { done: false, outcome, detail });
  t.equal(asked.length, done, 'none of them reached the guard');
  t.equal(commands.counterSeen, 10, 'nor took a number');
  // A wall clock that was never set, or is set while a command is under way: the cloud's time counts, not ours.
  const cloudMs = clock.epochMs();
  clock.wallOffsetMs -= 30 * 365 * 86_400_000;
  desk.noteClockSkew(cloudMs - clock.epochMs());
  const judge = (commandId: string, issuedAtMs: number) => take(recover({ ...late, commandId, issuedAtMs }));
  t.match(await judge('no-clock', cloudMs - 10_000), { outcome: 'expired' });
  for (const stepMs of [-3_600_000, 7_200_000, 86_400_000]) {
    clock.wallOffsetMs += stepMs;
    t.match(await judge(`set-${stepMs}`, cloudMs - 10_000), { outcome: 'expired' });
  }
  t.match(await judge('in-time', cloudMs - 1000), { done: true });
  guard.motionEpoch = 5;
  desk.noteClockSkew(undefined);
  t.match(
    await take(recover({ counter: 12, motionEpoch: 5, commandId: 'unknown', issuedAtMs: hourAgo })),
    { done: true },
    'while nobody knows the time, only the wait here counts',
  );
});

t.test('what the guard refuses comes back with its reasons', async (t) => {
  const { take, stop, recover, guard } = await openDesk(t);
  guard.outcome = { done: false, detail: 'conditions are not met', latchId: 7, unmet: ['thermal_shutdown: hot'] };
  t.match(await take(recover()), { outcome: 'unmet', unmet: ['thermal_shutdown: hot'], latchId: 7 });
  guard.outcome = { done: false, detail: 'latch 7 is not the present one, 8', latchId: 8, unmet: [] };
  t.match(await take(recover({ commandId: 'rec-2', counter: 3 })), { outcome: 'conflict', latchId: 8 });
  guard.failure = new Error('the guard is away');
  t.match(await take(stop()), { outcome: 'refused', detail: 'the guard is away' });
  t.match(await take(stop({ commandId: 'x', trigger: { mode: 'dance' } })), { outcome: 'refused', detail: /mode/ });
});

t.test('keys are exchanged by the authority’s list, never backwards', async (t) => {
  const { desk, keys, take, stop } = await openDesk(t);
  const next = pair('k2');
  const first = await ca.list(1, [good]);
  const other = await authority();
  t.throws(() => desk.takeKeys(Buffer.from('nothing')), { code: 'invalid' });
  t.throws(() => desk.takeKeys(new Uint8Array(0)), { code: 'unauthenticated' });
  const forged = await other.list(9, [next]);
  t.throws(() => desk.takeKeys(forged), { code: 'unauthenticated' }, 'of another authority');
  const flipped = Uint8Array.from(first);
  flipped[5] = (flipped[5] ?? 0) ^ 1;
  t.throws(() => desk.takeKeys(flipped));
  t.match(await take(stop(), next), { outcome: 'unauthentic' });
  desk.takeKeys(await ca.list(2, [next, good]));
  t.match(await take(stop(), next), { done: true });
  desk.takeKeys(await ca.list(3, [next]));
  t.throws(() => keys.accept(first), { code: 'bad_state', message: /older than 3/ });
  t.match(
    await take(stop({ commandId: 'stop-9' })),
    { outcome: 'unauthentic' },
    'a key that was taken out is not believed',
  );
});

t.test('the log outlives the agent: answers, numbers and what was cut short', async (t) => {
  const folder = t.testdir();
  const first = await openDesk(t, folder);
  t.match(await first.take(first.recover()), { done: true });
  t.match(await first.take(first.stop()), { done: true });
  first.commands.begin({ commandId: 'rec-cut', verb: 'recover', counter: 20, beganAtMs: 5 });
  first.commands.begin({ commandId: 'stop-cut', verb: 'trigger', counter: 21, beganAtMs: 6 });
  first.commands.close();
  const second = await openDesk(t, folder);
  t.equal(second.commands.counterSeen, 21);
  t.same(
    second.events.map(({ eventId, payload }) => [eventId, (payload as { outcome: string }).outcome]),
    [['evt_command_rec-cut', 'unknown']],
    'what was cut short is told',
  );
  t.match(await second.take(second.recover()), { done: true, outcome: 'done' });
  t.match(await second.take(second.stop()), { done: true });
  t.match(await second.take(second.recover({ commandId: 'rec-cut', counter: 20 })), { outcome: 'unknown' });
  t.same(second.asked, [], 'none of them was done again');
  t.match(await second.take(second.stop({ commandId: 'stop-cut', counter: 21 })), { done: true });
  t.equal(second.asked.length, 1, 'but a stop that was cut short is');
  t.match(await second.take(second.recover({ commandId: 'old', counter: 19 })), { outcome: 'stale' });
  for (let n = 0; n < 5000; n += 1)
    second.commands.begin({ commandId: `many-${n}`, verb: 'trigger', counter: 0, beganAtMs: n });
  t.equal(second.commands.find('rec-1'), undefined, 'the log is bounded');
  t.match(await second.take(second.recover()), { outcome: 'stale' }, 'and what it forgot is refused by its number');
  second.commands.close();

  writeFileSync(join(folder, 'commands.db'), 'this is no database at all, whatever its name says'.repeat(100));
  const third = await openDesk(t, folder);
  t.match(await third.take(third.stop()), { done: true }, 'a damaged log is set aside');
});

t.test('a log that cannot be written keeps no stop, and no recovery is begun without one', async (t) => {
  const { take, stop, recover, commands, asked } = await openDesk(t);
  commands.begin = () => {
    throw new Error('disk full');
  };
  t.match(await take(stop()), { done: true });
  t.match(await take(recover()), { outcome: 'refused', detail: /cannot be written down/ });
  t.equal(asked.length, 1);
});
