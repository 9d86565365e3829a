import 'reflect-metadata';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { type AddressInfo, connect } from 'node:net';
import { createLogger } from '@outrider/shared/log';
import { systemClock } from '@outrider/shared/time';
import { Webhook as Verifier } from 'standardwebhooks';
import t from 'tap';
import { createAuthority, exportKey, generateKeyPair, loadSigner, signLeaf, validFor } from '../certificates/x509.ts';
import { isPublicAddress } from './addresses.ts';
import { Egress, EgressError } from './egress.ts';
import type { AttemptResult, ClaimedDelivery } from './ports.ts';
import { ATTEMPTS_MAX, retryDelayMs, WebhookSender } from './webhook-sender.ts';

const log = createLogger('test', 'silent');
const validity = validFor(systemClock.epochMs(), 3_600_000);
const authority = await createAuthority('test', validity);
const keys = await generateKeyPair();
const leaf = await signLeaf(await loadSigner(authority), {
  commonName: 'receiver',
  publicKey: keys.publicKey,
  validity,
  usage: 'server',
  hosts: ['hook.test'],
});
const cert = leaf.toString('pem');
const key = await exportKey(keys.privateKey);

type Handler = (request: IncomingMessage, answer: ServerResponse) => void;
const portOf = (server: Server): number => (server.address() as AddressInfo).port;

