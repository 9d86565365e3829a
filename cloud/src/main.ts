import { mkdir, rename, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { DomainError, errorMessage } from '@outrider/shared/errors';
import { createLogger, gatheringDestination, type Logger } from '@outrider/shared/log';
import { runStages, type Service } from '@outrider/shared/service';
import { type Clock, systemClock } from '@outrider/shared/time';
import { collectDefaultMetrics, Registry } from 'prom-client';
import { openAlerts } from './alert/open-alerts.ts';
import type { PublicUrls } from './api/core.ts';
import { HttpServer } from './api/http-server.ts';
import { assembleApi, assembleIdentity, type Identity } from './assemble.ts';
import { EmbeddedBroker } from './broker/embedded-broker.ts';
import type { MqttClientBus } from './broker/mqtt-client-bus.ts';
import { openBus } from './broker/open-bus.ts';
import { CertificateAuthority } from './certificates/authority.ts';
import { ClientCertificates } from './certificates/client-certificates.ts';
import { CertificateRegistry } from './certificates/registry.ts';
import type { Config } from './config.ts';
import { EventPublisher } from './events/publisher.ts';
import { InstructionKeys } from './failsafe/instruction-keys.ts';
import { GrpcServer } from './grpc/server.ts';
import { CLOUD_ANALYSER, HealthKeeper } from './health/health-keeper.ts';
import { bootstrap } from './identity/bootstrap.ts';
import { type Database, openDatabase } from './storage/database.ts';
import { SqlEventLog } from './storage/event-store.ts';
import { SqlHealthStore } from './storage/health-store.ts';
import { PgInstructionStore } from './storage/instruction-store.ts';
import { openSecretBox, type SecretBox } from './storage/secret-box.ts';
import { openTelemetry } from './telemetry/open-telemetry.ts';
import { VERSION } from './version.ts';

/** The parts that both the server and the administration verbs stand on. */
interface Foundation {
  readonly database: Database;
  readonly identity: Identity;
  readonly authority: CertificateAuthority;
  readonly certificates: CertificateRegistry;
  readonly clientCertificates: ClientCertificates;
  readonly instructionKeys: InstructionKeys;
  readonly secrets: SecretBox;
  readonly dataDir: string;
}

async function openFoundation(config: Config, log: Logger, clock: Clock): Promise<Foundation> {
  const dataDir = resolve(config.stateDir);
  try {
    await mkdir(dataDir, { recursive: true, mode: 0o700 });
  } catch (cause) {
    throw new DomainError('unavailable', `--state-dir ${dataDir} cannot be used: ${errorMessage(cause)}`, { cause });
  }
  const database = await openDatabase({
    dataDir,
    log,
    clock,
    ...(config.databaseUrl === undefined ? {} : { databaseUrl: config.databaseUrl }),
  });
  try {
    const secrets = await openSecretBox(config.secretKey, dataDir);
    const identity = await assembleIdentity(database, secrets, clock);
    const authority = await CertificateAuthority.open({ database, secrets, clock, log });
    const certificates = new CertificateRegistry({ database, authority, clock, log });
    const clientCertificates = new ClientCertificates({ database, authority, clock, log });
    const store = new PgInstructionStore(database);
    const instructionKeys = new InstructionKeys({ store, secrets, authority, clock, log });
    await instructionKeys.open();
    return { database, identity, authority, certificates, clientCertificates, instructionKeys, secrets, dataDir };
  } catch (error) {
    await database.close();
    throw error;
  }
}

/** Accounts and certificates without a server. Close it when done: PGlite has room for one process. */
export interface Administration {
  readonly accounts: Identity['accounts'];
  readonly authority: CertificateAuthority;
  readonly certificates: CertificateRegistry;
  readonly clientCertificates: ClientCertificates;
  readonly instructionKeys: InstructionKeys;
  readonly signingKeys: Identity['keys'];
  readonly healthModels: SqlHealthStore;
  close(): Promise<void>;
}

/** Opens the database for one of the administration verbs. */
export async function openAdministration(config: Config, log: Logger, clock: Clock): Promise<Administration> {
  const { database, identity, dataDir: _folder, ...rest } = await openFoundation(config, log, clock);
  return {
    ...rest,
    accounts: identity.accounts,
    signingKeys: identity.keys,
    healthModels: new SqlHealthStore(database),
    close: () => database.close(),
  };
}

/**
 * Runs the control plane until `signal` aborts.
 *
 * @throws DomainError that says what to do when it cannot start.
 */
export async function serve(config: Config, signal: AbortSignal): Promise<void> {
  const clock = systemClock;
  const startedMs = clock.monotonicMs();
  const log = createLogger('outrider-cloud', config.logLevel, gatheringDestination());
  const foundation = await openFoundation(config, log, clock);
  const open: { close(): Promise<void> }[] = [foundation.database];
  try {
    const { database, identity, authority, certificates, clientCertificates, instructionKeys, dataDir } = foundation;
    await bootstrap(identity.accounts, dataDir, {
      clientId: config.bootstrapClientId,
      clientSecret: config.bootstrapClientSecret,
      adminUser: config.bootstrapAdminUser,
      adminPassword: config.bootstrapAdminPassword,
    });
    const metrics = new Registry();
    collectDefaultMetrics({ register: metrics });
    const serverNames = [...config.serverNames, ...hostNamesOf(config)];
    const bus = await openBus({
      host: config.host,
      port: config.mqttPort,
      serverNames,
      authority,
      certificates,
      clientCertificates,
      metrics,
      log,
      ...(config.mqttUrl === undefined ? {} : { mqttUrl: config.mqttUrl }),
    });
    const telemetry = openTelemetry({ database, metrics, clock, log, retentionDays: config.retentionDays });
    const alerts = openAlerts({
      database,
      secrets: foundation.secrets,
      telemetry,
      metrics,
      clock,
      log,
      egress: { allowPrivate: config.webhookAllowPrivate },
    });
    const health = new HealthKeeper({
      store: new SqlHealthStore(database),
      settings: CLOUD_ANALYSER,
      metrics,
      clock,
      log,
    });
    telemetry.onStored((outcomes) => health.stored(outcomes));
    let urls: PublicUrls = { http: '', mqtt: '' };
    const api = assembleApi({
      identity,
      database,
      bus,
      certificates,
      instructionKeys,
      alerts,
      ingest: telemetry.ingest,
      reader: telemetry.reader,
      live: telemetry.live,
      authMode: config.authMode,
      urls: () => urls,
      checks: [],
      metrics,
      clock,
      log,
      version: VERSION,
      startedMs,
      filesDirectory: join(dataDir, 'files'),
    });
    const publisher = new EventPublisher({
      log: new SqlEventLog(database),
      transport: bus,
      clock,
      logger: log,
      metrics,
    });
    const inbox = telemetry.serve(bus);
    await telemetry.prepare({ ownsSessions: bus instanceof EmbeddedBroker });
    const { certificatePem: cert, privateKeyPem: key } = await authority.serverCertificate(serverNames);
    const listen = { host: config.host, fetch: api.app.fetch, log, keepAliveS: config.keepAliveS };
    const http = new HttpServer({ ...listen, name: 'http', port: config.httpPort });
    const https = new HttpServer({ ...listen, name: 'https', port: config.httpsPort, tls: { cert, key } });
    const grpc = new GrpcServer({
      host: config.host,
      port: config.grpcPort,
      core: api.core,
      clients: clientCertificates,
      metrics,
      tls: { cert, key, caPem: authority.caPem },
      log,
    });
    for (const server of [http, https, grpc]) {
      await server.listen();
      open.unshift(server);
    }
    await startBus(bus, config);
    const ready = describeReady(config, {
      ...{ http: http.port, https: https.port, grpc: grpc.port },
      mqtt: mqttPortOf(bus),
    });
    urls = {
      http: config.publicUrl?.replace(/\/+$/, '') ?? ready.http_url,
      mqtt: config.publicMqttUrl ?? ready.mqtt_url,
    };
    const caFile = join(dataDir, 'ca.pem');
    await writeWhole(caFile, authority.caPem);
    if (config.readyFile !== undefined) {
      const facts = {
        ...ready,
        mqtt_url: urls.mqtt,
        ca_file: caFile,
        ca_sha256: authority.caSha256,
        pid: process.pid,
        version: VERSION,
      };
      await writeWhole(resolve(config.readyFile), `${JSON.stringify(facts, null, 2)}\n`);
    }
    log.info({ ...ready, durationMs: clock.monotonicMs() - startedMs, database: database.kind }, 'server.ready');
    const announceStop: Service = {
      name: 'readiness',
      run: (stop) =>
        new Promise((done) =>
          stop.addEventListener('abort', () => {
            api.core.readiness.stop();
            done();
          }),
        ),
    };
    // Stopped first to last: no new work, streams, listeners, the robots' line, and what stores.
    await runStages(
      [announceStop, ...api.services, publisher, http, https, bus, inbox, health, telemetry.maintenance],
      signal,
      log,
    );
    log.info('server.stopped');
  } finally {
    for (const part of open) await part.close();
  }
}

type Bus = EmbeddedBroker | MqttClientBus;

async function startBus(bus: Bus, config: Config): Promise<void> {
  try {
    await bus.start();
  } catch (error) {
    if (!(bus instanceof EmbeddedBroker)) throw error;
    const isTaken = errorMessage(error).includes('EADDRINUSE');
    const advice = isTaken
      ? `stop what listens there, or choose another with --mqtt-port (0 takes any free one)`
      : errorMessage(error);
    throw new DomainError(
      'unavailable',
      `port ${config.mqttPort} on ${config.host} cannot be used for MQTT: ${advice}`,
      { cause: error },
    );
  }
}

const mqttPortOf = (bus: Bus): number | undefined => (bus instanceof EmbeddedBroker ? bus.port : undefined);

function describeReady(
  config: Config,
  ports: { http: number; https: number; grpc: number; mqtt: number | undefined },
): { http_url: string; https_url: string; grpc_url: string; mqtt_url: string } {
  const host = hostForUrl(config.host);
  return {
    http_url: `http://${host}:${ports.http}`,
    https_url: `https://${host}:${ports.https}`,
    grpc_url: `grpcs://${host}:${ports.grpc}`,
    mqtt_url: ports.mqtt === undefined ? (config.mqttUrl ?? '') : `mqtts://${host}:${ports.mqtt}`,
  };
}

/** An address that listens everywhere is reached at this machine's loopback. */
function hostForUrl(host: string): string {
  if (host === '0.0.0.0') return '127.0.0.1';
  if (host === '::') return '[::1]';
  return host.includes(':') ? `[${host}]` : host;
}

/** Names that callers use for us and that the certificate must have. */
function hostNamesOf(config: Config): string[] {
  const urls = [config.publicUrl, config.publicMqttUrl].filter((url) => url !== undefined);
  const names = urls.map((url) => new URL(url).hostname.replace(/^\[|\]$/g, ''));
  return ['0.0.0.0', '::'].includes(config.host) ? names : [...names, config.host];
}

async function writeWhole(path: string, text: string): Promise<void> {
  const draft = `${path}.${process.pid}.tmp`;
  await writeFile(draft, text);
  await rename(draft, path);
}
