import 'reflect-metadata';
import { type ChildProcess, spawn } from 'node:child_process';
import { generateKeyPairSync, type KeyObject, webcrypto } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer as createHttpsServer } from 'node:https';
import type { AddressInfo, Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createServer as createTlsServer, type TLSSocket } from 'node:tls';
import { fileURLToPath } from 'node:url';
import { outrider } from '@outrider/shared/messages';
import { decodeBlock } from '@outrider/shared/protocol/block';
import { bodyCrc } from '@outrider/shared/protocol/codec';
import { keyListBytes, rawPublicKey, signInstruction } from '@outrider/shared/protocol/instruction';
import { downTopic, parseTopic } from '@outrider/shared/protocol/topics';
import * as x509 from '@peculiar/x509';
import { Aedes } from 'aedes';
import { stringify } from 'yaml';
import { LANE_NUMBERS, LANES } from '../src/outbox/records.ts';

const { Ack, BodyKind, CommandReply, Hello, HelloReply, PresenceReport, UplinkBatch } = outrider.v1;
const EC = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const DAY_MS = 86_400_000;
export const EDGE = fileURLToPath(new URL('../../bin/outrider-edge.js', import.meta.url));
export const DEVICE = { tenantId: 'default', robotId: 'RB-1' } as const;

x509.cryptoProvider.set(webcrypto as unknown as Parameters<typeof x509.cryptoProvider.set>[0]);

export interface InstructionKeyPair {
  readonly keyId: string;
  readonly publicKey: KeyObject;
  readonly privateKey: KeyObject;
}

export const instructionKeyPair = (keyId: string): InstructionKeyPair => ({ keyId, ...generateKeyPairSync('ed25519') });

/** An authority for one test. */
export class TestAuthority {
  readonly pem: string;
  readonly #certificate: x509.X509Certificate;
  readonly #keys: webcrypto.CryptoKeyPair;

  private constructor(certificate: x509.X509Certificate, keys: webcrypto.CryptoKeyPair) {
    this.#certificate = certificate;
    this.#keys = keys;
    this.pem = certificate.toString('pem');
  }

  static async create(name = 'Test Authority'): Promise<TestAuthority> {
    const keys = await webcrypto.subtle.generateKey(EC, true, ['sign', 'verify']);
    const certificate = await x509.X509CertificateGenerator.createSelfSigned({
      serialNumber: '01',
      name: `CN=${name}`,
      notBefore: new Date(Date.now() - DAY_MS),
      notAfter: new Date(Date.now() + DAY_MS),
      keys,
      signingAlgorithm: EC,
      extensions: [new x509.BasicConstraintsExtension(true, 0, true)],
    });
    return new TestAuthority(certificate, keys);
  }

  async sign(commonName: string, publicKey: x509.PublicKeyType, ageMs = 0, lifeMs = DAY_MS): Promise<string> {
    const certificate = await x509.X509CertificateGenerator.create({
      serialNumber: webcrypto.getRandomValues(Buffer.alloc(8)).toString('hex').replace(/^./, '1'),
      subject: `CN=${commonName}`,
      issuer: this.#certificate.subject,
      notBefore: new Date(Date.now() - ageMs),
      notAfter: new Date(Date.now() - ageMs + lifeMs),
      publicKey,
      signingKey: this.#keys.privateKey,
      signingAlgorithm: EC,
      extensions: [
        new x509.SubjectAlternativeNameExtension([
          { type: 'dns', value: 'localhost' },
          { type: 'ip', value: '127.0.0.1' },
        ]),
      ],
    });
    return certificate.toString('pem');
  }

