import { once } from 'node:events';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { createLogger } from '@outrider/shared/log';
import { systemClock } from '@outrider/shared/time';
import { Registry } from 'prom-client';
import { Webhook as Verifier } from 'standardwebhooks';
import t, { type Test } from 'tap';
import { DEFAULT_RULES } from '../src/alert/default-rules.ts';
import { openAlerts } from '../src/alert/open-alerts.ts';
import { SqlAlertStore } from '../src/storage/alert-store.ts';
import type { Database } from '../src/storage/database.ts';
import { SqlIngestStore } from '../src/storage/ingest-store.ts';
import type { LaneOutcome, StoredListener } from '../src/telemetry/ingest-ports.ts';
import type { LiveAlert, LiveUpdate, RobotRef } from '../src/telemetry/ports.ts';
import type { EventLaneRecord } from '../src/telemetry/record.ts';
import { describeRobot, startHarness } from './api-harness.ts';
import { openGround } from './ingest-rig.ts';

interface WireAlert {
  readonly alert_id: string;
  readonly robot_id: string;
  readonly rule_id: string;
  readonly severity: string;
  readonly status: string;
  readonly raised_at: string;
  readonly cleared_at: string | null;
  readonly acknowledged: boolean;
  readonly acknowledged_by: string | null;
  readonly acknowledged_notes: string | null;
  readonly backfilled: boolean;
  readonly occurrences: number;
}

const harness = await startHarness({ egress: { allowPrivate: true } });
t.teardown(() => harness.close());
const { call, database } = harness;
const token = await harness.token('default');
const other = await harness.token('other');
for (const robotId of ['RB-1', 'RB-2', 'RB-3', 'RB-4', 'RB-5', 'RB-6', 'RB-7'])
  await call('POST', '/v1/robots', { token, body: describeRobot(robotId) });
await call('POST', '/v1/robots', { token: other, body: describeRobot('RB-1') });

async function refOf(robotId: string, tenantId = 'default'): Promise<RobotRef> {
  const [row] = await database.query<{ robot_pk: number }>(
    'select robot_pk from robot where tenant_id = $1 and robot_id = $2',
    [tenantId, robotId],
  );
  return { robotPk: row?.robot_pk ?? 0, tenantId, robotId };
}

