import type { Test } from 'tap';
import { type Answer, describeRobot, EVENT, type Harness } from './api-harness.ts';

const ROBOT_ONLY = /^post .*\/(certificates|chunks)$|^get .*\/blackbox-requests$/;

/** What must hold on every route, taken from the OpenAPI document so that no new route can be forgotten. */
export function contractTests(t: Test, harness: Harness, other: string): void {
  const { call } = harness;
  t.test('another tenant’s robots do not exist, on any route', async (t) => {
    const document = (await call('GET', '/openapi.json')).json as unknown as {
      paths: Record<string, Record<string, { security: unknown[] }>>;
    };
    const routes = Object.entries(document.paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => ({ path, method })),
    );
    const ofRobots = routes.filter(({ path }) => path.includes('{robot_id}'));
    t.ok(ofRobots.length >= 8, `${ofRobots.length} routes name a robot`);
    const key = (
      (await call('POST', '/v1/robots', { token: other, body: describeRobot('RB-8') })).json as unknown as {
        data: { api_key: string };
      }
    ).data.api_key;
    const bodies: Record<string, unknown> = {
      '/failsafe/trigger': { mode: 'emergency_stop' },
      '/chunks': { size: 1, sha256: '0'.repeat(64), offset: 0, data: 'AA==' },
      '/failsafe/recover': { latch_id: 1 },
      '/commands': { command: 'hold' },
      '/certificates': { csr: 'x' },
    };
    for (const { path, method } of ofRobots) {
      const body = Object.entries(bodies).find(([end]) => path.endsWith(end))?.[1];
      const query = path.endsWith('/export') ? '?stream=x' : '';
      const ask = (robotId: string, by: string) =>
        call(method.toUpperCase(), path.replace('{robot_id}', robotId).replaceAll(/\{\w+\}/g, 'ff') + query, {
          token: by,
          ...(body && method !== 'get' ? { body } : {}),
        });
      const foreign = await ask('RB-1', other);
      const absent = await ask('RB-X', other);
      // Some take the robot's own key and nobody else's.
      const expected = ROBOT_ONLY.test(`${method} ${path}`) ? 403 : 404;
      t.equal(foreign.status, expected, `${method} ${path}`);
      t.equal(absent.status, expected, `${method} ${path} of a robot that is not there`);
      const blank = (answer: Answer): string => answer.text.replaceAll(/RB-[1X]|req_\w+|\d{4}-[^"]+Z/g, '*');
      t.equal(blank(foreign), blank(absent), 'the same words for both');
      t.equal((await ask('RB-1', key)).status, 403, `${method} ${path} with the key of another robot`);
    }
    t.equal((await call('POST', '/api/v1/telemetry/events', { token: other, body: EVENT })).status, 404);
    t.equal(
      (
        await call('GET', '/api/v1/dashboard/stream?robot_id=RB-1', {
          token: other,
          headers: { accept: 'text/event-stream' },
        })
      ).status,
      404,
    );
    const listed = await call('GET', '/v1/robots', { token: other });
    t.notOk(listed.text.includes('RB-1'));
    t.equal(harness.bus.sent.length, 0, 'no stop went out');
  });

  t.test('the OpenAPI document and the routes are the same list, and every route says who may call it', async (t) => {
    const document = (await call('GET', '/openapi.json')).json as unknown as {
      openapi: string;
      paths: Record<
        string,
        Record<string, { operationId?: string; security?: Record<string, string[]>[]; responses: object }>
      >;
    };
    t.equal(document.openapi, '3.1.0');
    const documented = Object.entries(document.paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
    );
    const routed = harness.api.app.routes
      .filter(({ method }) => method !== 'ALL')
      .map(({ method, path }) => `${method} ${path.replaceAll(/:(\w+)/g, '{$1}')}`);
    t.same(documented.sort(), routed.sort());
    const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, operation]) => ({ path, method, ...operation })),
    );
    t.equal(
      new Set(operations.map((operation) => operation.operationId)).size,
      operations.length,
      'operation ids are unique',
    );
    for (const { path, method, security } of operations) {
      if ((security ?? []).length === 0) continue;
      const concrete = path.replace('{robot_id}', 'RB-1');
      t.equal((await call(method.toUpperCase(), concrete)).status, 401, `${method} ${path} without a token`);
      const nobody = await harness.token('default', ['work:read']);
      if (path !== '/api/v1/auth/revoke')
        t.equal(
          (await call(method.toUpperCase(), concrete, { token: nobody })).status,
          403,
          `${method} ${path} without a scope`,
        );
    }
  });
}
