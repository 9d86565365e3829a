import { execFile, fork } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdtempSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { CommandDesk } from '@outrider/edge-agent/commands/command-desk';
import { CommandLog } from '@outrider/edge-agent/commands/command-log';
import { TrustedKeys } from '@outrider/edge-agent/commands/trusted-keys';
import { IdentityStore } from '@outrider/edge-agent/enroll/identity';
import { Outbox } from '@outrider/edge-agent/outbox/outbox';
import { LaneSender } from '@outrider/edge-agent/uplink/lane-sender';
import { Uplink } from '@outrider/edge-agent/uplink/uplink';
import { deviceName } from '@outrider/shared/ids';
import { createLogger } from '@outrider/shared/log';
import { upTopic } from '@outrider/shared/protocol/topics';
import { systemClock } from '@outrider/shared/time';
import { connectAsync } from 'mqtt';
import {
  alternate,
  type BenchContext,
  format,
  type Row,
  type RowPlan,
  RowSkipped,
  spreadOf,
  wallMs,
} from './measure.ts';
import { end } from './robot.ts';
import { jointSamples } from './samples.ts';

const run = promisify(execFile);
const CHILD = fileURLToPath(new URL('./uplink-child.js', import.meta.url));
const DEVICE = { tenantId: 'default', robotId: 'RB-BENCH' };
const BLOCKS = 1500;
const WINDOW = 4;
const RATIO_MIN = 0.5;
const PATIENCE_MS = 120_000;
const log = createLogger('bench', 'silent');

/** A backlog through the real uplink, against a bare client that sends the same messages. */
export const UPLINK_PLANS: readonly RowPlan[] = [
  { name: 'uplink of a backlog, TLS', measure: async (context) => [await uplink(context)] },
];

interface Far {
  readonly url: string;
  readonly key: string;
  readonly certificate: string;
}

async function uplink({ directory, pairs }: BenchContext): Promise<Row> {
  const { keyFile, certificateFile } = await certify(directory);
  const full = mkdtempSync(join(directory, 'full-'));
  const payloads = await fill(full);
  const bytes = payloads.reduce((sum, payload) => sum + payload.length, 0);
  const child = fork(CHILD, [keyFile, certificateFile], { execArgv: [] });
  try {
    const [port] = (await once(child, 'message')) as [number];
    const far: Far = {
      url: `mqtts://localhost:${port}`,
      key: readFileSync(keyFile, 'utf8'),
      certificate: readFileSync(certificateFile, 'utf8'),
    };
    const rate = (ms: number): number => bytes / 1e6 / (ms / 1000);
    const { ours, theirs, ratio } = await alternate(
      pairs,
      async () => {
        const copy = mkdtempSync(join(directory, 'copy-'));
        cpSync(full, copy, { recursive: true });
        return rate(await throughUplink(copy, far));
      },
      async () => rate(await throughBareClient(payloads, far)),
    );
    const words = (rates: number[]): string => `${format(spreadOf(rates).median)} MB/s`;
    return {
      name: `uplink of a backlog of ${format(bytes / 1e6)} MB over TLS: read, send, acknowledged by the far end`,
      peer: `bare MQTT.js, same messages, QoS 1, ${WINDOW} in flight, until the last PUBACK`,
      goal: `≥ ${RATIO_MIN}`,
      ours: words(ours),
      theirs: words(theirs),
      ratio,
      met: ratio.median >= RATIO_MIN,
    };
  } finally {
    await end(child);
  }
}

const openOutbox = (stateDir: string): Outbox =>
  new Outbox({
    stateDir,
    sizeMaxBytes: 512 * 2 ** 20,
    commitIntervalMs: 50,
    flushIntervalMs: 250,
    flushIntervalOfflineMs: 1000,
    bootId: 'bench',
    log,
    clock: systemClock,
  });

