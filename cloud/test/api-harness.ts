import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import type { DeviceIdentity } from '@outrider/shared/ids';
import { deviceName } from '@outrider/shared/ids';
import { createLogger } from '@outrider/shared/log';
import { outrider } from '@outrider/shared/messages';
import { runStages } from '@outrider/shared/service';
import { systemClock } from '@outrider/shared/time';
import { Registry } from 'prom-client';
import { openAlerts } from '../src/alert/open-alerts.ts';
import { describeApi } from '../src/api/api.ts';
import { HttpServer } from '../src/api/http-server.ts';
import { type AssembledApi, assembleApi, assembleIdentity, type Identity } from '../src/assemble.ts';
import type { DeviceBus, PresenceChange, Unsubscribe } from '../src/broker/bus.ts';
import { CertificateAuthority } from '../src/certificates/authority.ts';
import { ClientCertificates } from '../src/certificates/client-certificates.ts';
import { CertificateRegistry } from '../src/certificates/registry.ts';
import { InstructionKeys } from '../src/failsafe/instruction-keys.ts';
import type { AuthMode } from '../src/identity/authenticator.ts';
import type { Scope } from '../src/identity/principal.ts';
import type { EgressOptions } from '../src/notify/egress.ts';
import { type Database, openDatabase } from '../src/storage/database.ts';
import { PgInstructionStore } from '../src/storage/instruction-store.ts';
import { openSecretBox } from '../src/storage/secret-box.ts';
import { openTelemetry, type Telemetry } from '../src/telemetry/open-telemetry.ts';
import { OpenApiChecker } from './openapi-checker.ts';

/** A small event that the telemetry endpoint takes. */
export const EVENT = { robot_id: 'RB-1', timestamp: '2026-01-11T05:12:00Z', flags: ['nominal'] };

/** What registers a robot. */
export const describeRobot = (robotId: string) => ({
  robot_descriptor: { robot_id: robotId, robot_name: robotId, robot_type: 'arm', capabilities: { lift: {} } },
});

/** An instruction as a robot reads it, with what it was signed as. */
export type SentInstruction = outrider.v1.Instruction & {
  readonly mode: string;
  readonly signed: outrider.v1.SignedInstruction;
};

/** Robots at the end of a line: which are connected, what they were sent, and what they answer. */
export class ScriptedBus implements DeviceBus {
  readonly sent: { topic: string; trigger: SentInstruction }[] = [];
  /** Key lists that robots were sent. */
  readonly lists: outrider.v1.SignedKeyList[] = [];
  readonly online = new Set<string>();
  /** Called for each stop; what it returns is the robot's answer. */
  answer: (trigger: SentInstruction) => outrider.v1.CommandReply.$Properties | undefined = () => undefined;
  readonly #replies = new Set<(device: DeviceIdentity, reply: outrider.v1.CommandReply) => void>();
  readonly #presences = new Set<(change: PresenceChange) => void>();

  async publish(topic: string, payload: Uint8Array): Promise<void> {
    if (topic.endsWith('/down/keys')) {
      this.lists.push(outrider.v1.SignedKeyList.decode(payload));
      return;
    }
    const signed = outrider.v1.SignedInstruction.decode(payload);
    const instruction = outrider.v1.Instruction.decode(signed.payload);
    const trigger = Object.assign(instruction, { mode: instruction.trigger?.mode ?? '', signed });
    this.sent.push({ topic, trigger });
    const [tenantId = '', robotId = ''] = topic.split('/')[2]?.split('.') ?? [];
    if (!this.online.has(`${tenantId}.${robotId}`)) return;
    const reply = this.answer(trigger);
    if (reply) this.reply({ tenantId, robotId }, { commandId: trigger.commandId, ...reply });
  }

