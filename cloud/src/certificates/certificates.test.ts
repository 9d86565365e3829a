import 'reflect-metadata';
import { execFileSync } from 'node:child_process';
import { createPrivateKey, createPublicKey, sign, webcrypto, X509Certificate } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createLogger } from '@outrider/shared/log';
import { systemClock } from '@outrider/shared/time';
import * as x509 from '@peculiar/x509';
import t from 'tap';
import { openDatabase } from '../storage/database.ts';
import { openSecretBox, SecretBox } from '../storage/secret-box.ts';
import { CertificateAuthority } from './authority.ts';
import { CertificateRegistry } from './registry.ts';
import { readSigningRequest } from './signing-request.ts';

const log = createLogger('test', 'silent');
const clock = systemClock;

async function requestOf(
  algorithm: webcrypto.RsaHashedKeyGenParams | webcrypto.EcKeyGenParams | webcrypto.Algorithm,
  signing: { name: string; hash?: string },
) {
  const keys = (await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])) as webcrypto.CryptoKeyPair;
  const request = await x509.Pkcs10CertificateRequestGenerator.create({
    name: 'CN=admin',
    keys,
    signingAlgorithm: signing as never,
  });
  return request.toString('pem');
}
const rsa = (modulusLength: number) => ({
  name: 'RSASSA-PKCS1-v1_5',
  hash: 'SHA-256',
  modulusLength,
  publicExponent: new Uint8Array([1, 0, 1]),
});

