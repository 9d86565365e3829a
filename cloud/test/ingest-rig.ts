import 'reflect-metadata';
import type { webcrypto } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { createLogger } from '@outrider/shared/log';
import { runStages } from '@outrider/shared/service';
import { systemClock } from '@outrider/shared/time';
import * as x509 from '@peculiar/x509';
import { Registry } from 'prom-client';
import { EmbeddedBroker } from '../src/broker/embedded-broker.ts';
import type { MqttClientBus } from '../src/broker/mqtt-client-bus.ts';
import { openBus } from '../src/broker/open-bus.ts';
import { CertificateAuthority } from '../src/certificates/authority.ts';
import { ClientCertificates } from '../src/certificates/client-certificates.ts';
import { CertificateRegistry } from '../src/certificates/registry.ts';
import { exportKey, generateKeyPair } from '../src/certificates/x509.ts';
import { type Database, openDatabase } from '../src/storage/database.ts';
import { openSecretBox, type SecretBox } from '../src/storage/secret-box.ts';
import { openTelemetry, type Telemetry } from '../src/telemetry/open-telemetry.ts';
import type { RobotRef } from '../src/telemetry/ports.ts';
import { type Credentials, TestEdge } from './ingest-edge.ts';

/** The cloud's half of the line on a database, without a bus yet. */
export interface Ground {
  readonly database: Database;
  readonly secrets: SecretBox;
  readonly authority: CertificateAuthority;
  readonly certificates: CertificateRegistry;
  readonly clientCertificates: ClientCertificates;
  readonly lines: string[];
  readonly log: ReturnType<typeof createLogger>;
  /** Registers a robot and enrols it. */
  robot(
    tenantId: string,
    robotId: string,
  ): Promise<{ robot: RobotRef; credentials: Credentials; serialNumber: string }>;
  close(): Promise<void>;
}

/** A replica of the ingest. */
export interface Replica {
  readonly bus: EmbeddedBroker | MqttClientBus;
  readonly telemetry: Telemetry;
  readonly metrics: Registry;
  /** For robots, when the broker is in this process. */
  readonly url: string;
  stop(): Promise<void>;
}

export const SECRET_KEY = 'a key for tests only, which is long enough';

export async function openGround(databaseUrl?: string): Promise<Ground> {
  const folder = await mkdtemp(join(tmpdir(), 'outrider-ground-'));
  const lines: string[] = [];
  const sink = new Writable({
    write(chunk: Buffer, _encoding, done) {
      lines.push(chunk.toString());
      done();
    },
  });
  const log = createLogger('test', 'debug', sink);
  const clock = systemClock;
  const dataDir = databaseUrl === undefined ? 'memory://' : folder;
  const database = await openDatabase({ dataDir, log, clock, ...(databaseUrl === undefined ? {} : { databaseUrl }) });
  const secrets = await openSecretBox(SECRET_KEY, dataDir);
  const authority = await CertificateAuthority.open({ database, secrets, clock, log });
  const certificates = new CertificateRegistry({ database, authority, clock, log });
  const clientCertificates = new ClientCertificates({ database, authority, clock, log });
  return {
    database,
    secrets,
    authority,
    certificates,
    clientCertificates,
    lines,
    log,
    async robot(tenantId, robotId) {
      await database.query('insert into tenant (tenant_id, name) values ($1, $1) on conflict do nothing', [tenantId]);
      const [row] = await database.query<{ robot_pk: number }>(
        `insert into robot (tenant_id, robot_id, robot_name, robot_type) values ($1, $2, $2, 'test') returning robot_pk`,
        [tenantId, robotId],
      );
      const robot = { robotPk: row?.robot_pk ?? 0, tenantId, robotId };
      const { csr, key } = await signingRequest();
      const issued = await certificates.issueRobotCertificate(robot, csr);
      const credentials = { cert: issued.certificatePem, key, ca: issued.caPem };
      return { robot, credentials, serialNumber: issued.serialNumber };
    },
    async close() {
      await database.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** A signing request of a new P-256 key. */
export async function signingRequest(): Promise<{ csr: string; key: string }> {
  const keys = await generateKeyPair();
  const request = await x509.Pkcs10CertificateRequestGenerator.create({
    name: 'CN=whatever the robot says',
    keys,
    signingAlgorithm: { name: 'ECDSA', hash: 'SHA-256' },
  });
  return { csr: request.toString('pem'), key: await exportKey(keys.privateKey as webcrypto.CryptoKey) };
}

/** Starts a replica: with a broker of its own, or on an external one. */
export async function startReplica(ground: Ground, mqttUrl?: string): Promise<Replica> {
  const metrics = new Registry();
  const { authority, certificates, clientCertificates, database, log } = ground;
  const bus = await openBus({
    ...(mqttUrl === undefined ? {} : { mqttUrl }),
    host: '127.0.0.1',
    port: 0,
    serverNames: [],
    authority,
    certificates,
    clientCertificates,
    metrics,
    log,
  });
  const telemetry = openTelemetry({ database, metrics, clock: systemClock, log });
  await telemetry.prepare({ ownsSessions: mqttUrl === undefined });
  const inbox = telemetry.serve(bus);
  const stop = new AbortController();
  await bus.start();
  const running = runStages([bus, inbox, telemetry.maintenance], stop.signal, log);
  return {
    bus,
    telemetry,
    metrics,
    url: bus instanceof EmbeddedBroker ? `mqtts://127.0.0.1:${bus.port}` : '',
    async stop() {
      stop.abort();
      await running;
    },
  };
}

/** The value of a counter, summed over the labels that match. */
export async function metric(
  registry: Registry,
  name: string,
  labels: Readonly<Record<string, string>> = {},
): Promise<number> {
  const found = await registry.getSingleMetric(name)?.get();
  const values = found?.values ?? [];
  return values
    .filter((value) => Object.entries(labels).every(([key, text]) => value.labels[key as never] === text))
    .reduce((sum, value) => sum + value.value, 0);
}

export { TestEdge };