  /** A list of instruction keys, signed. */
  async keyList(serial: number, keys: readonly InstructionKeyPair[]): Promise<Uint8Array> {
    const payload = outrider.v1.InstructionKeyList.encode({
      serial,
      keys: keys.map(({ keyId, publicKey }) => ({ keyId, publicKey: rawPublicKey(publicKey) })),
    }).finish();
    const signature = await webcrypto.subtle.sign(EC, this.#keys.privateKey, keyListBytes(payload));
    return outrider.v1.SignedKeyList.encode({ payload, signature: new Uint8Array(signature) }).finish();
  }

  /** @param ageMs How long ago its certificate's day began. */
  async server(ageMs = 0): Promise<{ key: string; cert: string }> {
    const keys = await webcrypto.subtle.generateKey(EC, true, ['sign', 'verify']);
    const der = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey));
    const key = `-----BEGIN PRIVATE KEY-----\n${der.toString('base64').replace(/.{64}/g, '$&\n')}\n-----END PRIVATE KEY-----\n`;
    // The chain is sent whole, so that its authority can be pinned by fingerprint.
    return { key, cert: `${await this.sign('localhost', keys.publicKey, ageMs)}\n${this.pem}` };
  }
}

export interface StoredKey {
  readonly epoch: string;
  readonly lane: outrider.v1.Lane;
  readonly seq: number;
  readonly seqTo: number;
  readonly kind: outrider.v1.BodyKind;
  readonly body: Uint8Array;
  /** `epoch/lane/seq` of its first position; empty when this is it. */
  readonly origin: string;
}

/** How the cloud of a test behaves. Changed while it runs. */
export interface Behaviour {
  /** Stores, and does not say so. */
  mute?: boolean;
  /** Names no batches in its acknowledgements. */
  isOld?: boolean;
  /** Does not answer a hello. */
  deaf?: boolean;
  refused?: string;
  /** Drops every n-th batch before storing it. */
  loseEvery?: number;
  /** Claims to have positions that were never given out. */
  watermark?: number;
  collide?: boolean;
  /** Hangs up when a batch holds this record of the event lane. */
  poisonSeq?: number;
}

/** A broker and a store that acknowledge as the cloud does: after storing, up to the first hole. */
export class TestCloud {
  readonly authority: TestAuthority;
  readonly behaviour: Behaviour = {};
  readonly records = new Map<string, StoredKey>();
  readonly presences: string[] = [];
  readonly replies: outrider.v1.CommandReply[] = [];
  readonly hellos: outrider.v1.Hello[] = [];
  readonly problems: string[] = [];
  readonly apiKey = 'rk_test';
  readonly instructionKey = instructionKeyPair('ik_test');
  duplicates = 0;
  batches = 0;
  bytes = 0;
  validity: { ageMs: number; lifeMs: number } = { ageMs: 0, lifeMs: DAY_MS };
  #credentials: { key: string; cert: string };
  #broker: Aedes | undefined;
  #mqtt: Server | undefined;
  #https: Server | undefined;
  readonly #sockets = new Set<TLSSocket>();
  mqttPort = 0;
  httpsPort = 0;

  private constructor(authority: TestAuthority, credentials: { key: string; cert: string }) {
    this.authority = authority;
    this.#credentials = credentials;
  }

  static async start(): Promise<TestCloud> {
    const authority = await TestAuthority.create();
    const cloud = new TestCloud(authority, await authority.server());
    await cloud.#serveHttps();
    await cloud.up();
    return cloud;
  }