t.test('only strong keys whose holder signs the request are certified', async (t) => {
  const ecdsa = { name: 'ECDSA', hash: 'SHA-256' };
  for (const csr of [
    await requestOf({ name: 'ECDSA', namedCurve: 'P-256' }, ecdsa),
    await requestOf({ name: 'ECDSA', namedCurve: 'P-384' }, ecdsa),
    await requestOf({ name: 'Ed25519' }, { name: 'Ed25519' }),
    await requestOf(rsa(2048), { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' }),
  ])
    t.ok(await readSigningRequest(csr));
  await t.rejects(readSigningRequest(await requestOf(rsa(1024), { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' })), {
    code: 'invalid',
    message: /2048/,
  });
  await t.rejects(readSigningRequest(await requestOf({ name: 'ECDSA', namedCurve: 'P-521' }, ecdsa)), {
    code: 'invalid',
  });
  const good = await requestOf({ name: 'ECDSA', namedCurve: 'P-256' }, ecdsa);
  const der = Buffer.from(x509.PemConverter.decode(good)[0] as ArrayBuffer);
  der[der.length - 1] = (der.at(-1) as number) ^ 1;
  await t.rejects(readSigningRequest(x509.PemConverter.encode(der, 'CERTIFICATE REQUEST')), {
    code: 'invalid',
    message: /sign/,
  });
  for (const bad of [
    '',
    'x'.repeat(20_000),
    '-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----',
    'null',
  ])
    await t.rejects(readSigningRequest(bad), { code: 'invalid', problems: [{ field: 'csr' }] });
});

t.test('the authority survives a restart, signs what OpenSSL accepts, and takes it back', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'outrider-certificates-'));
  const database = await openDatabase({ dataDir: 'memory://', log, clock });
  t.teardown(async () => {
    await database.close();
    rmSync(folder, { recursive: true, force: true });
  });
  const secrets = await openSecretBox(undefined, folder);
  t.equal(statSync(join(folder, 'secret.key')).mode & 0o777, 0o600);
  const authority = await CertificateAuthority.open({ database, secrets, clock, log });
  const again = await CertificateAuthority.open({
    database,
    secrets: await openSecretBox(undefined, folder),
    clock,
    log,
  });
  t.equal(again.caPem, authority.caPem);
  await t.rejects(
    CertificateAuthority.open({ database, secrets: new SecretBox('another key of at least 32 chars'), clock, log }),
    {
      code: 'internal',
      message: /OUTRIDER_SECRET_KEY/,
    },
  );
  const [row] = await database.query<{ private_key_pem: string }>(
    `select private_key_pem from authority_key where name = 'ca'`,
  );
  t.notMatch(row?.private_key_pem, /PRIVATE/, 'the key is not readable in the database');

  await database.query(`insert into tenant (tenant_id, name) values ('default', 'x')`);
  await database.query(
    `insert into robot (robot_pk, tenant_id, robot_id, robot_name, robot_type) values (7, 'default', 'RB-1', 'x', 'x')`,
  );
  const registry = new CertificateRegistry({ database, authority, clock, log });
  const robot = { robotPk: 7, tenantId: 'default', robotId: 'RB-1' };
  const issued = await registry.issueRobotCertificate(
    robot,
    await requestOf({ name: 'ECDSA', namedCurve: 'P-256' }, { name: 'ECDSA', hash: 'SHA-256' }),
  );
  const certificate = new X509Certificate(issued.certificatePem);
  t.equal(certificate.subject, 'CN=default.RB-1', 'the subject is ours, whatever was asked for');
  t.notOk(certificate.ca);
  t.ok(certificate.verify(createPublicKey(authority.caPem)));
  const fingerprint = certificate.fingerprint256.replaceAll(':', '').toLowerCase();
  t.match(await registry.verify(robot, fingerprint), { kind: 'accepted', robot });
  t.match(await registry.verify({ ...robot, robotId: 'RB-2' }, fingerprint), {
    kind: 'refused',
    reason: /another robot/,
  });

  let isAway = false;
  const shaky: typeof database = {
    kind: database.kind,
    orm: database.orm,
    query: (text, values) => (isAway ? Promise.reject(new Error('away')) : database.query(text, values)),
    transaction: (work) => database.transaction(work),
    ping: () => database.ping(),
    close: () => database.close(),
  };
  const remembering = new CertificateRegistry({ database: shaky, authority, clock, log });
  isAway = true;
  await t.rejects(remembering.verify(robot, fingerprint), /away/, 'one that was never looked at is not good');
  isAway = false;
  await remembering.verify(robot, fingerprint);
  isAway = true;
  t.match(await remembering.verify(robot, fingerprint), { kind: 'accepted', robot }, 'what was good stays good');
  await t.rejects(remembering.verify({ ...robot, robotId: 'RB-2' }, fingerprint), /away/, 'for its own robot only');
  isAway = false;

  const file = (name: string, text: string): string => {
    writeFileSync(join(folder, name), text);
    return join(folder, name);
  };
  const openssl = (...args: string[]): string => execFileSync('openssl', args, { encoding: 'utf8', stdio: 'pipe' });
  const [ca, leaf] = [file('ca.pem', authority.caPem), file('leaf.pem', issued.certificatePem)];
  const server = await authority.serverCertificate(['robots.example', '10.0.0.1']);
  const serverFile = file('server.pem', server.certificatePem);
  t.match(openssl('verify', '-purpose', 'sslclient', '-CAfile', ca, leaf), /OK/);
  t.match(
    openssl('verify', '-purpose', 'sslserver', '-verify_hostname', 'robots.example', '-CAfile', ca, serverFile),
    /OK/,
  );
  t.match(openssl('verify', '-verify_ip', '10.0.0.1', '-CAfile', ca, serverFile), /OK/);
  t.throws(() => openssl('verify', '-purpose', 'sslserver', '-CAfile', ca, leaf), 'a robot is no server');
  t.equal((await authority.serverCertificate(['10.0.0.1', 'robots.example'])).certificatePem, server.certificatePem);
  t.ok(sign('sha256', Buffer.from('x'), createPrivateKey(server.privateKeyPem)));

  await registry.revokeRobotCertificates(7, 'lost');
  t.match(await registry.verify(robot, fingerprint), { kind: 'refused', reason: /revoked/ });
  await remembering.revokeRobotCertificates(7, 'lost');
  isAway = true;
  await t.rejects(remembering.verify(robot, fingerprint), /away/, 'what was taken back is not remembered');
  const list = file('revoked.pem', await registry.revocationListPem());
  t.throws(() => openssl('verify', '-crl_check', '-CRLfile', list, '-CAfile', ca, leaf), 'OpenSSL reads the list');
  t.match(openssl('crl', '-in', list, '-noout', '-text', '-CAfile', ca), new RegExp(issued.serialNumber.toUpperCase()));
  t.match(readFileSync(list, 'utf8'), /BEGIN X509 CRL/);
});

t.test('a sealed secret opens under its own name and key only', async (t) => {
  const box = new SecretBox('a key for tests only, which is long enough');
  const sealed = box.seal('ca', 'secret');
  t.equal(box.open('ca', sealed), 'secret');
  for (const bad of [sealed.slice(0, -2), `${sealed.slice(0, -1)}${sealed.endsWith('A') ? 'B' : 'A'}x`, 'plain', ''])
    t.throws(() => box.open('ca', bad), { code: 'internal' });
  t.throws(() => box.open('other', sealed), { code: 'internal' });
  t.throws(() => new SecretBox('short'), { code: 'invalid' });
});