/** Asks again until the answer is as it should be. */
async function until<T>(ask: () => Promise<T>, isGood: (answer: T) => boolean): Promise<T> {
  for (let tries = 0; ; tries += 1) {
    const answer = await ask();
    if (isGood(answer) || tries > 600) return answer;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}
const alertsOf = async (query: string, by = token): Promise<WireAlert[]> =>
  ((await call('GET', `/api/v1/alerts?${query}`, { token: by })).json as unknown as { alerts: WireAlert[] }).alerts;

/** Motor temperatures a second apart, the newest `agoS` ago. */
async function heat(robotId: string, celsius: readonly number[], agoS: number, by = token): Promise<void> {
  const nowMs = Date.parse(new Date(systemClock.epochMs()).toISOString());
  const events = celsius.map((motor_max_c, i) => ({
    robot_id: robotId,
    timestamp: new Date(nowMs - (agoS + celsius.length - 1 - i) * 1000).toISOString(),
    thermal: { motor_max_c },
  }));
  const answer = await call('POST', '/api/v1/telemetry/events', { token: by, body: events });
  if (answer.status !== 202) throw new Error(answer.text);
}

/** Stores an event of a robot as the ingest does, and tells nobody. */
let lastSeq = 0;
async function storeEvent(
  robot: RobotRef,
  type: string,
  payload: Record<string, unknown>,
  agoS = 0,
): Promise<LaneOutcome[]> {
  lastSeq += 1;
  const nowMs = systemClock.epochMs();
  const record: EventLaneRecord = {
    kind: 'event',
    seq: lastSeq,
    seqTo: lastSeq,
    hash: new Uint8Array(16).fill(lastSeq),
    bootId: 'b',
    eventId: `evt_${lastSeq}`,
    type,
    occurredAtMs: nowMs - agoS * 1000,
    traceId: 'req_of_the_cause',
    payloadJson: JSON.stringify(payload),
  };
  return await new SqlIngestStore(database).commit(
    [{ robot, epoch: 'e'.repeat(16), lane: 1, records: [record] }],
    nowMs,
  );
}
const STOP = {
  mode: 'thermal_shutdown',
  action: 'STOP1',
  causes: [],
  latch_id: 1,
  motion_epoch: 1,
  requested_by: '',
  reason: '',
  decision_latency_ms: 1,
};

t.test('telemetry past a limit is an alert at once, on the live stream too, and clears by itself', async (t) => {
  const heard: LiveAlert[] = [];
  const stop = harness.telemetry.live.subscribe({ tenantId: 'default' }, (update: LiveUpdate) => {
    if (update.type === 'alert') heard.push(update);
  });
  await heat('RB-1', [64, 99], 15);
  const [raised] = await until(
    () => alertsOf('robot_id=RB-1'),
    (alerts) => alerts.length > 0,
  );
  t.match(raised, { rule_id: 'temperature-critical', severity: 'critical', status: 'active', backfilled: false });
  await heat(
    'RB-1',
    Array.from({ length: 13 }, () => 64),
    0,
  );
  const [cleared] = await until(
    () => alertsOf('robot_id=RB-1'),
    (alerts) => alerts[0]?.status === 'cleared',
  );
  t.equal(cleared?.alert_id, raised?.alert_id);
  t.ok(Date.parse(cleared?.cleared_at ?? '') > Date.parse(raised?.raised_at ?? ''));
  await until(
    async () => heard.length,
    (count) => count >= 2,
  );
  t.same(
    heard.map(({ news }) => news.change),
    ['raised', 'cleared'],
  );
  stop();
  const metrics = (await call('GET', '/metrics')).text;
  t.match(metrics, /outrider_decision_window_seconds_count\{since="recorded"\} 1/);
  t.match(metrics, /outrider_alert_changes_total\{change="raised",severity="critical",kind="threshold"\} 1/);
});

t.test('acknowledging does not clear, clearing does not acknowledge, and the history has both', async (t) => {
  await heat('RB-2', [99], 0);
  const [alert] = await until(
    () => alertsOf('robot_id=RB-2'),
    (alerts) => alerts.length > 0,
  );
  const body = { alert_id: alert?.alert_id, notes: 'on my way' };
  const answered = await call('POST', '/api/v1/alerts/ack', { token, body });
  t.equal(answered.status, 200, answered.text);
  const read = async () =>
    (await call('GET', `/api/v1/alerts/${alert?.alert_id}`, { token })).json as unknown as {
      alert: WireAlert;
      history: { change: string; actor: string | null; notes: string | null }[];
    };
  t.match((await read()).alert, {
    status: 'active',
    acknowledged: true,
    acknowledged_by: 'client-1',
    acknowledged_notes: 'on my way',
  });
  await call('POST', '/api/v1/alerts/ack', { token, body });
  await call('POST', '/api/v1/alerts/unack', { token, body: { alert_ids: [alert?.alert_id] } });
  await call('POST', '/api/v1/alerts/clear', { token, body: { alert_ids: [alert?.alert_id], notes: 'replaced' } });
  const { alert: last, history } = await read();
  t.match(last, { status: 'cleared', acknowledged: false });
  t.same(
    history.map(({ change, actor, notes }) => [change, actor, notes]),
    [
      ['raised', null, null],
      ['acknowledged', 'client-1', 'on my way'],
      ['unacknowledged', 'client-1', null],
      ['cleared', 'client-1', 'replaced'],
    ],
    'the second acknowledgement changed nothing',
  );
  const cases: [unknown, number][] = [
    [{}, 400],
    [{ alert_id: 'a', alert_ids: ['b'] }, 400],
    [{ alert_ids: [] }, 400],
    [{ alert_id: 'alr_none' }, 404],
    [{ alert_ids: [alert?.alert_id, 'alr_none'] }, 404],
  ];
  for (const [wrong, status] of cases) {
    const answer = await call('POST', '/api/v1/alerts/ack', { token, body: wrong });
    t.equal(answer.status, status, `${JSON.stringify(wrong)} ${answer.text}`);
  }
  t.equal((await read()).alert.acknowledged, false, 'all or none');
});

t.test('what a robot brings along after it was away has its own times, is one alert, and wakes nobody', async (t) => {
  const hook = await call('POST', '/api/v1/alerts/webhooks', { token, body: { url: 'https://127.0.0.1:1/' } });
  const spikes = Array.from({ length: 90 }, (_, i) => (i % 30 === 0 ? 99 : 50));
  await heat('RB-3', spikes, 3600);
  const [alert, ...more] = await until(
    () => alertsOf('robot_id=RB-3&status=cleared'),
    (alerts) => alerts[0]?.occurrences === 3,
  );
  t.same(more, [], 'three excursions of one backlog are one alert');
  t.match(alert, { backfilled: true, status: 'cleared', occurrences: 3 });
  t.ok(systemClock.epochMs() - Date.parse(alert?.raised_at ?? '') > 3_600_000, 'by its own time');
  const { webhook_id } = hook.json as unknown as { webhook_id: string };
  const sent = await call('GET', `/api/v1/alerts/webhooks/${webhook_id}/deliveries`, { token });
  const { deliveries } = sent.json as unknown as { deliveries: { type: string; state: string }[] };
  t.match(deliveries, [{ type: 'alert.digest', state: 'pending' }], 'a digest, later');
  t.equal((await call('DELETE', `/api/v1/alerts/webhooks/${webhook_id}`, { token })).status, 204);
});

t.test('a stop that was stored and told to nobody is judged all the same, once, whatever its words', async (t) => {
  const robot = await refOf('RB-4');
  await storeEvent(robot, 'failsafe.transition.v1', {
    ...STOP,
    transition_id: 1,
    from_phase: 'ARMED',
    to_phase: 'LATCHED',
  });
  await storeEvent(robot, 'failsafe.triggered.v1', STOP);
  const [alert, ...more] = await until(
    () => alertsOf('robot_id=RB-4&status=active'),
    (alerts) => alerts.length > 0,
  );
  t.match(alert, { rule_id: 'failsafe-latched', severity: 'critical', occurrences: 1, trace_id: 'req_of_the_cause' });
  t.same(more, [], 'the transition and the trigger are one stop');
  for (const odd of [null, 7, 'x', [1], { to_phase: 1e308, mode: ['x'], latch_id: {} }])
    await storeEvent(robot, 'failsafe.triggered.v1', odd as never);
  const left = await until(
    () => database.query('select 1 from alert_pending'),
    (rows) => rows.length === 0,
  );
  t.same(left, [], 'no mark is left');
  await storeEvent(robot, 'failsafe.transition.v1', {
    ...STOP,
    transition_id: 2,
    from_phase: 'LATCHED',
    to_phase: 'ARMED',
  });
  const [cleared] = await until(
    () => alertsOf('robot_id=RB-4&rule_id=failsafe-latched'),
    (alerts) => alerts[0]?.status === 'cleared',
  );
  t.match(cleared, { alert_id: alert?.alert_id, occurrences: 6 }, 'words that make no sense are stops too');
  t.match(await alertsOf('robot_id=RB-4&rule_id=failsafe-repeated'), [{ status: 'active' }]);
});

t.test('an alert of another replica, or of a life before, is taken over and clears', async (t) => {
  const rule = DEFAULT_RULES.find(({ ruleId }) => ruleId === 'temperature-critical');
  if (!rule) throw new Error('no rule');
  const nowMs = systemClock.epochMs();
  const details = { stream: 'api/temperature' };
  const raised = {
    robot: await refOf('RB-7'),
    rule,
    action: 'raise',
    atMs: nowMs - 20_000,
    isLate: false,
    details,
  } as const;
  await new SqlAlertStore(database).apply([raised], nowMs);
  const [alert] = await until(
    async () => {
      await heat(
        'RB-7',
        Array.from({ length: 13 }, () => 64),
        0,
      );
      return alertsOf('robot_id=RB-7');
    },
    (alerts) => alerts[0]?.status === 'cleared',
  );
  t.match(alert, { rule_id: 'temperature-critical', status: 'cleared' });
});

t.test('two replicas that see the same raise one alert', async (t) => {
  const robot = await refOf('RB-5');
  const listeners: StoredListener[] = [];
  const stop = new AbortController();
  const replicas = [1, 2].map(() =>
    openAlerts({
      database,
      secrets: { seal: (_name, text) => text, open: (_name, text) => text },
      telemetry: {
        onStored: (listener) => {
          listeners.push(listener);
          return () => undefined;
        },
        announce: () => undefined,
      },
      metrics: new Registry(),
      clock: systemClock,
      log: createLogger('test', 'silent'),
      egress: { allowPrivate: false },
    }),
  );
  const running = replicas.flatMap(({ services }) => services.map((service) => service.run(stop.signal)));
  const outcomes: LaneOutcome[] = [];
  const unsubscribe = harness.telemetry.onStored((some) => outcomes.push(...some));
  await heat('RB-5', [99, 99], 15);
  unsubscribe();
  for (const listener of listeners) listener(outcomes, systemClock.epochMs());
  await until(
    () => alertsOf('robot_id=RB-5'),
    (alerts) => alerts.length > 0,
  );
  await storeEvent(robot, 'failsafe.triggered.v1', STOP);
  await until(
    () => alertsOf('robot_id=RB-5'),
    (alerts) => alerts.length > 1,
  );
  const alerts = await alertsOf('robot_id=RB-5');
  t.same(alerts.map(({ rule_id, occurrences }) => `${rule_id} ${occurrences}`).sort(), [
    'failsafe-latched 1',
    'temperature-critical 1',
  ]);
  stop.abort();
  await Promise.all(running);
});

t.test('alerts are found by severity, robot, state and window, page by page, and by nobody else', async (t) => {
  const all = await alertsOf('limit=500');
  t.ok(all.length >= 5, `${all.length}`);
  const pages: WireAlert[] = [];
  let cursor: string | null = '';
  while (cursor !== null) {
    const answer = await call('GET', `/api/v1/alerts?limit=2${cursor === '' ? '' : `&cursor=${cursor}`}`, { token });
    const page = answer.json as unknown as { alerts: WireAlert[]; next_cursor: string | null };
    t.ok(page.alerts.length <= 2);
    pages.push(...page.alerts);
    cursor = page.next_cursor;
  }
  t.same(
    pages.map((one) => one.alert_id),
    all.map((one) => one.alert_id),
    'every alert once, in order',
  );
  const ids = async (query: string): Promise<string[]> => (await alertsOf(query)).map((one) => one.alert_id).sort();
  const where = (keep: (alert: WireAlert) => boolean): string[] =>
    all
      .filter(keep)
      .map((one) => one.alert_id)
      .sort();
  t.same(
    await ids('severity=critical&status=active'),
    where((one) => one.severity === 'critical' && one.status === 'active'),
  );
  t.same(await ids('severity=info'), []);
  t.same(
    await ids('robot_id=RB-1,RB-2'),
    where(({ robot_id }) => robot_id === 'RB-1' || robot_id === 'RB-2'),
  );
  t.same(
    await ids('rule_id=failsafe-latched'),
    where(({ rule_id }) => rule_id === 'failsafe-latched'),
  );
  t.same(await ids('acknowledged=true'), []);
  const hourAgo = new Date(systemClock.epochMs() - 1_800_000).toISOString();
  t.same(
    await ids(`to=${hourAgo}`),
    where((one) => one.raised_at <= hourAgo),
    'the window ends',
  );
  t.same(
    await ids(`from=${hourAgo}`),
    where((one) => one.cleared_at === null || one.cleared_at >= hourAgo),
    'and begins',
  );
  for (const query of [
    'severity=bad',
    'status=open',
    'limit=0',
    'limit=501',
    'cursor=x',
    'from=yesterday',
    'colour=red',
  ])
    t.equal((await call('GET', `/api/v1/alerts?${query}`, { token })).status, 400, query);

  const foreign = all[0]?.alert_id;
  t.same(await alertsOf('limit=500', other), []);
  t.equal((await call('GET', `/api/v1/alerts/${foreign}`, { token: other })).status, 404);
  t.equal((await call('POST', '/api/v1/alerts/clear', { token: other, body: { alert_id: foreign } })).status, 404);
  t.equal((await call('GET', '/api/v1/alerts?robot_id=RB-2', { token: other })).status, 404);
  const { accounts } = harness.identity;
  const password = await accounts.createUser({ username: 'ann', tenantId: 'default', robotIds: ['RB-1'] });
  const { accessToken: bound } = await accounts.login('ann', password ?? '', []);
  const theirs = await alertsOf('limit=500', bound);
  t.ok(theirs.length > 0 && theirs.every(({ robot_id }) => robot_id === 'RB-1'), 'only of the robots it is bound to');
  const beyond = all.find(({ robot_id }) => robot_id !== 'RB-1')?.alert_id;
  t.equal((await call('GET', '/api/v1/alerts?robot_id=RB-2', { token: bound })).status, 403);
  t.equal((await call('GET', `/api/v1/alerts/${beyond}`, { token: bound })).status, 404);
  t.equal((await call('POST', '/api/v1/alerts/ack', { token: bound, body: { alert_id: beyond } })).status, 404);
  t.equal((await call('GET', '/api/v1/alerts/webhooks', { token: bound })).status, 403, 'webhooks are the tenant’s');
  t.equal((await call('DELETE', '/api/v1/alerts/rules/no-data', { token: bound })).status, 403, 'and so are rules');
  const reader = await harness.token('default', ['telemetry:read']);
  t.equal((await call('GET', '/api/v1/alerts', { token: reader })).status, 200, 'who reads telemetry reads alerts');
  t.equal((await call('POST', '/api/v1/alerts/ack', { token: reader, body: { alert_id: foreign } })).status, 403);
  const driver = await harness.token('default', ['command:write']);
  t.equal((await call('POST', '/api/v1/alerts/ack', { token: driver, body: { alert_id: foreign } })).status, 200);
  t.equal((await call('GET', '/api/v1/alerts/webhooks', { token: driver })).status, 403);
});

t.test('rules are listed, made, changed and switched off, each tenant for itself', async (t) => {
  const list = async (by: string) =>
    (
      (await call('GET', '/api/v1/alerts/rules', { token: by })).json as unknown as {
        rules: { rule_id: string; enabled: boolean }[];
      }
    ).rules;
  t.same(
    (await list(token)).map((rule) => rule.rule_id),
    DEFAULT_RULES.map((rule) => rule.ruleId),
  );
  const condition = {
    kind: 'threshold',
    signal: { kind: 'power', field: 'draw' },
    operator: '>',
    value: 500,
    clear_value: 450,
  };
  const made = await call('POST', '/api/v1/alerts/rules', {
    token,
    body: { name: 'Draws too much', severity: 'info', robot_ids: ['RB-6'], condition },
  });
  t.equal(made.status, 201, made.text);
  const { rule_id } = made.json as unknown as { rule_id: string };
  t.match(made.json, {
    built_in: false,
    enabled: true,
    condition,
    flap: { clear_for_s: 10, raises: 4, window_s: 600 },
  });
  const draw = async (robotId: string): Promise<void> => {
    const timestamp = new Date(systemClock.epochMs()).toISOString();
    await call('POST', '/api/v1/telemetry/events', {
      token,
      body: { robot_id: robotId, timestamp, power: { draw_w: 800 } },
    });
  };
  await draw('RB-2');
  await draw('RB-6');
  const [alert, ...more] = await until(
    () => alertsOf(`rule_id=${rule_id}`),
    (alerts) => alerts.length > 0,
  );
  t.match(alert, { robot_id: 'RB-6', severity: 'info', status: 'active' });
  t.same(more, []);
  const patched = await call('PATCH', `/api/v1/alerts/rules/${rule_id}`, { token, body: { enabled: false } });
  t.match(patched.json, { enabled: false, name: 'Draws too much' });
  t.equal((await alertsOf(`rule_id=${rule_id}`))[0]?.status, 'cleared', 'a rule that is off holds nothing open');
  await call('PATCH', '/api/v1/alerts/rules/temperature-critical', { token, body: { enabled: false } });
  t.notOk((await list(token)).find((rule) => rule.rule_id === 'temperature-critical')?.enabled);
  t.ok((await list(other)).find((rule) => rule.rule_id === 'temperature-critical')?.enabled, 'not for other tenants');
  t.equal((await list(other)).length, DEFAULT_RULES.length);
  t.equal((await call('GET', `/api/v1/alerts/rules/${rule_id}`, { token: other })).status, 404);
  t.equal((await call('DELETE', `/api/v1/alerts/rules/${rule_id}`, { token: other })).status, 404);
  t.equal((await call('DELETE', '/api/v1/alerts/rules/temperature-critical', { token })).status, 204);
  t.ok((await list(token)).find((rule) => rule.rule_id === 'temperature-critical')?.enabled, 'as it was');
  t.equal((await call('DELETE', `/api/v1/alerts/rules/${rule_id}`, { token })).status, 204);
  t.equal((await call('DELETE', `/api/v1/alerts/rules/${rule_id}`, { token })).status, 404);
  for (const wrong of [
    { ...condition, operator: '!=' },
    { kind: 'repetition', count: 2, within_s: 60 },
    { kind: 'nothing' },
    { ...condition, for_s: 5 },
  ]) {
    const body = { name: 'x', severity: 'info', condition: wrong };
    t.equal((await call('POST', '/api/v1/alerts/rules', { token, body })).status, 400, JSON.stringify(wrong));
  }
});

/** A database with one robot, where nobody else looks: what is raised and cleared in it, the test alone does. */
async function openQuiet(t: Test): Promise<{ database: Database; store: SqlAlertStore; robotPk: number }> {
  const ground = await openGround();
  t.teardown(() => ground.close());
  const { robot } = await ground.robot('default', 'RB-6');
  return { database: ground.database, store: new SqlAlertStore(ground.database), robotPk: robot.robotPk };
}

t.test('time alone raises what is away and silent, once for each spell', async (t) => {
  const { database, store, robotPk } = await openQuiet(t);
  await database.query(
    `insert into latest_sample (robot_pk, stream, kind, recorded_at, ingested_at, body)
     values ($1, 's', 'power', now(), now(), ''::bytea)`,
    [robotPk],
  );
  const nowMs = systemClock.epochMs();
  const rules = DEFAULT_RULES.filter(({ condition }) => condition.kind === 'offline' || condition.kind === 'no_data');
  const sweep = async (atMs: number): Promise<string[]> =>
    (
      await store.sweep(
        rules.map((rule) => ({ tenantId: 'default', rule })),
        atMs,
      )
    )
      .map(({ alert, change }) => `${alert.ruleId} ${change}`)
      .sort();
  const present = (presence: string, atMs: number) =>
    database.query(
      `insert into robot_presence (robot_pk, presence, boot_id, changed_at, last_seen_at)
       values ($1, $2, 'b', to_timestamp($3::float8 / 1000), to_timestamp($3::float8 / 1000))
       on conflict (robot_pk) do update set presence = $2, boot_id = 'b', changed_at = excluded.changed_at`,
      [robotPk, presence, atMs],
    );
  await present('CONNECTION_BROKEN', nowMs);
  t.same(await sweep(nowMs + 59_000), []);
  t.same(await sweep(nowMs + 60_000), ['robot-offline raised']);
  t.same(await sweep(nowMs + 61_000), []);
  const [open] = await store.query('default', { ruleIds: ['robot-offline'], limit: 5 });
  t.equal(open?.raisedAt, nowMs + 60_000, 'as of when it had been away for long enough');
  const alertIds = [open?.alertId ?? ''];
  await store.act({ change: 'cleared', tenantId: 'default', alertIds, actor: 'ann', notes: '', nowMs });
  t.same(await sweep(nowMs + 62_000), [], 'a person closed it, and it is still the same spell');
  await present('ONLINE', nowMs + 70_000);
  await present('CONNECTION_BROKEN', nowMs + 80_000);
  t.same(await sweep(nowMs + 150_000), ['robot-offline raised'], 'another spell');
  await present('ONLINE', nowMs + 160_000);
  t.same(await sweep(nowMs + 165_000), [], 'not for long enough yet');
  t.same(await sweep(nowMs + 171_000), ['robot-offline cleared']);
  t.same(await sweep(nowMs + 400_000), ['no-data raised'], 'it is there and says nothing');
  await database.query('update latest_sample set ingested_at = to_timestamp($2::float8 / 1000) where robot_pk = $1', [
    robotPk,
    nowMs + 410_000,
  ]);
  t.same(await sweep(nowMs + 411_000), ['no-data cleared']);
});

t.test('an anomaly stands for as long as the analyser says so, and its words may be anything', async (t) => {
  const { database, store, robotPk } = await openQuiet(t);
  const nowMs = systemClock.epochMs();
  const rules = DEFAULT_RULES.filter(({ condition }) => condition.kind === 'anomaly');
  const sweep = async (value: unknown, atMs: number): Promise<string[]> => {
    await database.query(
      `insert into robot_shadow (robot_pk, key, at, ingested_at, value)
       values ($1, 'health', to_timestamp($2::float8 / 1000), now(), $3::text::jsonb)
       on conflict (robot_pk, key) do update set at = excluded.at, value = excluded.value`,
      [robotPk, atMs, JSON.stringify(value)],
    );
    const news = await store.sweep(
      rules.map((rule) => ({ tenantId: 'default', rule })),
      atMs,
    );
    return news.map(({ alert, change }) => `${alert.ruleId} ${change}`);
  };
  for (const odd of [7, 'x', null, {}, { alarm_since_ms: 'soon' }, { alarm_since_ms: 1e300 }, { alarm_since_ms: -1 }])
    t.same(await sweep(odd, nowMs), [], JSON.stringify(odd));
  t.same(await sweep({ alarm_since_ms: null, risk_level: 'low' }, nowMs), []);
  t.same(await sweep({ alarm_since_ms: nowMs, risk_level: 'high' }, nowMs + 1000), ['anomaly raised']);
  t.same(await sweep({ alarm_since_ms: nowMs, risk_level: 'high' }, nowMs + 2000), []);
  t.same(await sweep({ alarm_since_ms: null, risk_level: 'low' }, nowMs + 59_000), [], 'not for long enough yet');
  t.same(await sweep({ alarm_since_ms: null, risk_level: 'low' }, nowMs + 61_000), ['anomaly cleared']);
});

t.test('a webhook is told of a raise, signed, and its secret is in no table', async (t) => {
  const got: { headers: Record<string, string>; body: string }[] = [];
  const { certificatePem: cert, privateKeyPem: key } = await harness.authority.serverCertificate([]);
  let refusals = 1;
  const server = createServer({ cert, key }, (request, answer) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      got.push({ headers: request.headers as Record<string, string>, body: Buffer.concat(chunks).toString() });
      answer.writeHead(refusals > 0 ? 503 : 204).end();
      refusals -= 1;
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}/in`;
  const made = await call('POST', '/api/v1/alerts/webhooks', { token, body: { url, severities: ['critical'] } });
  t.equal(made.status, 201, made.text);
  const { webhook_id, secret } = made.json as unknown as { webhook_id: string; secret: string };
  t.match(secret, /^whsec_/);
  t.notOk((await call('GET', '/api/v1/alerts/webhooks', { token })).text.includes('whsec_'), 'shown once');
  const [row] = await database.query<{ secret: string }>('select secret from alert_webhook where webhook_id = $1', [
    webhook_id,
  ]);
  t.notOk(row?.secret.includes(secret.slice(6)), 'sealed');
  for (const [method, path] of [
    ['GET', ''],
    ['POST', '/test'],
    ['GET', '/deliveries'],
    ['DELETE', ''],
  ] as const)
    t.equal((await call(method, `/api/v1/alerts/webhooks/${webhook_id}${path}`, { token: other })).status, 404);

  const robot = await refOf('RB-7');
  await storeEvent(robot, 'failsafe.triggered.v1', STOP);
  await until(
    async () => got.length,
    (count) => count >= 1,
  );
  // The first attempt was refused. Its second is due in seconds: make it due now.
  await until(
    () => database.query(`select 1 from webhook_delivery where webhook_id = $1 and last_status = 503`, [webhook_id]),
    (rows) => rows.length === 1,
  );
  await database.query(`update webhook_delivery set due_at = now() where webhook_id = $1`, [webhook_id]);
  await until(
    async () => got.length,
    (count) => count >= 2,
  );
  const [first, second] = got;
  t.ok(first && second);
  if (!first || !second) return;
  t.equal(first.headers['webhook-id'], second.headers['webhook-id'], 'the same id for both attempts');
  t.equal(first.body, second.body);
  const body = new Verifier(secret).verify(second.body, second.headers);
  t.match(body, {
    type: 'alert.raised',
    data: { tenant_id: 'default', alert: { robot_id: 'RB-7', rule_id: 'failsafe-latched' } },
  });
  t.throws(() => new Verifier(secret).verify(`${second.body} `, second.headers), 'a changed body does not pass');
  t.equal((await call('POST', `/api/v1/alerts/webhooks/${webhook_id}/test`, { token })).status, 202);
  await until(
    async () => got.length,
    (count) => count >= 3,
  );
  const log = await until(
    async () =>
      (
        (await call('GET', `/api/v1/alerts/webhooks/${webhook_id}/deliveries`, { token })).json as unknown as {
          deliveries: { type: string; state: string; attempts: number; last_status: number }[];
        }
      ).deliveries,
    (deliveries) => deliveries.every(({ state }) => state === 'delivered'),
  );
  t.match(log, [
    { type: 'alert.test', state: 'delivered', attempts: 1, last_status: 204 },
    { type: 'alert.raised', state: 'delivered', attempts: 2, last_status: 204 },
  ]);
});
