import { systemClock } from '@outrider/shared/time';
import t from 'tap';
import { DEFAULT_RULES } from '../src/alert/default-rules.ts';
import type { Finding } from '../src/alert/finding.ts';
import { RuleBook } from '../src/alert/rule-book.ts';
import { SqlRuleStore } from '../src/storage/alert-rule-store.ts';
import { SqlAlertStore } from '../src/storage/alert-store.ts';
import { openDatabase } from '../src/storage/database.ts';
import { SqlWebhookStore } from '../src/storage/webhook-store.ts';
import { noPostgres, startPostgres } from '../src/testing/engines.ts';
import { openGround } from './ingest-rig.ts';

t.test(
  'on PostgreSQL, replicas that write at once raise each alert once and send each notification once',
  {
    skip: noPostgres,
  },
  async (t) => {
    const postgres = await startPostgres();
    const ground = await openGround(postgres.url);
    const second = await openDatabase({
      databaseUrl: postgres.url,
      dataDir: 'unused',
      log: ground.log,
      clock: systemClock,
    });
    t.teardown(async () => {
      await second.close();
      await ground.close();
      await postgres.stop();
    });
    const nowMs = systemClock.epochMs();
    await ground.database.query(`insert into tenant (tenant_id, name) values ('default', 'd')`);
    const robots = await ground.database.query<{ robot_pk: number; robot_id: string }>(
      `insert into robot (tenant_id, robot_id, robot_name, robot_type)
     select 'default', 'RB-' || n, 'x', 'x' from generate_series(1, 40) as n returning robot_pk, robot_id`,
    );
    const hook = {
      webhookId: 'whk_1',
      tenantId: 'default',
      url: 'https://hook.test/',
      description: '',
      severities: ['critical', 'warning'] as const,
      changes: ['raised', 'digest'] as const,
      robotIds: null,
      enabled: true,
      createdMs: nowMs,
      updatedMs: nowMs,
      updatedBy: 'ann',
    };
    const hooks = [ground.database, second].map((database) => new SqlWebhookStore(database));
    await hooks[0]?.add(hook, 'sealed');
    t.same(await hooks[1]?.list('default'), [hook]);
    t.equal(await hooks[1]?.replace({ ...hook, description: 'ops', robotIds: ['RB-1', 'RB-2'] }), true);
    t.match(await hooks[0]?.read('default', 'whk_1'), { description: 'ops', robotIds: ['RB-1', 'RB-2'] });
    await hooks[1]?.replace(hook);

    const rule = DEFAULT_RULES[0];
    if (!rule) throw new Error('no rule');
    const findings = robots.map(
      ({ robot_pk: robotPk, robot_id: robotId }): Finding => ({
        robot: { robotPk, tenantId: 'default', robotId },
        rule,
        action: 'raise',
        atMs: nowMs,
        isLate: false,
        details: { mode: 'a\0b', name: '\ud800' },
      }),
    );
    const stores = [ground.database, second].map((database) => new SqlAlertStore(database));
    const news = await Promise.all(
      [...stores, ...stores].map((store, turn) =>
        store.apply(turn % 2 === 0 ? findings : [...findings].reverse(), nowMs),
      ),
    );
    t.equal(news.flat().length, robots.length, 'each once, by whoever came first');
    const claims = await Promise.all([...hooks, ...hooks].map((store) => store.claim(nowMs, 30_000, 16, 4, [])));
    const claimed = claims.flat().map(({ deliveryId }) => deliveryId);
    t.ok(claimed.length > 0);
    t.equal(new Set(claimed).size, claimed.length, 'no delivery is claimed twice');
    const again = (await hooks[0]?.claim(nowMs + 30_001, 30_000, 100, 100, ['another'])) ?? [];
    const retried = again.filter(({ attempts }) => attempts === 2).map(({ deliveryId }) => deliveryId);
    t.same(retried.sort(), claimed.sort(), 'who claims and dies loses the claim');
    const queued = (await hooks[0]?.deliveries('whk_1', 100, undefined)) ?? [];
    t.same(await hooks[1]?.claim(nowMs + 90_000, 30_000, 100, 100, ['whk_1']), [], 'not of a busy one');
    t.equal(again.length, queued.length, 'the digest is due by then too');
    t.equal(queued.filter(({ type }) => type === 'alert.digest').length, 1, 'a fleet that goes at once is one digest');
    t.equal(queued.length, 26, 'and a few by themselves');
    await hooks[0]?.settle([{ deliveryId: again[0]?.deliveryId ?? '', state: 'delivered', status: 200 }], nowMs);
    t.equal(await hooks[0]?.waiting(), queued.length - 1);
    await hooks[0]?.removeEnded(nowMs + 1);

    const [store] = stores;
    if (!store) throw new Error('no store');
    const page = await store.query('default', { status: 'active', robotIds: ['RB-7'], limit: 5 });
    t.match(page, [{ robotId: 'RB-7', clearedAt: null }]);
    const done = await store.act({
      change: 'cleared',
      tenantId: 'default',
      alertIds: [page[0]?.alertId ?? ''],
      actor: 'ann',
      notes: 'done',
      nowMs,
    });
    t.equal(done.news.length, 1);
    t.same(
      (await store.history(page[0]?.alertId ?? '')).map(({ change }) => change),
      ['raised', 'cleared'],
    );
    t.same(
      await store.sweep(
        DEFAULT_RULES.map((one) => ({ tenantId: 'default', rule: one })),
        nowMs,
      ),
      [],
    );
    t.same(await store.known(0), []);
    t.same(await store.raisesSince(0), []);
    t.match(await store.judgePending(async () => [], 10, nowMs), { events: 0 });
    t.equal((await store.clearOrphans('default', [], nowMs)).length, robots.length - 1);

    const rules = [ground.database, second].map((database) => new SqlRuleStore(database));
    const books = rules.map((one) => new RuleBook(one));
    await Promise.all(books.map((book) => book.refresh()));
    const { ruleId, ...rest } = rule;
    await rules[0]?.put({ tenantId: 'default', ruleId, rule: { ...rest, enabled: false } }, 'ann', nowMs);
    t.same(await books[1]?.refresh(), ['default'], 'a change is seen by the other replica');
    t.equal(books[1]?.rulesOf('default').rules[0]?.enabled, false);
    t.equal(books[1]?.rulesOf('default').rules[1], DEFAULT_RULES[1], 'and only what changed is new');
    await rules[1]?.remove('default', ruleId, 'ann', nowMs);
    t.same(await books[0]?.refresh(), []);
  },
);
