import { FAILSAFE_MODES } from '@outrider/shared/failsafe/modes';
import { createLogger } from '@outrider/shared/log';
import t from 'tap';
import { AuditQueue } from '../src/failsafe/audit-queue.ts';
import type { AuditEntry } from '../src/fleet/ports.ts';
import { noPostgres, startPostgres, until } from '../src/testing/engines.ts';
import { describeRobot, startHarness } from './api-harness.ts';

t.setTimeout(590_000);

const ROBOTS = 40;

t.test(
  'stops work while PostgreSQL is away, and their audit trail is written afterwards',
  { skip: noPostgres },
  async (t) => {
    const postgres = await startPostgres();
    t.teardown(() => postgres.stop());
    const harness = await startHarness({ databaseUrl: postgres.url, answerTimeoutMs: 20_000 });
    t.teardown(() => harness.close());
    const { call, bus, database } = harness;
    const token = await harness.token('default');
    // Registered behind this process's back: nobody has ever asked it about them.
    for (let i = 0; i < ROBOTS; i += 1)
      await database.query(
        `insert into robot (tenant_id, robot_id, robot_name, robot_type) values ('default', $1, $1, 'arm')`,
        [`RB-${i}`],
      );
    for (let i = 0; i < ROBOTS; i += 1) bus.online.add(`default.RB-${i}`);
    bus.answer = () => ({ done: true, outcome: 'done', latchId: 3, detail: 'stopped and latched' });
    t.match(await call('POST', '/v1/robots', { token, body: describeRobot('RB-known') }), { status: 201 });
    bus.online.add('default.RB-known');
    const metrics = async (name: string): Promise<number> => {
      const { text } = await call('GET', '/metrics', { token });
      return Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(text)?.[1] ?? Number.NaN);
    };
    await until(async () => (await metrics('outrider_roster_robots')) === ROBOTS + 1, 'the roster', 30_000);
    const trigger = (robotId: string, mode = 'emergency_stop') =>
      call('POST', `/api/v1/robots/${robotId}/failsafe/trigger`, { token, body: { mode, reason: 'outage' } });

    for (let outage = 1; outage <= 2; outage += 1) {
      await postgres.pause();
      const answers = await Promise.all(
        Array.from({ length: ROBOTS * 5 }, (_, i) =>
          trigger(`RB-${i % ROBOTS}`, FAILSAFE_MODES[i % FAILSAFE_MODES.length]),
        ),
      );
      t.same(
        answers.filter(({ status }) => status !== 200).map(({ status, text }) => `${status} ${text}`),
        [],
        'every stop is confirmed',
      );
      t.match(await trigger('RB-known'), { status: 200 });
      // What was found is remembered for half a second.
      await until(async () => (await call('GET', '/ready')).status === 503, 'the server to notice');
      const ready = await call('GET', '/ready');
      t.match(ready, { status: 503, json: { checks: { database: { status: 'failed' } } } }, 'it says what is missing');
      t.match(await trigger('RB-nobody'), { status: 503, json: { error: { code: 'UNAVAILABLE' } } }, 'who may exist');
      t.match(await call('GET', '/api/v1/robots/RB-1/commands', { token }), { status: 503 }, 'reading has to wait');
      t.match(
        await call('POST', '/api/v1/robots/RB-1/commands', { token, body: { command: 'hold' } }),
        { status: 503 },
        'and so do commands, which must be on disk first',
      );
      t.match(await trigger('RB-1', 'dance'), { status: 400 });
      t.match(await call('POST', '/api/v1/robots/RB-1/failsafe/trigger', { body: { mode: 'emergency_stop' } }), {
        status: 401,
      });
      await postgres.resume();
      await until(async () => (await call('GET', '/ready')).status === 200, 'the server to be ready again', 60_000);
      await until(async () => (await metrics('outrider_audit_waiting')) === 0, 'the audit trail', 60_000);
      const [row] = await database.query<{ asked: number; answered: number }>(
        `select count(*) filter (where action = 'failsafe.trigger')::int4 as asked,
              count(*) filter (where action = 'failsafe.answer' and outcome = 'done')::int4 as answered
         from audit_entry where details->'stop'->>'reason' = 'outage'`,
      );
      // Stops of one robot and mode that are under way together are one.
      t.equal(row?.asked, row?.answered);
      t.ok((row?.asked ?? 0) >= outage * (ROBOTS + 1), `${row?.asked} stops are on record`);
      t.match(await trigger('RB-nobody'), { status: 404 }, 'now it is known that it is not there');
    }
  },
);

t.test('audit lines are bounded, keep their order, and a bad one does not stop the others', async (t) => {
  const written: string[] = [];
  let isAway = true;
  const line = (action: string): AuditEntry => ({
    tenantId: 'default',
    subject: 's',
    action,
    outcome: 'done',
    requestId: 'r',
    details: {},
    atMs: 0,
  });
  const queue = new AuditQueue({
    store: {
      async appendAll(entries) {
        if (isAway) throw new Error('away');
        if (entries.some(({ action }) => action === 'bad')) throw Object.assign(new Error('no'), { code: '22P05' });
        written.push(...entries.map(({ action }) => action));
      },
    },
    isDataError: (error) => (error as { code?: string }).code === '22P05',
    log: createLogger('test', 'silent'),
    waitingMax: 4,
  });
  await queue.append(line('lost'));
  for (const action of ['1', '2', 'bad', '3']) await queue.append(line(action));
  t.equal(queue.waitingCount, 4);
  t.equal(queue.droppedCount, 1, 'the oldest gives way');
  isAway = false;
  await until(() => queue.waitingCount === 0, 'the lines');
  t.same(written, ['1', '2', '3']);
  await queue.append(line('4'));
  t.same(written, ['1', '2', '3', '4'], 'a line is written when append resolves');
  const stop = new AbortController();
  stop.abort();
  await queue.run(stop.signal);
});
