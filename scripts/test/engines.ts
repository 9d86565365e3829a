import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Engine, noMosquitto, noPostgres, startMosquitto, startPostgres } from '@outrider/cloud/testing/engines';
import { type Cloud, freePorts, type Stack } from '../src/stack.ts';

/** Control planes and what they run on. */
export interface RunningEngines {
  readonly clouds: Cloud[];
  /** Absent where they are in the control plane's own process. */
  readonly broker?: Engine;
  readonly database?: Engine;
  end(): Promise<void>;
}

/** What the control plane runs on. */
export interface EngineKind {
  readonly name: string;
  /** Why it cannot run here; `false` when it can. */
  readonly skip: string | false;
  /** Starts the control planes, the first of which the robots are told about. */
  start(stack: Stack, stateDir: string): Promise<RunningEngines>;
}

const embedded: EngineKind = {
  name: 'PGlite and aedes',
  skip: false,
  start: async (stack) => ({ clouds: [await stack.startCloud({ httpPort: 0 })], end: async () => undefined }),
};

const external: EngineKind = {
  name: 'PostgreSQL and Mosquitto, two control planes',
  skip: noPostgres || noMosquitto,
  start: async (stack, stateDir) => {
    const postgres = await startPostgres();
    const env = { OUTRIDER_SECRET_KEY: randomBytes(32).toString('base64'), DATABASE_URL: postgres.url };
    // Beside the state, which only its owner can enter: Mosquitto runs as a user of its own.
    const dir = mkdtempSync(join(tmpdir(), 'outrider-mosquitto-'));
    const [listenPort, cloudPort] = (await freePorts(2)) as [number, number];
    const ports = ['--listen-port', String(listenPort), '--cloud-port', String(cloudPort)];
    const args = ['broker-config', 'mosquitto', '--state-dir', join(stateDir, 'cloud'), '--out', dir, ...ports];
    const config = (await stack.cloudCommand(args, env)).trim();
    const mosquitto = await startMosquitto(config, dir, listenPort, []);
    const shared = {
      httpPort: 0,
      env,
      extraArgs: [
        '--mqtt-url',
        `mqtts://127.0.0.1:${cloudPort}`,
        '--public-mqtt-url',
        `mqtts://127.0.0.1:${listenPort}`,
      ],
    };
    const first = await stack.startCloud(shared);
    const second = await stack.startCloud({ ...shared, name: 'cloud-b', bootstrap: first.bootstrap });
    return {
      clouds: [first, second],
      broker: mosquitto,
      database: postgres,
      end: async () => {
        await mosquitto.stop();
        await postgres.stop();
        rmSync(dir, { recursive: true });
      },
    };
  },
};

export const ENGINES: readonly EngineKind[] = [embedded, external];
