import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { errorMessage } from '@outrider/shared/errors';
import { freePort } from '@outrider/shared/free-port';
import { pause } from '@outrider/shared/service';
import { parse as parseYaml, stringify as toYaml } from 'yaml';
import { SupervisedChild } from './child.ts';
import { type Bootstrap, CloudClient, type CloudReady } from './cloud-client.ts';

const run = promisify(execFile);
export const repositoryRoot = resolve(fileURLToPath(new URL('../../..', import.meta.url)));
const CLOUD = join(repositoryRoot, 'cloud/bin/outrider-cloud.js');
const EDGE = join(repositoryRoot, 'edge-agent/bin/outrider-edge.js');
const MCU = join(repositoryRoot, 'firmware-bridge/firmware/build/outrider-mcu');
const POLL_MS = 100;

export interface StackOptions {
  /** Where everything is kept. */
  readonly stateDir: string;
  readonly signal: AbortSignal;
  readonly say: (line: string) => void;
  readonly onPid?: (name: string, pid: number) => void;
  readonly patienceMs?: number;
}

export interface CloudOptions {
  readonly name?: string;
  /** `0`: any free ports, the same again at the next start. Absent: the defaults. */
  readonly httpPort?: number;
  readonly extraArgs?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Credentials made by another replica on the same database. */
  readonly bootstrap?: Bootstrap;
}

export interface Cloud {
  readonly child: SupervisedChild;
  readonly ready: CloudReady;
  readonly bootstrap: Bootstrap;
  readonly client: CloudClient;
}

/** A recording to feed instead of the firmware. */
export interface Replay {
  readonly file: string;
  readonly speed: number;
  /** What the columns of a CSV are, as edge.yaml has it. */
  readonly columns?: object;
}

export interface RobotOptions {
  readonly robotId: string;
  readonly replay?: Replay;
  /** Further settings of edge.yaml. */
  readonly settings?: Readonly<Record<string, unknown>>;
  /** Added to the agent's environment. */
  readonly env?: Readonly<Record<string, string>>;
}

export interface Robot {
  readonly robotId: string;
  readonly home: string;
  readonly configFile: string;
  readonly apiKey: string;
  readonly edge: SupervisedChild;
  readonly mcu: SupervisedChild | undefined;
}

/** The programs of one Outrider installation on this machine, each kept running until `stop`. */
export class Stack {
  readonly #options: StackOptions;
  readonly #children: SupervisedChild[] = [];

  constructor(options: StackOptions) {
    this.#options = options;
    mkdirSync(join(options.stateDir, 'logs'), { recursive: true });
  }