/** Makes the backlog. @returns The messages that it becomes on the wire. */
async function fill(stateDir: string): Promise<Uint8Array[]> {
  const outbox = openOutbox(stateDir);
  const samples = jointSamples(100);
  for (let block = 0; block < BLOCKS; block += 1) for (const sample of samples) outbox.appendSample(sample);
  outbox.flush();
  const payloads: Uint8Array[] = [];
  new LaneSender('telemetry', outbox, systemClock, {
    window: Number.POSITIVE_INFINITY,
    watermark: 0,
    send: (_, payload) => payloads.push(payload),
  }).fill();
  outbox.setInFlight('telemetry', 0);
  outbox.close();
  return payloads;
}

/** From the first packet of the connection to the acknowledgement of the last record. [ms] */
async function throughUplink(stateDir: string, { url, key, certificate }: Far): Promise<number> {
  const outbox = openOutbox(stateDir);
  const identities = new IdentityStore(stateDir);
  const commands = CommandLog.open(stateDir, log);
  const last = outbox.maxSeq('telemetry');
  const drained = new Promise<void>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error('the backlog did not drain')), PATIENCE_MS);
    const acknowledge = outbox.acknowledge.bind(outbox);
    outbox.acknowledge = (ack) => {
      const isKnown = acknowledge(ack);
      if (isKnown && ack.lane === 'telemetry' && ack.upto >= last) {
        clearTimeout(timer);
        resolve();
      }
      return isKnown;
    };
  });
  const link = new Uplink({
    device: DEVICE,
    bootId: 'bench',
    agentVersion: '0.0.0',
    windowBatches: WINDOW,
    ackTimeoutMs: 60_000,
    helloTimeoutMs: 60_000,
    connectTimeoutMs: 60_000,
    keepaliveS: 60,
    backoffFirstMs: 100,
    backoffMaxMs: 1000,
    identity: () => ({ mqttUrl: url, privateKey: key, certificate, ca: certificate }),
    outbox,
    commands: new CommandDesk({
      device: DEVICE,
      keys: new TrustedKeys(identities, () => undefined),
      commands,
      target: undefined,
      record: (event) => outbox.appendEvent(event),
      clock: systemClock,
      log,
    }),
    clock: systemClock,
    log,
  });
  const stop = new AbortController();
  // Its timer deletes what is acknowledged, as in operation.
  const running: Promise<void>[] = [outbox.run(stop.signal)];
  try {
    return await wallMs(async () => {
      running.push(link.run(stop.signal));
      await drained;
    });
  } finally {
    stop.abort();
    await Promise.all(running);
    commands.close();
  }
}

async function throughBareClient(payloads: readonly Uint8Array[], far: Far): Promise<number> {
  const { url, key, certificate } = far;
  const topic = upTopic(DEVICE, 'telemetry');
  let next = 0;
  return wallMs(async () => {
    const client = await connectAsync(url, {
      protocolVersion: 4,
      clientId: deviceName(DEVICE),
      key,
      cert: certificate,
      ca: certificate,
      reconnectPeriod: 0,
    });
    const lane = async (): Promise<void> => {
      for (let payload = payloads[next++]; payload; payload = payloads[next++])
        await client.publishAsync(topic, Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength), {
          qos: 1,
        });
    };
    await Promise.all(Array.from({ length: WINDOW }, lane));
    await client.endAsync();
  });
}

/** One certificate that both ends show and both trust. */
async function certify(directory: string): Promise<{ keyFile: string; certificateFile: string }> {
  const keyFile = join(directory, 'tls.key');
  const certificateFile = join(directory, 'tls.crt');
  const request = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'];
  const names = ['-subj', `/CN=${deviceName(DEVICE)}`, '-addext', 'subjectAltName=DNS:localhost'];
  try {
    await run('openssl', [...request, ...names, '-keyout', keyFile, '-out', certificateFile]);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT')
      throw new RowSkipped('there is no openssl (apt-get install openssl)');
    throw error;
  }
  return { keyFile, certificateFile };
}
