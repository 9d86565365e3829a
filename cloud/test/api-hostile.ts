import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { request } from 'node:http';
import { connect } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Test } from 'tap';
import { EVENT, type Harness } from './api-harness.ts';

const FUZZ = new URL('../../../../shared/data/json_fuzz/', import.meta.url);
const skip = existsSync(FUZZ) ? false : 'the files of ../shared/data/json_fuzz are not here';

/** Bytes that nobody means well with, against a running server. */
export function hostileTests(t: Test, harness: Harness, token: string): void {
  const { call } = harness;
  t.test('every JSON of the public suite gets a clear answer', { skip }, async (t) => {
    const folder = fileURLToPath(new URL('JSONTestSuite/', FUZZ));
    const names = readdirSync(folder).filter((name) => name.endsWith('.json'));
    t.ok(names.length > 250, `${names.length} files`);
    const statuses: Record<string, Set<number>> = {};
    for (const name of names) {
      const body = new Uint8Array(readFileSync(join(folder, name)));
      const { status, text } = await call('POST', '/api/v1/telemetry/events', { token, body });
      if (status !== 400 || !text.includes('"INVALID_ARGUMENT"')) t.fail(`${name}: ${status} ${text.slice(0, 100)}`);
      const set = statuses[name.slice(0, 1)] ?? new Set();
      set.add(status);
      statuses[name.slice(0, 1)] = set;
    }
    t.same(Object.keys(statuses).sort(), ['n', 'y']);
    const strings = JSON.parse(readFileSync(new URL('blns.json', FUZZ), 'utf8')) as string[];
    t.ok(strings.length > 400, `${strings.length} strings`);
    for (const text of strings) {
      const asId = await call('POST', '/api/v1/telemetry/events', { token, body: { ...EVENT, robot_id: text } });
      const asPath = await call('GET', `/v1/robots/${encodeURIComponent(text)}/state`, { token });
      const asName = await call('GET', `/v1/robots?type=${encodeURIComponent(text)}`, { token });
      if (![400, 404].includes(asId.status)) t.fail(`id ${text}: ${asId.status}`);
      if (asPath.status < 400 ? !['.', '..', ''].includes(text) : asPath.status >= 500)
        t.fail(`path ${text}: ${asPath.status}`);
      if (![200, 422].includes(asName.status)) t.fail(`type ${text}: ${asName.status} ${asName.text}`);
    }
    t.equal((await call('GET', '/health')).status, 200);
  });

  t.test('sockets that are not HTTP as it should be are closed with an answer', async (t) => {
    const { port } = new URL(harness.url);
    const talk = (bytes: string): Promise<string> =>
      new Promise((resolve, reject) => {
        const socket = connect(Number(port), '127.0.0.1', () => socket.write(bytes));
        let text = '';
        socket.on('data', (chunk) => {
          text += chunk.toString();
          if (/^HTTP\/1\.1 4\d\d/.test(text) && text.includes('\r\n\r\n')) socket.destroy();
        });
        socket.on('close', () => resolve(text.split('\r\n')[0] ?? ''));
        socket.on('error', reject);
      });
    t.match(
      await talk(
        'GET /health HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n\r\n',
      ),
      / 400 /,
      'an upgrade to h2c',
    );
    t.match(
      await talk(
        'POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
      ),
      / 400 /,
      'two lengths',
    );
    t.match(
      await talk(`GET /health HTTP/1.1\r\nHost: a\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`),
      / 431 /,
      'too many header bytes',
    );
    t.match(
      await talk(
        'GET /api/v1/dashboard/stream HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
      ),
      / 401 /,
      'a WebSocket without a token',
    );
  });

  t.test('a body without a length is counted while it comes', async (t) => {
    const status = await new Promise<number | undefined>((resolve, reject) => {
      const upload = request(
        `${harness.url}/v1/robots`,
        { method: 'POST', headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' } },
        (reply) => {
          reply.resume();
          resolve(reply.statusCode);
          upload.destroy();
        },
      );
      upload.on('error', (error: NodeJS.ErrnoException) =>
        error.code === 'ECONNRESET' || error.code === 'EPIPE' ? undefined : reject(error),
      );
      const chunk = Buffer.alloc(64 * 1024, 0x20);
      for (let sent = 0; sent < 10; sent += 1) upload.write(chunk);
      upload.end();
    });
    t.equal(status, 413);
  });
}