/** A receiver over TLS under the name hook.test. */
async function receiver(handler: Handler): Promise<{ url: string; port: number; close(): Promise<void> }> {
  const server = createTlsServer({ cert, key }, handler);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `https://hook.test:${portOf(server)}/in`,
    port: portOf(server),
    async close() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

const toLoopback = async () => [{ address: '127.0.0.1', family: 4 }];
const trusting = (more: { timeoutMs?: number } = {}) =>
  new Egress({ allowPrivate: true, ca: authority.certificatePem, lookup: toLoopback, ...more });

t.test('no address that is not the public internet is one, however it is written', async (t) => {
  for (const address of ['8.8.8.8', '1.1.1.1', '100.63.255.255', '172.32.0.1', '2606:4700:4700::1111', '2a00::1'])
    t.ok(isPublicAddress(address), address);
  for (const address of [
    ...['0.0.0.0', '0.1.2.3', '10.1.2.3', '100.64.0.1', '127.0.0.1', '127.255.0.1', '169.254.169.254', '172.16.0.1'],
    ...['172.31.255.255', '192.0.0.1', '192.0.2.1', '192.168.1.1', '198.18.0.1', '203.0.113.1', '224.0.0.1'],
    ...['240.0.0.1', '255.255.255.255', '::', '::1', '::ffff:8.8.8.8', '::ffff:127.0.0.1', '::127.0.0.1'],
    ...['64:ff9b::7f00:1', '64:ff9b:1::1', 'fe80::1', 'fe80::1%lo', 'fc00::1', 'fd12::1', 'fec0::1', 'ff02::1'],
    ...['2001:db8::1', '2001::1', '2002:7f00:1::1', '3fff::1', '100::1', 'localhost', ''],
  ])
    t.notOk(isPublicAddress(address), address);
});

t.test('nothing that a caller writes as a URL reaches this machine', async (t) => {
  let hits = 0;
  const canary = createServer((_request, answer) => {
    hits += 1;
    answer.end();
  });
  canary.on('connection', () => {
    hits += 1;
  });
  canary.listen(0, '::');
  await once(canary, 'listening');
  const port = portOf(canary);
  // The canary sings: a listener that nothing can reach would prove nothing.
  const probe = connect(port, '127.0.0.1');
  await once(probe, 'connect');
  probe.destroy();
  while (hits === 0) await new Promise((resolve) => setImmediate(resolve));
  hits = 0;

  const names: Record<string, string[]> = {
    'private.test': ['10.0.0.8'],
    'loop.test': ['127.0.0.1'],
    'loop6.test': ['::1'],
    'mapped.test': ['::ffff:127.0.0.1'],
    'mixed.test': ['8.8.8.8', '127.0.0.1'],
    'nat64.test': ['64:ff9b::7f00:1'],
    'metadata.test': ['169.254.169.254'],
  };
  const asked: string[] = [];
  const egress = new Egress({
    allowPrivate: false,
    lookup: async (name) => {
      asked.push(name);
      return (names[name] ?? []).map((address) => ({ address, family: address.includes(':') ? 6 : 4 }));
    },
  });
  const urls = [
    `http://127.0.0.1:${port}/`,
    `http://hook.test:${port}/`,
    ...['127.0.0.1', '127.1', '0x7f000001', '2130706433', '0177.0.0.1', '0', '127.0.0.1.', '①②⑦.0.0.1'].map(
      (host) => `https://${host}:${port}/`,
    ),
    ...['[::1]', '[::]', '[::ffff:127.0.0.1]', '[::ffff:7f00:1]', '[64:ff9b::127.0.0.1]', '[fe80::1]'].map(
      (host) => `https://${host}:${port}/`,
    ),
    ...['localhost', 'LOCALHOST', 'a.localhost', 'localhost.', 'db.internal', 'printer.local'].map(
      (host) => `https://${host}:${port}/`,
    ),
    ...Object.keys(names).map((host) => `https://${host}:${port}/`),
    `https://user:pass@8.8.8.8:${port}/`,
    `ftp://127.0.0.1:${port}/`,
    'file:///etc/passwd',
    'unix:///run/x.sock',
    'https://',
    'not a url',
  ];
  for (const url of urls) {
    const failure = await egress.post(url, {}, '{}').then(
      () => undefined,
      (error: unknown) => error,
    );
    t.ok(failure instanceof EgressError && failure.isRefusal, `${url}: ${String(failure)}`);
  }
  for (const url of urls.filter((one) => !one.includes('.test'))) t.throws(() => egress.checkUrl(url, 'url'), /url /);
  t.equal(hits, 0, 'the canary was not touched');

  // A name that was fine yesterday: it is resolved again for each delivery, and the address that was checked is used.
  const before = asked.length;
  for (let i = 0; i < 2; i += 1)
    await t.rejects(egress.post(`https://loop.test:${port}/`, {}, '{}'), /private address/);
  t.equal(asked.length, before + 2);
  canary.close();
});

t.test('the name is asked once, the certificate is for the name, and nothing else is trusted', async (t) => {
  const seen: (string | undefined)[] = [];
  const target = await receiver((request, answer) => {
    seen.push(request.headers.host);
    answer.end('thank you');
  });
  let lookups = 0;
  const ca = authority.certificatePem;
  const lookup = async () => {
    lookups += 1;
    return toLoopback();
  };
  const egress = new Egress({ allowPrivate: true, ca, lookup });
  t.same(await egress.post(target.url, {}, '{}'), { status: 200, body: 'thank you' });
  t.equal(lookups, 1);
  t.same(seen, [`hook.test:${target.port}`]);
  await t.rejects(egress.post(`https://other.test:${target.port}/`, {}, '{}'), /altnames|certificate/i);
  await t.rejects(new Egress({ allowPrivate: true, lookup }).post(target.url, {}, '{}'), /certificate/i);
  t.equal(seen.length, 1);
  await target.close();
});

t.test('receivers that are slow, huge, or point elsewhere are failures, soon', async (t) => {
  let elsewhere = 0;
  const other = await receiver((_request, answer) => {
    elsewhere += 1;
    answer.end();
  });
  const bad = await receiver((request, answer) => {
    if (request.url === '/redirect') answer.writeHead(302, { location: other.url }).end();
    else if (request.url === '/claims') answer.writeHead(200, { 'content-length': `${2 ** 30}` }).write('x');
    else if (request.url === '/huge') {
      const more = (): boolean => answer.write(Buffer.alloc(64 * 1024));
      answer.on('drain', more);
      more();
    } else if (request.url === '/large') answer.end(Buffer.alloc(200 * 1024, 0x61));
    else if (request.url === '/drip') answer.writeHead(200).write('x');
    // Everything else never answers.
  });
  const at = (path: string): string => bad.url.replace('/in', path);
  const egress = trusting();
  const hasty = trusting({ timeoutMs: 150 });
  t.equal((await egress.post(at('/redirect'), {}, '{}')).status, 302, 'not followed');
  t.equal(elsewhere, 0);
  await t.rejects(egress.post(at('/claims'), {}, '{}'), /larger than/);
  await t.rejects(egress.post(at('/huge'), {}, '{}'), /larger than/);
  t.equal((await egress.post(at('/large'), {}, '{}')).body.length, 64 * 1024, 'at most 64 KiB is kept');
  await t.rejects(hasty.post(at('/drip'), {}, '{}'), /no answer within|abort/);
  await t.rejects(hasty.post(at('/silent'), {}, '{}'), /no answer within/);
  await Promise.all([bad.close(), other.close()]);
});

t.test('a delivery is signed, tried again later under the same id, and given up in the end', async (t) => {
  const secret = `whsec_${Buffer.alloc(32, 7).toString('base64')}`;
  const answers = [500, 204];
  const got: { id: string | undefined; body: string; verified: boolean }[] = [];
  const target = await receiver((request, answer) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const body = Buffer.concat(chunks).toString();
      let verified = true;
      try {
        new Verifier(secret).verify(body, request.headers as Record<string, string>);
      } catch {
        verified = false;
      }
      got.push({ id: request.headers['webhook-id'] as string | undefined, body, verified });
      answer.writeHead(answers.shift() ?? 503).end();
    });
  });
  let queue: ClaimedDelivery[] = [];
  const results: AttemptResult[] = [];
  const sender = new WebhookSender({
    store: {
      claim: async () => queue.splice(0),
      settle: async (some: readonly AttemptResult[]) => {
        results.push(...some);
      },
    } as unknown as ConstructorParameters<typeof WebhookSender>[0]['store'],
    egress: trusting(),
    openSecret: () => secret,
    clock: systemClock,
    log,
    random: () => 0,
  });
  const delivery = { deliveryId: 'msg_1', webhookId: 'whk_1', url: target.url, sealedSecret: 'x', body: '{"a":1}' };
  queue = [{ ...delivery, attempts: 1 }];
  await sender.sendDue();
  t.match(results[0], { state: 'pending', status: 500 });
  t.ok((results[0]?.dueMs ?? 0) > systemClock.epochMs(), 'later');
  queue = [{ ...delivery, attempts: 2 }];
  await sender.sendDue();
  t.match(results[1], { state: 'delivered', status: 204 });
  t.same(got, [
    { id: 'msg_1', body: '{"a":1}', verified: true },
    { id: 'msg_1', body: '{"a":1}', verified: true },
  ]);
  queue = [{ ...delivery, attempts: ATTEMPTS_MAX }];
  await sender.sendDue();
  t.match(results[2], { state: 'dead', status: 503, error: 'the receiver answered 503' });
  await target.close();
  queue = [{ ...delivery, attempts: 1 }];
  await sender.sendDue();
  t.match(results[3], { state: 'pending', error: /ECONNREFUSED/ });
});