  reply(device: DeviceIdentity, reply: outrider.v1.CommandReply.$Properties): void {
    for (const listener of this.#replies)
      listener(device, outrider.v1.CommandReply.decode(outrider.v1.CommandReply.encode(reply).finish()));
  }

  appear(device: DeviceIdentity): void {
    this.online.add(deviceName(device));
    const report = outrider.v1.PresenceReport.decode(
      outrider.v1.PresenceReport.encode({ presence: 'ONLINE' }).finish(),
    );
    for (const listener of this.#presences) listener({ device, report });
  }

  onReply(listener: (device: DeviceIdentity, reply: outrider.v1.CommandReply) => void): Unsubscribe {
    this.#replies.add(listener);
    return () => this.#replies.delete(listener);
  }

  onPresence(listener: (change: PresenceChange) => void): Unsubscribe {
    this.#presences.add(listener);
    return () => this.#presences.delete(listener);
  }

  connected(device: DeviceIdentity): boolean {
    return this.online.has(deviceName(device));
  }

  async disconnect(): Promise<void> {}
}

export interface Harness {
  readonly url: string;
  readonly tlsUrl: string;
  readonly caPem: string;
  readonly authority: CertificateAuthority;
  readonly clientCertificates: ClientCertificates;
  readonly metrics: Registry;
  readonly bus: ScriptedBus;
  readonly api: AssembledApi;
  readonly identity: Identity;
  readonly database: Database;
  readonly certificates: CertificateRegistry;
  readonly telemetry: Telemetry;
  readonly log: string[];
  /** Every answer of `call` is held to the OpenAPI document here. */
  readonly contract: OpenApiChecker;
  /** A token of that tenant; a client is made for it. */
  token(tenantId: string, scopes?: readonly Scope[]): Promise<string>;
  /** A request with a token. A body that is no string is sent as JSON. */
  call(method: string, path: string, options?: CallOptions): Promise<Answer>;
  close(): Promise<void>;
}

export interface CallOptions {
  readonly token?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: unknown;
}

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  // The tests look into answers of many shapes.
  readonly json: Record<string, never>;
}

/** A real server on real sockets and a real database; only the robots' line is scripted. */
export async function startHarness(
  options: {
    authMode?: AuthMode;
    /** A PostgreSQL server in the place of a database in memory. */
    databaseUrl?: string;
    answerTimeoutMs?: number;
    recoverTimeoutMs?: number;
    /** Where webhooks may lead. Absent: nowhere private. */
    egress?: Partial<EgressOptions>;
  } = {},
): Promise<Harness> {
  const folder = await mkdtemp(join(tmpdir(), 'outrider-api-'));
  const lines: string[] = [];
  const sink = new Writable({
    write(chunk: Buffer, _encoding, done) {
      lines.push(chunk.toString());
      done();
    },
  });
  const log = createLogger('test', 'info', sink);
  const clock = systemClock;
  const { databaseUrl } = options;
  const database = await openDatabase({ dataDir: 'memory://', log, clock, ...(databaseUrl && { databaseUrl }) });
  const secrets = await openSecretBox(undefined, folder);
  const identity = await assembleIdentity(database, secrets, clock);
  const authority = await CertificateAuthority.open({ database, secrets, clock, log });
  const certificates = new CertificateRegistry({ database, authority, clock, log });
  const instructionKeys = new InstructionKeys({
    store: new PgInstructionStore(database),
    secrets,
    authority,
    clock,
    log,
  });
  await instructionKeys.open();
  const metrics = new Registry();
  const telemetry = openTelemetry({ database, metrics, clock, log, retentionDays: 0 });
  await telemetry.prepare({ ownsSessions: true });
  const alerts = openAlerts({
    database,
    secrets,
    telemetry,
    metrics,
    clock,
    log,
    egress: { allowPrivate: false, ca: authority.caPem, ...options.egress },
  });
  const bus = new ScriptedBus();
  let url = '';
  const api = assembleApi({
    identity,
    database,
    bus,
    certificates,
    instructionKeys,
    alerts,
    filesDirectory: join(folder, 'files'),
    ingest: telemetry.ingest,
    reader: telemetry.reader,
    live: telemetry.live,
    authMode: options.authMode ?? 'required',
    urls: () => ({ http: url, mqtt: 'mqtts://localhost:8883' }),
    checks: [],
    metrics,
    clock,
    log,
    version: '0.0.0-test',
    startedMs: clock.monotonicMs(),
    ...(options.answerTimeoutMs === undefined ? {} : { answerTimeoutMs: options.answerTimeoutMs }),
    ...(options.recoverTimeoutMs === undefined ? {} : { recoverTimeoutMs: options.recoverTimeoutMs }),
  });
  const { certificatePem: cert, privateKeyPem: key } = await authority.serverCertificate([]);
  const listen = { host: '127.0.0.1', port: 0, fetch: api.app.fetch, log };
  const http = new HttpServer({ ...listen, name: 'http' });
  const https = new HttpServer({ ...listen, name: 'https', tls: { cert, key } });
  await http.listen();
  await https.listen();
  url = `http://127.0.0.1:${http.port}`;
  const stop = new AbortController();
  const running = runStages([...api.services, http, https], stop.signal, log);
  const contract = new OpenApiChecker(describeApi(api.app, '0.0.0-test', url));
  let accounts = 0;
  return {
    url,
    tlsUrl: `https://127.0.0.1:${https.port}`,
    caPem: authority.caPem,
    authority,
    clientCertificates: new ClientCertificates({ database, authority, clock, log }),
    metrics,
    bus,
    api,
    identity,
    database,
    certificates,
    telemetry,
    log: lines,
    contract,
    async token(tenantId, scopes) {
      await identity.accounts.createTenant(tenantId, tenantId, 'enterprise');
      accounts += 1;
      const clientId = `client-${accounts}`;
      const secret = await identity.accounts.createClient({ clientId, tenantId, scopes });
      return (await identity.accounts.grantClientToken(clientId, secret ?? '', [])).accessToken;
    },
    async call(method, path, { token, headers = {}, body } = {}) {
      const reply = await fetch(`${url}${path}`, {
        method,
        headers: {
          ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
          ...(body === undefined ? {} : { 'content-type': 'application/json' }),
          ...headers,
        },
        ...(body === undefined
          ? {}
          : { body: typeof body === 'string' || body instanceof Uint8Array ? body : JSON.stringify(body) }),
      });
      const text = await reply.text();
      const isJson =
        reply.headers.get('content-type')?.includes('json') === true &&
        !reply.headers.get('content-type')?.includes('ndjson');
      const contentType = reply.headers.get('content-type') ?? '';
      contract.check({
        ...{ method, path, status: reply.status, contentType },
        body: contentType.startsWith('application/json') ? JSON.parse(text) : undefined,
      });
      return {
        status: reply.status,
        headers: reply.headers,
        text,
        json: (isJson ? JSON.parse(text) : {}) as Record<string, never>,
      };
    },
    async close() {
      stop.abort();
      await running;
      await database.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
}