  /** Opens the broker, on the port it had before. */
  async up(): Promise<void> {
    const broker = await Aedes.createBroker();
    // aedes ends the connection of a client whose message is refused, without a PUBACK.
    broker.authorizePublish = (_client, packet, done) =>
      done(this.#isPoisoned(packet.topic, packet.payload as Buffer) ? new Error('refused') : null);
    broker.on('publish', (packet, client) => {
      if (client) this.#take(packet.topic, packet.payload as Buffer);
    });
    const options = { ...this.#credentials, ca: this.authority.pem, requestCert: true, rejectUnauthorized: true };
    const server = createTlsServer(options, (socket) => {
      this.#sockets.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => this.#sockets.delete(socket));
      broker.handle(socket);
    });
    this.mqttPort = await listen(server, this.mqttPort);
    this.#broker = broker;
    this.#mqtt = server;
  }

  /** Cuts every connection; the broker goes on. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  /** Closes the broker; what is stored stays. */
  async down(): Promise<void> {
    const [broker, server] = [this.#broker, this.#mqtt];
    this.#broker = undefined;
    this.#mqtt = undefined;
    this.cut();
    if (server) await new Promise((resolve) => server.close(resolve));
    if (broker) await new Promise<void>((resolve) => broker.close(() => resolve()));
  }

  async close(): Promise<void> {
    await this.down();
    await new Promise((resolve) => this.#https?.close(resolve));
  }

  get isUp(): boolean {
    return this.#broker !== undefined;
  }

  publish(topic: string, payload: Uint8Array, retain = false): Promise<void> {
    const packet = { cmd: 'publish', topic, payload: Buffer.from(payload), qos: 1, retain, dup: false } as const;
    return new Promise((resolve) => (this.#broker ? this.#broker.publish(packet, () => resolve()) : resolve()));
  }

  trigger(mode: string, commandId: string): Promise<void> {
    return this.instruct({ commandId, verb: 'trigger', trigger: { mode } });
  }

  /** Sends a signed instruction. What is not given is good. */
  instruct(order: outrider.v1.Instruction.$Properties, key = this.instructionKey): Promise<void> {
    const signed = signInstruction(
      {
        ...DEVICE,
        issuedAtMs: Date.now(),
        reason: 'test',
        requestedBy: 'tester',
        traceId: `trace_${order.commandId}`,
        ...order,
      },
      key.keyId,
      key.privateKey,
    );
    return this.publish(downTopic(DEVICE, 'command'), signed);
  }

  /** Up to where a lane of an epoch is stored without a hole. */
  watermark(epoch: string, lane: outrider.v1.Lane): number {
    let upto = 0;
    for (;;) {
      const next = this.records.get(`${epoch}/${lane}/${upto + 1}`);
      if (!next) return upto;
      upto = Math.max(next.seq, next.seqTo);
    }
  }

  lane(lane: (typeof LANES)[number]): StoredKey[] {
    return [...this.records.values()].filter((record) => record.lane === LANE_NUMBERS[lane]);
  }

  #take(topic: string, payload: Buffer): void {
    const parsed = parseTopic(topic);
    if (parsed?.direction === 'presence') this.presences.push(PresenceReport.decode(payload).presence);
    if (parsed?.direction !== 'up') return;
    if (parsed.channel === 'hello') this.#greet(Hello.decode(payload));
    else if (parsed.channel === 'reply') this.replies.push(CommandReply.decode(payload));
    else this.#store(UplinkBatch.decode(payload), payload.length);
  }

  #greet(hello: outrider.v1.Hello): void {
    this.hellos.push(hello);
    if (this.behaviour.deaf) return;
    const lanes = LANES.map((lane) => {
      const number = LANE_NUMBERS[lane];
      const upto = this.behaviour.watermark ?? this.watermark(hello.epoch, number);
      return { epoch: hello.epoch, lane: number, upto };
    });
    delete this.behaviour.watermark;
    const reply = {
      epoch: hello.epoch,
      lanes,
      wallMs: Date.now(),
      nonce: hello.nonce,
      refused: this.behaviour.refused ?? '',
      namesBatches: this.behaviour.isOld !== true,
    };
    void this.publish(downTopic(DEVICE, 'hello'), HelloReply.encode(reply).finish());
  }

  #isPoisoned(topic: string, payload: Buffer): boolean {
    const { poisonSeq } = this.behaviour;
    const parsed = parseTopic(topic);
    if (poisonSeq === undefined || parsed?.direction !== 'up' || parsed.channel !== 'event') return false;
    return UplinkBatch.decode(payload).records.some(
      ({ seq, kind }) => seq === poisonSeq && kind === BodyKind.BODY_EVENT,
    );
  }

  #store(batch: outrider.v1.UplinkBatch, bytes: number): void {
    this.batches += 1;
    const { loseEvery, mute, collide } = this.behaviour;
    if (loseEvery && this.batches % loseEvery === 0) return;
    const { epoch, lane } = batch;
    this.bytes += bytes;
    for (const record of batch.records) {
      const seq = record.seq ?? 0;
      const body = record.body ?? new Uint8Array();
      if (bodyCrc(body) !== record.crc) this.problems.push(`crc of ${lane}/${seq}`);
      const key = `${epoch}/${lane}/${seq}`;
      const origin = record.origEpoch ? `${record.origEpoch}/${lane}/${record.origSeq}` : '';
      const known = this.records.get(key);
      if (known) {
        this.duplicates += 1;
        if (!Buffer.from(known.body).equals(body)) this.problems.push(`other content under ${key}`);
      } else {
        const { seqTo, kind } = outrider.v1.Record.create(record);
        this.records.set(key, { epoch, lane, seq, seqTo, kind, body, origin });
      }
    }
    if (mute) return;
    const batchIds = this.behaviour.isOld || collide ? [] : [batch.batchId];
    const ack = { epoch, lane, upto: this.watermark(epoch, lane), collision: collide ?? false, batchIds };
    delete this.behaviour.collide;
    void this.publish(downTopic(DEVICE, 'ack'), Ack.encode(ack).finish());
  }

  async #serveHttps(): Promise<void> {
    const server = createHttpsServer(this.#credentials, (request, response) => {
      let text = '';
      request.on('data', (chunk: Buffer) => {
        text += chunk.toString();
      });
      request.on('end', () => {
        void this.#certify(request.url ?? '', request.headers.authorization ?? '', text).then(({ status, body }) => {
          response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
        });
      });
    });
    this.httpsPort = await listen(server, 0);
    this.#https = server;
  }

  async #certify(url: string, authorization: string, text: string): Promise<{ status: number; body: unknown }> {
    if (authorization !== `Bearer ${this.apiKey}`)
      return { status: 401, body: { status: 'error', error: { code: 'INVALID_TOKEN', message: 'unknown key' } } };
    const robotId = /^\/v1\/robots\/([^/]+)\/certificates$/.exec(url)?.[1] ?? '';
    const request = new x509.Pkcs10CertificateRequest((JSON.parse(text) as { csr: string }).csr);
    if (!(await request.verify())) return { status: 422, body: { error: { code: 'BAD', message: 'bad csr' } } };
    const { ageMs, lifeMs } = this.validity;
    const certificate = await this.authority.sign(`default.${robotId}`, request.publicKey, ageMs, lifeMs);
    const data = {
      certificate,
      ca_certificate: this.authority.pem,
      mqtt_url: `mqtts://localhost:${this.mqttPort}`,
      device_name: `default.${robotId}`,
      tenant_id: 'default',
      robot_id: robotId,
      expires_at: new Date(Date.now() + lifeMs).toISOString(),
      instruction_keys: Buffer.from(await this.authority.keyList(1, [this.instructionKey])).toString('base64'),
    };
    return { status: 201, body: { status: 'success', data } };
  }
}

