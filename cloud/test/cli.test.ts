import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { connect } from 'node:http2';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { DomainError } from '@outrider/shared/errors';
import t from 'tap';
import { readConfig } from '../src/config.ts';

const PROGRAM = fileURLToPath(new URL('../../bin/outrider-cloud.js', import.meta.url));
const running = new Set<ChildProcess>();
t.teardown(() => {
  for (const child of running) child.kill('SIGKILL');
});

interface Started {
  readonly child: ChildProcess;
  readonly ended: Promise<number | null>;
  output(): string;
}

function start(...args: readonly string[]): Started {
  const { PATH, HOME } = process.env;
  const child = spawn(process.execPath, [PROGRAM, ...args], { env: { PATH, HOME }, stdio: ['ignore', 'pipe', 'pipe'] });
  running.add(child);
  let text = '';
  const take = (chunk: Buffer): void => {
    text += chunk.toString();
  };
  child.stdout.on('data', take);
  child.stderr.on('data', take);
  const ended = new Promise<number | null>((resolve) => {
    child.on('close', (code) => {
      running.delete(child);
      resolve(code);
    });
  });
  return { child, ended, output: () => text };
}

async function fileOf(path: string, started: Started): Promise<Record<string, string>> {
  while (!existsSync(path)) {
    if (started.child.exitCode !== null) throw new Error(started.output());
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return JSON.parse(readFileSync(path, 'utf8')) as Record<string, string>;
}

const PORTS = ['--http-port', '0', '--https-port', '0', '--mqtt-port', '0'];

t.test('serve starts on nothing but a folder, serves, and ends when it is told to', async (t) => {
  const folder = t.testdir();
  const state = join(folder, 'state');
  const readyFile = join(folder, 'ready.json');
  const server = start('serve', '--state-dir', state, '--ready-file', readyFile, ...PORTS);
  const ready = await fileOf(readyFile, server);
  t.match(ready, {
    http_url: /^http:\/\/127\.0\.0\.1:\d+$/,
    https_url: /^https:/,
    mqtt_url: /^mqtts:/,
    grpc_url: /^grpcs:\/\/127\.0\.0\.1:\d+$/,
    ca_file: join(state, 'ca.pem'),
    pid: server.child.pid,
    ca_sha256: /^[0-9a-f]{64}$/,
  });
  const secrets = await fileOf(join(state, 'bootstrap.json'), server);
  t.equal(statSync(join(state, 'bootstrap.json')).mode & 0o777, 0o600);
  const grant = new URLSearchParams({
    grant_type: 'client_credentials',
    client_id: secrets['client_id'] ?? '',
    client_secret: secrets['client_secret'] ?? '',
  });
  const token = await fetch(`${ready['http_url']}/api/v1/auth/token`, { method: 'POST', body: grant });
  t.equal(token.status, 200, 'as a form');
  const login = await fetch(`${ready['http_url']}/v1/auth/login`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ username: secrets['admin_user'], password: secrets['admin_password'] }),
  });
  t.equal(login.status, 200);

  const session = connect(ready['https_url'] ?? '', { ca: readFileSync(ready['ca_file'] ?? '') });
  const health = session.request({ ':path': '/health' });
  health.resume();
  t.equal(
    (await new Promise<Record<string, unknown>>((resolve) => health.on('response', resolve)))[':status'],
    200,
    'HTTP/2 under the written CA',
  );

  const second = start('serve', '--state-dir', state, ...PORTS);
  t.equal(await second.ended, 1, 'a second process in the same folder');
  t.match(second.output(), /^outrider-cloud: .*(in use|locked|another)/m);
  const beside = start('client', 'create', 'x', '--state-dir', state);
  t.equal(await beside.ended, 1);

  server.child.kill('SIGTERM');
  t.equal(await server.ended, 0, 'it ends although a client still holds its connection');
  session.destroy();
  t.match(server.output(), /server\.stopped/);
  for (const secret of [secrets['client_secret'], secrets['admin_password']])
    t.notOk(server.output().includes(secret ?? '?'), 'and has printed no secret');

  const made = start('client', 'create', 'robots-only', '--scope', 'robot:read', '--state-dir', state);
  t.equal(await made.ended, 0, made.output());
  t.match(JSON.parse(made.output()), { client_id: 'robots-only', client_secret: /^ocs_/ });
  const again = start('client', 'create', 'robots-only', '--state-dir', state);
  t.equal(await again.ended, 1);
  t.match(again.output(), /robots-only exists already/);

  const taken = createServer();
  await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve));
  const { port } = taken.address() as { port: number };
  const blocked = start('serve', '--state-dir', state, ...PORTS, '--https-port', String(port));
  t.equal(await blocked.ended, 1);
  t.match(blocked.output(), new RegExp(`port ${port} on 127\\.0\\.0\\.1 is taken: .*--https-port`));
  taken.close();
});

t.test('every verb explains itself', async (t) => {
  const verbs = [
    [],
    ['serve'],
    ['tenant', 'create'],
    ['client', 'create'],
    ['user', 'create'],
    ['broker-config', 'mosquitto'],
  ];
  await Promise.all(
    verbs.map(async (verb) => {
      const help = start(...verb, '--help');
      t.equal(await help.ended, 0, verb.join(' '));
      t.match(help.output(), new RegExp(`Usage: outrider-cloud ${verb.join(' ')}`));
    }),
  );
});

t.test('a wrong setting is named with its option and its variable', async (t) => {
  const refusal = (options: Record<string, unknown>, environment: Record<string, string> = {}): string => {
    try {
      readConfig(options, environment);
    } catch (error) {
      if (error instanceof DomainError) return error.message;
    }
    return 'accepted';
  };
  t.match(refusal({ httpPort: '80a' }), /--http-port \(or HTTP_PORT\)/);
  t.match(refusal({}, { HTTPS_PORT: '70000' }), /--https-port \(or HTTPS_PORT\)/);
  t.match(refusal({ databaseUrl: 'mysql://x' }), /--database-url \(or DATABASE_URL\)/);
  t.match(refusal({ authMode: 'none' }), /--auth-mode \(or AUTH_MODE\)/);
  t.match(refusal({ authMode: 'optional', host: '0.0.0.0' }), /only on a loopback/);
  t.match(refusal({ authMode: 'optional' }, { NODE_ENV: 'production' }), /NODE_ENV=production/);
  t.match(refusal({}, { OUTRIDER_SECRET_KEY: 'short' }), /OUTRIDER_SECRET_KEY/);
  t.equal(refusal({ authMode: 'optional' }), 'accepted');
  t.match(readConfig({ httpPort: '0' }, { HTTP_PORT: '99', HOST: '::1' }), {
    httpPort: 0,
    host: '::1',
    authMode: 'required',
    retentionDays: 30,
  });
});
