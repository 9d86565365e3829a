import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import t from 'tap';
import { describeRobot, startHarness } from './api-harness.ts';

const harness = await startHarness();
const { call } = harness;
const token = await harness.token('default');
t.teardown(() => harness.close());

const folder = t.testdir();
const csrOf = (robotId: string): string => {
  const subject = ['-subj', `/CN=default.${robotId}`];
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', join(folder, robotId)];
  return execFileSync('openssl', ['req', '-new', ...key, ...subject], {
    stdio: ['ignore', 'pipe', 'ignore'],
  }).toString();
};
async function register(robotId: string): Promise<string> {
  const answer = await call('POST', '/v1/robots', { token, body: describeRobot(robotId) });
  return (answer.json as unknown as { data: { api_key: string } }).data.api_key;
}
const certify = (robotId: string, apiKey: string) =>
  call('POST', `/v1/robots/${robotId}/certificates`, {
    headers: { 'x-api-key': apiKey },
    body: { csr: csrOf(robotId) },
  });
type Listed = { data: { certificates: { serial_number: string; revoked_at: string | null }[] } };
const listed = async (robotId: string) =>
  ((await call('GET', `/v1/robots/${robotId}/certificates`, { token })).json as unknown as Listed).data.certificates;

t.test('one certificate is taken back: its session ends, the other stays', async (t) => {
  const ended: string[] = [];
  harness.certificates.onRevoked((_pk, device) => ended.push(device.robotId));
  const apiKey = await register('RB-1');
  t.equal((await certify('RB-1', apiKey)).status, 201);
  t.equal((await certify('RB-1', apiKey)).status, 201);
  const [newest, oldest] = await listed('RB-1');
  t.match([newest?.revoked_at, oldest?.revoked_at], [null, null]);
  const path = `/v1/robots/RB-1/certificates/${oldest?.serial_number}`;
  t.equal((await call('DELETE', path, { headers: { 'x-api-key': apiKey } })).status, 403, 'not by the robot itself');
  t.equal((await call('DELETE', path, { token: await harness.token('default', ['robot:write']) })).status, 403);
  t.equal((await call('DELETE', path, { token })).status, 204);
  t.same(ended, ['RB-1'], 'the broker heard of it');
  const after = await listed('RB-1');
  t.equal(after.find((each) => each.serial_number === newest?.serial_number)?.revoked_at, null);
  t.ok(after.find((each) => each.serial_number === oldest?.serial_number)?.revoked_at);
  t.equal((await call('DELETE', '/v1/robots/RB-1/certificates/ff', { token })).status, 404);
  t.equal((await call('DELETE', '/v1/robots/RB-1/certificates/xyz', { token })).status, 422);
});

t.test('a robot that has left the fleet has nothing left to come back with, and its id is free', async (t) => {
  const apiKey = await register('RB-2');
  t.equal((await certify('RB-2', apiKey)).status, 201);
  const [held] = await listed('RB-2');
  t.equal((await call('DELETE', '/v1/robots/RB-2', { token: await harness.token('other') })).status, 404);
  t.equal((await call('DELETE', '/v1/robots/RB-2', { token })).status, 204);
  t.equal((await call('GET', '/v1/robots/RB-2', { token })).status, 404);
  t.equal((await call('DELETE', '/v1/robots/RB-2', { token })).status, 404);
  const revoked = await harness.database.query(
    'select 1 from robot_certificate where serial_number = $1 and revoked_at is not null',
    [held?.serial_number],
  );
  t.equal(revoked.length, 1);
  t.not((await certify('RB-2', apiKey)).status, 201, 'its key certifies nothing any more');
  const again = await register('RB-2');
  t.not(again, apiKey);
  t.same(await listed('RB-2'), [], 'another robot of the same name inherits no certificate');
  const trail = await harness.database.query<{ action: string }>(
    "select action from audit_entry where details->>'robot_id' = 'RB-2' order by audit_id",
  );
  t.match(
    trail.map(({ action }) => action),
    ['robot.register', 'robot.deregister', 'robot.register'],
  );
});