function listen(server: Server, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, '127.0.0.1', () => resolve((server.address() as AddressInfo).port));
  });
}

/** A robot's home: short paths (Unix sockets have at most 107 bytes), removed at the end. */
export class TestRobot {
  readonly home = mkdtempSync(join(tmpdir(), 'edge-'));
  readonly configFile = join(this.home, 'edge.yaml');
  readonly stateDir = join(this.home, 'state');
  readonly #children = new Set<ChildProcess>();
  log = '';

  constructor(cloud: TestCloud, settings: object = {}) {
    mkdirSync(this.stateDir);
    writeFileSync(join(this.home, 'ca.pem'), cloud.authority.pem);
    const config = {
      robot: { id: DEVICE.robotId },
      state_dir: 'state',
      cloud: { http_url: `https://localhost:${cloud.httpsPort}`, ca_file: 'ca.pem' },
      guard: { enabled: false },
      outbox: { flush_interval_ms: 50, flush_interval_offline_ms: 100 },
      uplink: { backoff_first_ms: 20, backoff_max_ms: 200, ack_timeout_ms: 1000 },
      ...settings,
    };
    writeFileSync(this.configFile, stringify(config));
  }

  /** Runs a verb to its end. */
  async command(...args: string[]): Promise<{ code: number | null; stdout: string; stderr: string }> {
    const child = this.start(...args);
    let stdout = '';
    let stderr = '';
    child.stdout?.on('data', (chunk: Buffer) => {
      stdout += chunk.toString();
    });
    child.stderr?.on('data', (chunk: Buffer) => {
      stderr += chunk.toString();
    });
    const code = await exited(child);
    return { code, stdout, stderr };
  }

