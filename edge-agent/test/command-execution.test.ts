import { eventSchema } from '@outrider/shared/event-schemas';
import { createLogger } from '@outrider/shared/log';
import type { outrider } from '@outrider/shared/messages';
import { signInstruction } from '@outrider/shared/protocol/instruction';
import { systemClock } from '@outrider/shared/time';
import t, { type Test } from 'tap';
import { CommandDesk } from '../src/commands/command-desk.ts';
import type { ExecutionOutcome, ExecutionTarget } from '../src/commands/command-executor.ts';
import { CommandLog, type Reply } from '../src/commands/command-log.ts';
import { TrustedKeys } from '../src/commands/trusted-keys.ts';
import type { OutboxEvent } from '../src/outbox/records.ts';
import { until } from './guard-rig.ts';
import { DEVICE, instructionKeyPair, TestAuthority } from './uplink-rig.ts';

const EPOCH = 3;
const log = createLogger('test', 'silent');
const authority = await TestAuthority.create();
const key = instructionKeyPair('k1');
const keyList = await authority.keyList(1, [key]);

/** A desk over a guard that does what the test says, and what it said after its first answers. */
function open(t: Test, folder = t.testdir(), hasExecutor = true) {
  const commands = CommandLog.open(folder, log);
  t.teardown(() => commands.close());
  const executed: string[] = [];
  const cancelled: string[] = [];
  const said: Reply[] = [];
  const events: OutboxEvent[] = [];
  const running = new Map<string, { progress: (share: number) => void; end: (outcome: ExecutionOutcome) => void }>();
  const executor: ExecutionTarget = {
    execute({ commandId }, progress) {
      executed.push(commandId);
      t.ok(commands.find(commandId), `${commandId} is on disk before it is begun`);
      return new Promise((end) => void running.set(commandId, { progress, end }));
    },
    async cancel(commandId) {
      cancelled.push(commandId);
      running.get(commandId)?.end({ done: false, outcome: 'cancelled', detail: 'called off', latchId: 0 });
      return { done: true, detail: 'called off', latchId: 0 };
    },
  };
  let stored: Uint8Array | undefined;
  const keys = new TrustedKeys(
    {
      loadInstructionKeys: () => stored,
      saveInstructionKeys: (bytes) => {
        stored = bytes;
      },
    },
    () => authority.pem,
  );
  keys.accept(keyList);
  const desk = new CommandDesk({
    device: DEVICE,
    keys,
    commands,
    target: {
      trigger: async () => ({ done: true, detail: '', latchId: 1, unmet: [] }),
      recover: async () => ({ done: true, detail: '', latchId: 1, unmet: [] }),
      status: () => ({ motionEpoch: EPOCH }),
    },
    executor: hasExecutor ? executor : undefined,
    record: async (event) => void events.push(event),
    clock: systemClock,
    log,
  });
  desk.speakThrough((reply) => said.push(reply));
  const take = (order: outrider.v1.Instruction.$Properties): Promise<Reply | undefined> =>
    desk.take(
      signInstruction(
        { ...DEVICE, verb: 'command', issuedAtMs: Date.now(), ttlMs: 60_000, motionEpoch: EPOCH, ...order },
        key.keyId,
        key.privateKey,
      ),
      false,
    );
  const hold = (commandId: string, counter: number, more: object = {}) =>
    take({ commandId, counter, command: { kind: 'hold' }, ...more });
  let cancellations = 0;
  const cancel = (target: string, onlyUnbegun = false) => {
    cancellations += 1;
    return take({ commandId: `can-${cancellations}`, verb: 'cancel', cancel: { commandId: target, onlyUnbegun } });
  };
  const begun = (commandId: string) => until(`${commandId} to begin`, () => running.get(commandId));
  const last = (commandId: string): Reply | undefined => said.filter((reply) => reply.commandId === commandId).at(-1);
  return { desk, commands, executed, cancelled, said, events, take, hold, cancel, begun, last };
}
const eventsOf = (events: readonly OutboxEvent[], commandId: string) =>
  events
    .filter(({ eventId }) => eventId === `evt_command_${commandId}`)
    .map(({ payload }) => payload as { outcome: string });

t.test('a command is on disk, then executed once, then answered whenever it is asked for', async (t) => {
  const { hold, begun, executed, last, events, said } = open(t);
  t.match(await hold('c1', 1), { commandId: 'c1', verb: 'command', done: false, outcome: '', stage: 'delivered' });
  const { progress, end } = await begun('c1');
  progress(0.5);
  t.match(last('c1'), { outcome: '', stage: 'executing', progress: 0.5 });
  t.match(await hold('c1', 1), { outcome: '', stage: 'executing' }, 'a double hears how it stands');
  t.match(await hold('c1', 9), { outcome: '', stage: 'executing' }, 'also under a new number');
  end({ done: true, outcome: 'done', detail: 'there', latchId: 0 });
  await until('the last word', () => last('c1')?.outcome === 'done');
  t.match(await hold('c1', 10), { done: true, outcome: 'done', detail: 'there' });
  t.same(executed, ['c1']);
  t.match(eventsOf(events, 'c1'), [{ outcome: 'done', verb: 'command' }]);
  const { payload } = eventSchema('command.answered.v1')['properties'] as { payload: { required: readonly string[] } };
  t.same(Object.keys(events[0]?.payload as object).sort(), [...payload.required].sort(), 'as its schema says');
  t.equal(said.filter(({ outcome }) => outcome === 'done').length, 1, 'the last word is said once');
});

