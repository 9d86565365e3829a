import 'reflect-metadata';
import * as x509 from '@peculiar/x509';
import { createConfig, lintFromString } from '@redocly/openapi-core';
import t from 'tap';
import { generateKeyPair } from '../src/certificates/x509.ts';
import { until } from '../src/testing/engines.ts';
import { describeRobot, startHarness } from './api-harness.ts';
import { type DocumentedOperation, OpenApiChecker } from './openapi-checker.ts';

/** Rules of the linter's recommended set that say nothing here, and why. */
const LINT_RULES = {
  // Probes and pages that take nothing cannot be asked wrongly.
  'operation-4xx-response': 'off',
} as const;

/** What robots send as files needs a folder, which this server has not; its own tests hold it to what it answers. */
const NEEDS_FILES = /BlackBox/;

const harness = await startHarness({ answerTimeoutMs: 300, recoverTimeoutMs: 300 });
t.teardown(() => harness.close());
const admin = await harness.token('default');
const nobody = await harness.token('default', ['work:read']);
const document: unknown = (await harness.call('GET', '/openapi.json')).json;

t.test('a linter finds no fault in the document', async (t) => {
  const config = await createConfig({ extends: ['recommended'], rules: LINT_RULES });
  const found = await lintFromString({ source: JSON.stringify(document), config });
  const told = found.map(({ ruleId, severity, message, location }) => ({
    ruleId,
    severity,
    message,
    at: location[0]?.pointer,
  }));
  t.same(told, []);
  const broken = structuredClone(document) as { paths: Record<string, unknown> };
  broken.paths['/broken/{id}'] = { get: { responses: { 200: {} } } };
  const faults = await lintFromString({ source: JSON.stringify(broken), config });
  t.ok(faults.length >= 3, 'and would find one');
});