  start(...args: string[]): ChildProcess {
    const child = spawn(process.execPath, [EDGE, ...args, '--config', this.configFile], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#children.add(child);
    child.stderr?.on('data', (chunk: Buffer) => {
      this.log += chunk.toString();
    });
    child.once('exit', () => this.#children.delete(child));
    return child;
  }

  async enrol(cloud: TestCloud): Promise<void> {
    const { code, stderr } = await this.command('enroll', '--api-key', cloud.apiKey);
    if (code !== 0) throw new Error(stderr);
  }

  async close(): Promise<void> {
    for (const child of this.#children) {
      child.kill('SIGKILL');
      await exited(child);
    }
    rmSync(this.home, { recursive: true, force: true });
  }
}

export function exited(child: ChildProcess): Promise<number | null> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve(child.exitCode);
  return new Promise((resolve) => child.once('exit', (code) => resolve(code)));
}

/** Polls until true. @throws when it does not become true in good time. */
export async function until(
  what: string,
  isTrue: () => boolean | Promise<boolean>,
  patienceMs = 60_000,
): Promise<void> {
  for (const end = Date.now() + patienceMs; Date.now() < end; ) {
    if (await isTrue()) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error(`not within ${patienceMs} ms: ${what}`);
}

/** Writes a CSV recording of noise: `rows` rows in two streams. */
export function writeRecording(file: string, rows: number): object {
  const lines = ['t,a,b,c'];
  for (let row = 0; row < rows; row += 1)
    lines.push([row / 50, Math.sin(row / 7) + row, Math.cos(row / 11) * row, row].map(String).join(','));
  writeFileSync(file, `${lines.join('\n')}\n`);
  return {
    type: 'replay',
    file,
    columns: {
      time: { column: 't', unit: 's' },
      start: '2026-01-01T00:00:00Z',
      streams: [
        { stream: 'arm', kind: 'joint_state', names: ['q0', 'q1'], fields: { position: ['a', 'b'] } },
        { stream: 'counter', kind: 'temperature', fields: { temperature: ['c'] } },
      ],
    },
  };
}

/** All samples that the cloud has, counted by stream and position in the recording; `problem` when one is there twice. */
export function counted(cloud: TestCloud): { samples: number; problem: string } {
  const seen = new Set<string>();
  for (const { kind, body } of cloud.lane('telemetry')) {
    if (kind !== BodyKind.BODY_TELEMETRY) continue;
    const block = decodeBlock(body);
    for (const stampNs of block.receivedNs) {
      const key = `${block.layout.stream} ${stampNs}`;
      if (seen.has(key)) return { samples: seen.size, problem: `${key} is there twice` };
      seen.add(key);
    }
  }
  return { samples: seen.size, problem: '' };
}