t.test('what is old, late, out of order or of another motion epoch is never executed', async (t) => {
  const { hold, begun, executed, events, commands, take } = open(t);
  await hold('new', 6);
  (await begun('new')).end({ done: true, outcome: 'done', detail: '', latchId: 0 });
  t.match(await hold('overtaken', 5), { outcome: 'stale', counterSeen: 6 }, 'reordered');
  t.match(await hold('none', 0), { outcome: 'stale' });
  t.equal(commands.find('overtaken'), undefined, 'its sender may give it a new number');
  t.same(eventsOf(events, 'overtaken'), []);
  const cases: [string, number, object, string, RegExp][] = [
    ['older', 7, { motionEpoch: EPOCH - 1 }, 'conflict', /motion epoch/],
    ['newer', 8, { motionEpoch: EPOCH + 1 }, 'conflict', /motion epoch/],
    ['epochless', 9, { motionEpoch: null }, 'refused', /no motion epoch/],
    ['endless', 10, { ttlMs: 0 }, 'refused', /time to live/],
    ['dance', 11, { command: { kind: 'dance' } }, 'refused', /not known/],
  ];
  for (const [id, counter, more, outcome, detail] of cases) {
    t.match(await hold(id, counter, more), { done: false, outcome, detail }, id);
    t.match(await hold(id, counter + 100), { outcome, detail }, `${id}: once refused is refused`);
    t.match(eventsOf(events, id), [{ outcome }]);
  }
  t.match(await take({ commandId: 'empty', counter: 300 }), { outcome: 'refused' });
  const { desk } = open(t, t.testdir({ late: {} }));
  desk.noteClockSkew(0);
  const late = signInstruction(
    {
      ...DEVICE,
      commandId: 'late',
      verb: 'command',
      counter: 1,
      motionEpoch: EPOCH,
      issuedAtMs: Date.now() - 60_000,
      ttlMs: 1000,
      command: { kind: 'hold' },
    },
    key.keyId,
    key.privateKey,
  );
  t.match(await desk.take(late, false), { outcome: 'expired' }, 'its time was over before it came');
  t.same(executed, ['new']);
});

t.test('a cancellation ends what runs, and keeps from beginning what comes after it', async (t) => {
  const { hold, cancel, begun, executed, cancelled, last, events } = open(t);
  await hold('c1', 1);
  await begun('c1');
  t.match(await cancel('c1', true), { outcome: 'conflict' }, 'a question leaves it alone');
  t.match(last('c1'), { outcome: '', stage: 'delivered' });
  t.same(cancelled, []);
  t.match(await cancel('c1'), { verb: 'cancel', done: true, outcome: 'done' });
  await until('its end', () => last('c1')?.outcome === 'cancelled');
  t.match(await hold('c1', 2), { outcome: 'cancelled' });
  t.match(await cancel('c1'), { outcome: 'conflict', detail: /has ended: cancelled/ });

  t.match(await cancel('c2'), { done: true });
  t.match(last('c2'), { outcome: 'cancelled' });
  t.match(await hold('c2', 3), { outcome: 'cancelled' }, 'its message came after its cancellation');
  t.match(await cancel('c3', true), { done: true });
  t.match(await hold('c3', 4), { outcome: 'expired' });
  t.match(eventsOf(events, 'c3'), [{ outcome: 'expired' }]);
  t.match(await cancel('../etc'), { outcome: 'refused' });
  t.same(executed, ['c1']);
});

t.test('a command that was cut short is not tried again', async (t) => {
  const folder = t.testdir();
  const first = open(t, folder);
  await first.hold('c1', 1);
  await first.begun('c1');
  first.commands.close();
  const second = open(t, folder);
  t.match(eventsOf(second.events, 'c1'), [{ outcome: 'unknown' }], 'it is told at the start');
  t.match(await second.hold('c1', 2), { done: false, outcome: 'unknown', detail: /agent was stopped/ });
  await second.cancel('c1');
  t.match(second.last('c1'), { outcome: 'unknown' });
  t.same(second.executed, []);
});

t.test('a robot without a guard refuses', async (t) => {
  const { hold, cancel } = open(t, t.testdir(), false);
  t.match(await hold('c1', 1), { outcome: 'refused', detail: /without a guard/ });
  t.match(await cancel('c1'), { outcome: 'refused' });
});