t.test('every operation answers as the document says, when it is asked well and when it is not', async (t) => {
  const checker = new OpenApiChecker(document);
  const keys = await generateKeyPair();
  const csr = await x509.Pkcs10CertificateRequestGenerator.create({
    name: 'CN=any',
    keys,
    signingAlgorithm: { name: 'ECDSA', hash: 'SHA-256' },
  });
  const { accounts } = harness.identity;
  const clientSecret = await accounts.createClient({ clientId: 'walker', tenantId: 'default' });
  const password = await accounts.createUser({ username: 'walker', tenantId: 'default' });
  const spare = await harness.token('default');
  /** Ids out of answers, by the name of the path parameter that takes them. */
  const made = new Map<string, string>([['robot_id', 'RB-1']]);

  const ask = async (
    operation: DocumentedOperation,
    options: {
      token?: string;
      body?: unknown;
      query?: string;
      headers?: Record<string, string>;
      path?: Record<string, string>;
    },
  ): Promise<{ status: number; text: string }> => {
    const path = operation.path.replaceAll(/\{(\w+)\}/g, (_, name: string) =>
      encodeURIComponent(options.path?.[name] ?? made.get(name) ?? 'none'),
    );
    const stop = new AbortController();
    const reply = await fetch(`${harness.url}${path}${options.query ? `?${options.query}` : ''}`, {
      method: operation.method,
      signal: stop.signal,
      headers: {
        ...(options.token === undefined ? {} : { authorization: `Bearer ${options.token}` }),
        ...(options.body === undefined ? {} : { 'content-type': 'application/json' }),
        ...options.headers,
      },
      ...(options.body === undefined
        ? {}
        : { body: typeof options.body === 'string' ? options.body : JSON.stringify(options.body) }),
    });
    const contentType = reply.headers.get('content-type') ?? '';
    const isStream = contentType.startsWith('text/event-stream');
    const text = isStream ? '' : await reply.text();
    if (isStream) stop.abort();
    const body: unknown = contentType.startsWith('application/json') ? JSON.parse(text) : undefined;
    const { method } = operation;
    const faults = checker.check({ method, path: operation.path, status: reply.status, contentType, body });
    if (faults.length > 0) t.fail(faults.join('\n'));
    remember(body, made);
    return { status: reply.status, text };
  };

  const registered = await harness.call('POST', '/v1/robots', { token: admin, body: describeRobot('RB-1') });
  const robotKey = String((registered.json as unknown as { data: { api_key: string } }).data.api_key);
  harness.bus.online.add('default.RB-1');
  harness.bus.answer = () => ({ done: true, latchId: 1, detail: 'done', outcome: 'done', motionEpoch: 1 });
  await harness.database.query(
    `insert into robot_shadow (robot_pk, key, at, ingested_at, value)
     select robot_pk, 'failsafe', now(), now(), '{"phase":"ARMED","latch_id":1,"motion_epoch":0}' from robot`,
  );
  const hot = { robot_id: 'RB-1', timestamp: new Date().toISOString(), thermal: { motor_max_c: 99 } };
  await harness.call('POST', '/api/v1/telemetry/events', { token: admin, body: hot });
  await until(async () => {
    remember((await harness.call('GET', '/api/v1/alerts', { token: admin })).json, made);
    return made.has('alert_id');
  }, 'an alert');

  const day = 'start_time=2026-01-11T00:00:00Z&end_time=2026-01-12T00:00:00Z';
  const alert = () => ({ body: { alert_id: made.get('alert_id'), notes: 'seen' } });
  /** How operations are asked so that they succeed, where more than an administrator's token is needed. */
  const recipes: Readonly<Record<string, () => Omit<Parameters<typeof ask>[1], 'token'> & { token?: string }>> = {
    issueToken: () => ({
      body: { client_id: 'walker', client_secret: clientSecret, grant_type: 'client_credentials' },
    }),
    login: () => ({ body: { username: 'walker', password } }),
    registerRobot: () => ({ body: describeRobot('RB-NEW') }),
    deregisterRobot: () => ({ path: { robot_id: 'RB-NEW' } }),
    issueRobotCertificate: () => ({ token: robotKey, body: { csr: csr.toString('pem') } }),
    ingestTelemetry: () => ({ body: { robot_id: 'RB-1', timestamp: '2026-01-11T05:12:00Z', flags: ['nominal'] } }),
    exportTelemetry: () => ({ query: 'stream=api/diagnostics' }),
    getRobotStateHistory: () => ({ query: day }),
    triggerFailsafe: () => ({ body: { mode: 'mechanical_lock' } }),
    recoverFailsafe: () => ({ body: { latch_id: 1, reason: 'clear' } }),
    dispatchCommand: () => ({ body: { command: 'hold' } }),
    acknowledgeAlerts: alert,
    unacknowledgeAlerts: alert,
    clearAlerts: alert,
    createAlertRule: () => ({
      body: {
        name: 'Battery low',
        severity: 'warning',
        condition: {
          kind: 'threshold',
          signal: { kind: 'power', field: 'state_of_charge' },
          operator: '<',
          value: 0.2,
        },
      },
    }),
    changeAlertRule: () => ({ body: { enabled: false } }),
    createWebhook: () => ({ body: { url: 'https://hooks.outrider.invalid/events' } }),
    changeWebhook: () => ({ body: { enabled: false } }),
    revokeToken: () => ({ token: spare }),
    streamDashboard: () => ({ headers: { accept: 'text/event-stream' } }),
    docsFile: () => ({ path: { file: 'start.js' } }),
    eventSchema: () => ({ path: { file: 'telemetry.ingested.v1.json' } }),
  };
  const isMaking = ({ operationId }: DocumentedOperation): boolean =>
    /^(register|create|dispatch|issue)/.test(operationId);
  const isEnding = ({ operationId }: DocumentedOperation): boolean =>
    /^(cancel|remove|deregister|revoke)/.test(operationId);
  const order = [
    ...checker.operations.filter(isMaking),
    ...checker.operations.filter((each) => !isMaking(each) && !isEnding(each)),
    ...checker.operations.filter(isEnding),
  ];
  t.equal(order.length, checker.operations.length);

  for (const operation of checker.operations) {
    const { operationId, security } = operation;
    const { path } = recipes[operationId]?.() ?? {};
    if (security.length > 0) {
      t.equal((await ask(operation, {})).status, 401, `${operationId} without a token`);
      // Anybody may take their own token back.
      if (operationId !== 'revokeToken')
        t.equal((await ask(operation, { token: nobody })).status, 403, `${operationId} without a scope`);
    }
    for (const [, name = ''] of operation.path.matchAll(/\{(\w+)\}/g)) {
      const wrong = { ...path, [name]: 'no_such_thing' };
      const token = operationId === 'issueRobotCertificate' ? robotKey : admin;
      const body = recipes[operationId]?.().body;
      const query = recipes[operationId]?.().query;
      const status = (await ask(operation, { token, path: wrong, body, ...(query ? { query } : {}) })).status;
      t.ok([400, 403, 404, 422].includes(status), `${operationId} without its ${name} is ${status}`);
    }
    if (operation.hasBody) {
      const token = operationId === 'issueRobotCertificate' ? robotKey : admin;
      for (const body of ['{', '{"no_such_field":1}', '[]', `{"x":"${'x'.repeat(5 * 1024 * 1024)}"}`]) {
        const { status } = await ask(operation, { token, body });
        t.ok([400, 413, 422].includes(status), `${operationId} with ${body.slice(0, 20)} is ${status}`);
      }
    }
    if (operation.method === 'GET') await ask(operation, { token: admin, query: 'no_such_parameter=1' });
  }
  for (const operation of order) {
    const { operationId } = operation;
    const { status, text } = await ask(operation, { token: admin, ...recipes[operationId]?.() });
    if (!NEEDS_FILES.test(operationId))
      t.ok(status < 300, `${operationId} is ${status} ${status < 300 ? '' : text.slice(0, 200)}`);
  }
  await harness.database.close();
  for (const operation of order)
    await ask(operation, { token: admin, ...recipes[operation.operationId]?.() }).catch((error: unknown) => {
      // An export that has begun can only be broken off.
      if (operation.operationId !== 'exportTelemetry') throw error;
    });
  t.same([...checker.problems], [], 'nothing that is not documented');
  const unseen = checker.operations.flatMap(({ operationId, statuses }) =>
    statuses
      .filter((status) => !checker.seen.has(`${operationId} ${status}`))
      .map((status) => `${operationId} ${status}`),
  );
  t.comment(`documented and not seen here: ${unseen.join(', ')}`);
});

/** Takes the ids out of an answer. The first of a kind stays: it is what the operations are asked about. */
function remember(body: unknown, made: Map<string, string>): void {
  if (Array.isArray(body)) for (const item of body) remember(item, made);
  if (typeof body !== 'object' || body === null) return;
  for (const [key, value] of Object.entries(body)) {
    const isId = ['alert_id', 'command_id', 'rule_id', 'webhook_id', 'serial_number'].includes(key);
    if (isId && typeof value === 'string' && !made.has(key)) made.set(key, value);
    else remember(value, made);
  }
}