t.test('a receiver that never answers holds up nobody else', async (t) => {
  let isHanging = false;
  const silent = await receiver(() => {
    isHanging = true;
  });
  const quick = await receiver((_request, answer) => answer.writeHead(204).end());
  const delivery = { sealedSecret: 'x', body: '{}', attempts: 1 };
  let queue: ClaimedDelivery[] = [
    { ...delivery, deliveryId: 'msg_1', webhookId: 'whk_silent', url: silent.url },
    { ...delivery, deliveryId: 'msg_2', webhookId: 'whk_quick', url: quick.url },
  ];
  const busyAtClaim: (readonly string[])[] = [];
  const results: AttemptResult[] = [];
  const sender = new WebhookSender({
    store: {
      async claim(_now: number, _hold: number, _limit: number, _per: number, busy: readonly string[]) {
        busyAtClaim.push(busy);
        return queue.splice(0);
      },
      settle: async (some: readonly AttemptResult[]) => {
        results.push(...some);
      },
      removeEnded: async () => undefined,
    } as unknown as ConstructorParameters<typeof WebhookSender>[0]['store'],
    egress: trusting({ timeoutMs: 60_000 }),
    openSecret: () => `whsec_${Buffer.alloc(32).toString('base64')}`,
    clock: systemClock,
    log,
  });
  const stop = new AbortController();
  const running = sender.run(stop.signal);
  const settled = async (count: number): Promise<void> => {
    while (results.length < count || !isHanging) await new Promise((resolve) => setTimeout(resolve, 5));
  };
  await settled(1);
  queue = [{ ...delivery, deliveryId: 'msg_3', webhookId: 'whk_quick', url: quick.url }];
  sender.wake();
  await settled(2);
  t.same(
    results.map(({ deliveryId, state }) => `${deliveryId} ${state}`),
    ['msg_2 delivered', 'msg_3 delivered'],
  );
  t.ok(
    busyAtClaim.some((busy) => busy.includes('whk_silent') && !busy.includes('whk_quick')),
    'nothing more is taken for the one that hangs',
  );
  await silent.close();
  stop.abort();
  await running;
  t.match(results[2], { deliveryId: 'msg_1', state: 'pending' }, 'what was under way at the stop is written down');
  await quick.close();
});

t.test('delays double up to a limit, and are drawn apart', async (t) => {
  t.same(
    [1, 2, 3, 30].map((attempts) => retryDelayMs(attempts, () => 1)),
    [5_000, 10_000, 20_000, 14_400_000],
  );
  t.equal(
    retryDelayMs(1, () => 0),
    2_500,
  );
});
