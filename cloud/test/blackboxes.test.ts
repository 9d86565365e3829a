import { createHash, randomBytes } from 'node:crypto';
import t from 'tap';
import { FolderFiles } from '../src/storage/files.ts';
import { describeRobot, startHarness } from './api-harness.ts';

const harness = await startHarness();
const { call } = harness;
const token = await harness.token('default');
const foreign = await harness.token('other');
t.teardown(() => harness.close());

async function register(robotId: string): Promise<string> {
  const answer = await call('POST', '/v1/robots', { token, body: describeRobot(robotId) });
  return (answer.json as unknown as { data: { api_key: string } }).data.api_key;
}
const recording = randomBytes(300_000);
const whole = { size: recording.length, sha256: createHash('sha256').update(recording).digest('hex') };
const BOX = '2026-11-20T10-00-00Z-7';

t.test('a recording comes in parts, goes on where it broke off, and is given back as it was', async (t) => {
  const apiKey = await register('RB-1');
  const base = '/api/v1/robots/RB-1/blackboxes';
  const send = (offset: number, bytes: Uint8Array, more: object = {}) =>
    call('POST', `${base}/${BOX}/chunks`, {
      headers: { 'x-api-key': apiKey },
      body: { ...whole, offset, data: Buffer.from(bytes).toString('base64'), ...more },
    });
  t.same((await send(0, new Uint8Array())).json, { received: 0, complete: false });
  t.same((await send(0, recording.subarray(0, 100_000))).json, { received: 100_000, complete: false });
  t.same((await send(0, recording.subarray(0, 100_000))).json, { received: 100_000, complete: false }, 'twice');
  t.same((await send(200_000, recording.subarray(200_000))).json, { received: 100_000, complete: false }, 'a hole');
  t.match((await call('GET', base, { token })).json, { blackboxes: [{ received: 100_000, complete: false }] });
  t.equal((await call('GET', `${base}/${BOX}`, { token })).status, 404, 'not before it is whole');
  t.same((await send(100_000, recording.subarray(100_000))).json, { received: 300_000, complete: true });
  t.same((await send(0, recording.subarray(0, 10))).json, { received: 300_000, complete: true }, 'it stays as it is');
  const response = await fetch(`${harness.url}${base}/${BOX}`, { headers: { authorization: `Bearer ${token}` } });
  t.ok(Buffer.from(await response.arrayBuffer()).equals(recording));

  for (const path of [base, `${base}/${BOX}`])
    t.equal((await call('GET', path, { token: foreign })).status, 404, 'another tenant');
  t.equal((await call('POST', `${base}/${BOX}/request`, { token: foreign })).status, 404);
  t.equal(
    (await call('POST', `${base}/${BOX}/chunks`, { token, body: { ...whole, offset: 0, data: '' } })).status,
    403,
  );
  t.equal((await send(0, new Uint8Array(), { size: -1 })).status, 400);
  const other = await register('RB-2');
  const stolen = { headers: { 'x-api-key': other }, body: { ...whole, offset: 0, data: '' } };
  t.ok([403, 404].includes((await call('POST', `${base}/new/chunks`, stolen)).status), 'another robot');
  for (const id of ['..%2f..%2fsecret', '.hidden', 'a'.repeat(101), 'a.part'])
    t.equal((await call('GET', `${base}/${id}`, { token })).status, 400, id);
});

t.test('what does not have its hash is thrown away; what is wanted is told to the robot', async (t) => {
  const apiKey = await register('RB-3');
  const base = '/api/v1/robots/RB-3';
  const wanted = async (): Promise<unknown> =>
    (await call('GET', `${base}/blackbox-requests`, { headers: { 'x-api-key': apiKey } })).json;
  t.same(await wanted(), { box_ids: [] });
  t.match(await call('POST', `${base}/blackboxes/box-1/request`, { token }), { status: 202, json: { here: false } });
  t.same(await wanted(), { box_ids: ['box-1'] });
  t.equal((await call('GET', `${base}/blackbox-requests`, { token })).status, 403);
  const send = (bytes: Uint8Array, sha256: string) =>
    call('POST', `${base}/blackboxes/box-1/chunks`, {
      headers: { 'x-api-key': apiKey },
      body: { size: 3, sha256, offset: 0, data: Buffer.from(bytes).toString('base64') },
    });
  t.equal((await send(Buffer.from('abd'), createHash('sha256').update('abc').digest('hex'))).status, 400);
  t.match((await send(Buffer.from('abc'), createHash('sha256').update('abc').digest('hex'))).json, { complete: true });
  t.same(await wanted(), { box_ids: [] });
});

t.test('no name leads out of the folder', async (t) => {
  const files = new FolderFiles(t.testdir());
  for (const name of ['../x', 'a/../../x', '/etc/passwd', 'a//b', '', '.', 'a\0b', 'a/.ssh'])
    await t.rejects(files.write(name, new Uint8Array()), { code: 'invalid' }, name);
  await files.writeAt('a/b', 0, Buffer.from('xy'));
  await files.writeAt('a/b', 2, Buffer.from('z'));
  t.equal(Buffer.from((await files.read('a/b')) ?? []).toString(), 'xyz');
});