  /** Stops everything, the robots first so that their last records still reach the cloud. */
  async stop(): Promise<void> {
    for (const child of this.#children.splice(0).reverse()) await child.stop();
  }

  logFile(name: string): string {
    return join(this.#options.stateDir, 'logs', `${name}.log`);
  }

  start(
    name: string,
    command: string,
    args: readonly string[],
    env: Readonly<Record<string, string>> = {},
  ): SupervisedChild {
    const { say, onPid } = this.#options;
    const child = new SupervisedChild(
      { name, command, args, env, logFile: this.logFile(name), onPid: (pid) => onPid?.(name, pid) },
      say,
    );
    this.#children.push(child);
    return child;
  }

  /** Starts a control plane and waits until it serves. */
  async startCloud(options: CloudOptions = {}): Promise<Cloud> {
    const name = options.name ?? 'cloud';
    const home = join(this.#options.stateDir, name);
    const readyFile = join(this.#options.stateDir, `${name}-ready.json`);
    const args = ['serve', '--state-dir', home, '--ready-file', readyFile, ...(options.extraArgs ?? [])];
    if (options.httpPort === 0) {
      const portsFile = join(this.#options.stateDir, `${name}-ports.json`);
      const ports = existsSync(portsFile) ? readJson<number[]>(portsFile) : await freePorts(4);
      writeJson(portsFile, ports);
      for (const [index, option] of ['--http-port', '--https-port', '--mqtt-port', '--grpc-port'].entries())
        args.push(option, String(ports[index] ?? 0));
    } else if (options.httpPort !== undefined) args.push('--http-port', String(options.httpPort));
    writeFileSync(readyFile, '');
    // Executed as it is installed: its first line says with which settings of V8.
    const child = this.start(name, CLOUD, args, options.env);
    await this.until(
      'the control plane',
      () => readFileSync(readyFile, 'utf8') !== '',
      () => this.#death(child, name),
    );
    const ready = readJson<CloudReady>(readyFile);
    const bootstrap = options.bootstrap ?? readJson<Bootstrap>(join(home, 'bootstrap.json'));
    return { child, ready, bootstrap, client: new CloudClient(ready, bootstrap) };
  }

  /** Registers, enrols and starts a robot: its microcontroller unless it replays a recording, its guard, its agent. */
  async startRobot(cloud: Cloud, options: RobotOptions): Promise<Robot> {
    const { robotId, replay } = options;
    const home = join(this.#options.stateDir, 'robots', robotId);
    mkdirSync(home, { recursive: true });
    const configFile = join(home, 'edge.yaml');
    const line = join(home, 'mcu.tty');
    const apiKey = await this.#apiKey(cloud.client, robotId, join(home, 'api-key'));
    // What a person changed in the file stays; where this run gets its input from and reaches the cloud is replaced.
    const existing = existsSync(configFile) ? (parseYaml(readFileSync(configFile, 'utf8')) as object) : {};
    writeFileSync(
      configFile,
      toYaml({
        ...existing,
        robot: { id: robotId, tenant: 'default' },
        state_dir: 'state',
        cloud: { http_url: cloud.ready.https_url, mqtt_url: cloud.ready.mqtt_url, ca_file: cloud.ready.ca_file },
        sources: replay
          ? [{ type: 'replay', ...replay, file: resolve(replay.file) }]
          : [{ type: 'serial', path: line, baud: 921_600, rate_hz: 50 }],
        ...options.settings,
      }),
    );
    let mcu: SupervisedChild | undefined;
    if (!replay) {
      const control = join(home, 'mcu.control');
      mcu = this.start(`mcu-${robotId}`, MCU, ['--link', line, '--joints', '30', '--control', control]);
      const started = mcu;
      await this.until(
        'the microcontroller',
        () => existsSync(line),
        () => this.#death(started, `mcu-${robotId}`),
      );
    }
    if (!existsSync(join(home, 'state', 'identity', 'robot.crt'))) await this.enroll(configFile, apiKey);
    const edge = this.start(`edge-${robotId}`, process.execPath, [EDGE, 'run', '--config', configFile], options.env);
    return { robotId, home, configFile, apiKey, edge, mcu };
  }

  async enroll(configFile: string, apiKey: string): Promise<void> {
    await this.edgeCommand('enroll', '--config', configFile, '--api-key', apiKey);
  }

  /** Runs a verb of outrider-cloud. @throws Error with what it said when it fails. */
  async cloudCommand(args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<string> {
    return command('outrider-cloud', [CLOUD, ...args], env);
  }

  /** Runs a verb of outrider-edge. @throws Error with what it said when it fails. */
  async edgeCommand(...args: readonly string[]): Promise<string> {
    return command('outrider-edge', [EDGE, ...args]);
  }

  /** Polls until ready, or throws: when the thing died, when it takes too long, when the stack is told to stop. */
  async until(
    what: string,
    ready: () => boolean | Promise<boolean>,
    death: () => string | undefined = () => undefined,
  ): Promise<void> {
    const patienceMs = this.#options.patienceMs ?? 60_000;
    for (let waitedMs = 0; waitedMs < patienceMs; waitedMs += POLL_MS) {
      if (this.#options.signal.aborted) throw new Error('interrupted');
      const died = death();
      if (died) throw new Error(died);
      if (await ready()) return;
      await pause(POLL_MS, this.#options.signal);
    }
    throw new Error(`${what}: not within ${patienceMs / 1000} s`);
  }

  #death(child: SupervisedChild, name: string): string | undefined {
    if (child.lastDeath === undefined) return undefined;
    const lastLines = readFileSync(this.logFile(name), 'utf8').trim().split('\n').slice(-12).join('\n');
    return `${name} ended: ${child.lastDeath}\n${lastLines}`;
  }

  async #apiKey(client: CloudClient, robotId: string, keyFile: string): Promise<string> {
    if (existsSync(keyFile)) return readFileSync(keyFile, 'utf8').trim();
    const key = await client.registerRobot(robotId);
    writeFileSync(keyFile, `${key}\n`, { mode: 0o600 });
    return key;
  }
}

async function command(
  name: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<string> {
  try {
    return (await run(process.execPath, args, { env: { ...process.env, ...env } })).stdout;
  } catch (error) {
    const said = (error as { stderr?: string }).stderr?.trim();
    throw new Error(`${name} ${args[1]}: ${said || errorMessage(error)}`);
  }
}

/** Ports on which nobody listens now, each another one. */
export async function freePorts(count: number): Promise<number[]> {
  const ports = new Set<number>();
  while (ports.size < count) ports.add(await freePort());
  return [...ports];
}

export const readJson = <T>(file: string): T => JSON.parse(readFileSync(file, 'utf8')) as T;

/** Writes a file that others only ever see whole. */
export function writeJson(file: string, value: unknown): void {
  writeFileSync(`${file}.new`, `${JSON.stringify(value, null, 2)}\n`, { mode: 0o600 });
  renameSync(`${file}.new`, file);
}
