import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Database, openDatabase } from '@outrider/cloud/storage/database';
import { type Engine, startPostgres } from '@outrider/cloud/testing/engines';
import { requestCertificate } from '@outrider/edge-agent/enroll/cloud-client';
import { createSigningRequest } from '@outrider/edge-agent/enroll/signing-request';
import { createLogger } from '@outrider/shared/log';
import { pause } from '@outrider/shared/service';
import { systemClock } from '@outrider/shared/time';
import { type Cloud, Stack } from '../stack.ts';
import type { RobotLoad } from './robots.ts';
import type { SimCredentials } from './sim-robot.ts';

const TENANT = 'default';
const ENROLLING = 8;
const log = createLogger('load', 'silent');
export const never: AbortSignal = new AbortController().signal;

/** A control plane on a PostgreSQL of its own, as it is served, and direct access to what it stored. */
export interface Site {
  readonly stack: Stack;
  readonly postgres: Engine;
  readonly cloud: Cloud;
  readonly caPem: string;
  readonly mqtt: Pick<RobotLoad, 'host' | 'port' | 'caPem'>;
  /** A connection of ours beside those of the control plane. */
  readonly database: Database;
  readonly stateDir: string;
  end(): Promise<void>;
}

export interface SiteOptions {
  readonly say: (line: string) => void;
  /** Whether a commit waits for the disk, as in the field. */
  readonly isDurable: boolean;
  /** Where to write a CPU profile of the control plane. */
  readonly profileDir?: string | undefined;
}

/** Starts PostgreSQL and `outrider-cloud serve`. */
export async function openSite({ say, isDurable, profileDir }: SiteOptions): Promise<Site> {
  const stateDir = mkdtempSync(join(tmpdir(), 'outrider-load-'));
  const stop = new AbortController();
  const stack = new Stack({
    stateDir,
    signal: stop.signal,
    say: (line) => {
      say(line);
      // Its log goes away with the folder.
      const file = / Its log: (.+)$/.exec(line)?.[1];
      if (file !== undefined) for (const last of lastLines(file)) say(last);
    },
  });
  const closers: (() => Promise<unknown>)[] = [async () => rmSync(stateDir, { recursive: true, force: true })];
  const end = async (): Promise<void> => {
    for (const close of closers.splice(0).reverse()) await close();
  };
  try {
    const postgres = await startPostgres({ isDurable });
    closers.push(() => postgres.stop());
    closers.push(() => stack.stop());
    const env = { DATABASE_URL: postgres.url, ...(profileDir === undefined ? {} : profiling(profileDir)) };
    const cloud = await stack.startCloud({ httpPort: 0, env });
    const database = await openDatabase({ databaseUrl: postgres.url, dataDir: stateDir, log, clock: systemClock });
    closers.push(() => database.close());
    // The load is not what rate limits are for.
    await database.query(`update tenant set tier = 'enterprise'`);
    const caPem = readFileSync(cloud.ready.ca_file, 'utf8');
    const url = new URL(cloud.ready.mqtt_url);
    return {
      stack,
      postgres,
      cloud,
      caPem,
      mqtt: { host: url.hostname, port: Number(url.port), caPem },
      database,
      stateDir,
      end,
    };
  } catch (error) {
    await end();
    throw error;
  }
}

const LAST_LINES = 12;
const lastLines = (file: string): string[] => readFileSync(file, 'utf8').trimEnd().split('\n').slice(-LAST_LINES);

const profiling = (directory: string): Record<string, string> => ({
  NODE_OPTIONS: `--import=${new URL('./profile-child.js', import.meta.url)}`,
  LOAD_PROFILE_DIR: directory,
});

const robotIdOf = (index: number): string => `LOAD-${String(index + 1).padStart(5, '0')}`;

/** Registers robots and certifies a key of each, over HTTP as an installer does it. */
export async function enrolFleet(site: Site, count: number, say: (line: string) => void): Promise<SimCredentials[]> {
  const made = new Array<SimCredentials>(count);
  let next = 0;
  const enrolOn = async (): Promise<void> => {
    while (next < count) {
      const index = next;
      next += 1;
      made[index] = await enrolRobot(site, robotIdOf(index));
      if ((index + 1) % 250 === 0) say(`${index + 1} of ${count} robots enrolled`);
    }
  };
  await Promise.all(Array.from({ length: ENROLLING }, enrolOn));
  return made;
}

async function enrolRobot(site: Site, robotId: string): Promise<SimCredentials> {
  const apiKey = await site.cloud.client.registerRobot(robotId);
  const { csr, privateKey } = await createSigningRequest(`${TENANT}.${robotId}`);
  const httpUrl = site.cloud.ready.http_url;
  const granted = await requestCertificate({ httpUrl, robotId, apiKey, csr, ca: undefined, clock: systemClock });
  return { tenantId: TENANT, robotId, certificatePem: granted.certificate, keyPem: privateKey };
}

/** Polls until it holds. @returns Whether it did in time. */
export async function holdsWithin(ms: number, holds: () => boolean | Promise<boolean>, stepMs = 100): Promise<boolean> {
  const endMs = systemClock.monotonicMs() + ms;
  for (;;) {
    if (await holds()) return true;
    if (systemClock.monotonicMs() >= endMs) return false;
    await pause(stepMs, never);
  }
}
