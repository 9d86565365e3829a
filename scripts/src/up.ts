import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { errorMessage } from '@outrider/shared/errors';
import { aborted } from '@outrider/shared/service';
import { Command, InvalidArgumentError } from 'commander';
import { parse as parseYaml } from 'yaml';
import type { Bootstrap, CloudReady } from './cloud-client.ts';
import { type Cloud, type Replay, type Robot, repositoryRoot, Stack, writeJson } from './stack.ts';

const FIRST_ROBOT = 1022;

interface Options {
  readonly stateDir: string;
  readonly httpPort?: number;
  readonly robot: boolean;
  readonly robots: number;
  readonly replay?: string;
  readonly speed: number;
  readonly columns?: string;
}

async function main(options: Options): Promise<void> {
  const stop = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => stop.abort());
  const say = (line: string): void => console.log(line);
  const stateDir = resolve(options.stateDir);
  const pids: Record<string, number> = { up: process.pid };
  let publishDev = (): void => undefined;
  const stack = new Stack({
    stateDir,
    signal: stop.signal,
    say,
    onPid: (name, pid) => {
      pids[name.replace(`-RB-${FIRST_ROBOT}`, '')] = pid;
      publishDev();
    },
  });
  try {
    say('starting the control plane …');
    const cloud = await stack.startCloud(options.httpPort === undefined ? {} : { httpPort: options.httpPort });
    const robots: Robot[] = [];
    for (const robotId of options.robot ? robotIds(options.robots) : [])
      robots.push(await startRobot(stack, cloud, robotId, options, say));
    const first = robots[0];
    if (first) pids['guard'] = await guardPid(stack, first);
    publishDev = () => {
      const { http_url, https_url, mqtt_url, grpc_url, ca_file } = cloud.ready;
      const { client_id, client_secret, admin_user, admin_password } = cloud.bootstrap;
      writeJson(join(stateDir, 'dev.json'), {
        ...{ http_url, https_url, mqtt_url, grpc_url, ca_file },
        ...{ client_id, client_secret, admin_user, admin_password },
        robot_id: first?.robotId ?? null,
        robot_api_key: first?.apiKey ?? null,
        pids,
      });
    };
    publishDev();
    explain(cloud.ready, cloud.bootstrap, robots, stateDir);
    await aborted(stop.signal);
    say('\nstopping …');
  } finally {
    await stack.stop();
    say('stopped.');
  }
}

async function startRobot(
  stack: Stack,
  cloud: Cloud,
  robotId: string,
  options: Options,
  say: (line: string) => void,
): Promise<Robot> {
  say(`starting robot ${robotId} …`);
  const robot = await stack.startRobot(cloud, {
    robotId,
    ...(options.replay === undefined ? {} : { replay: replayOf(options.replay, options) }),
  });
  await stack.until(
    `telemetry of ${robotId}`,
    async () => (await cloud.client.sampleCounts(robotId)).size > 0,
    () => robot.edge.lastDeath && `the edge agent ended, see ${stack.logFile(`edge-${robotId}`)}`,
  );
  if (robot.mcu) await openGate(stack, robot, say);
  return robot;
}

/** A robot starts with its gate closed and somebody at the robot must open it. Here that is this command. */
async function openGate(stack: Stack, robot: Robot, say: (line: string) => void): Promise<void> {
  let refusal = '';
  const attempt = async (): Promise<boolean> => {
    try {
      await stack.edgeCommand('failsafe', 'recover', '--config', robot.configFile);
      return true;
    } catch (error) {
      refusal = errorMessage(error);
      return false;
    }
  };
  await stack
    .until(`recovery of ${robot.robotId}`, attempt)
    .catch(() => say(`${robot.robotId} stays stopped: ${refusal}`));
}

function replayOf(file: string, { speed, columns }: Options): Replay {
  if (!existsSync(file)) throw new Error(`--replay: ${file} is not there`);
  if (file.endsWith('.csv') && columns === undefined)
    throw new Error(
      '--replay: a CSV needs --columns FILE, which says what its columns are (see edge-agent/config/edge.yaml)',
    );
  return {
    file,
    speed,
    ...(columns === undefined ? {} : { columns: parseYaml(readFileSync(columns, 'utf8')) as object }),
  };
}

/** The guard is started by the agent, so only the agent can say. */
async function guardPid(stack: Stack, robot: Robot): Promise<number> {
  const status = await stack.edgeCommand('failsafe', 'status', '--config', robot.configFile, '--json');
  return (JSON.parse(status) as { guard_pid: number }).guard_pid;
}

const robotIds = (count: number): string[] => Array.from({ length: count }, (_, i) => `RB-${FIRST_ROBOT + i}`);

function explain(cloud: CloudReady, bootstrap: Bootstrap, robots: readonly Robot[], stateDir: string): void {
  const first = robots[0]?.robotId ?? `RB-${FIRST_ROBOT}`;
  const credentials = `{"grant_type":"client_credentials","client_id":"${bootstrap.client_id}","client_secret":"${bootstrap.client_secret}"}`;
  console.log(`
Outrider is up.
  HTTP   ${cloud.http_url}   (documentation of the API: ${cloud.http_url}/docs)
  HTTPS  ${cloud.https_url}   (its CA: ${cloud.ca_file})
  MQTT   ${cloud.mqtt_url}
  gRPC   ${cloud.grpc_url}   (with a certificate: outrider-cloud service-client issue)
  robots ${robots.map((robot) => robot.robotId).join(', ') || 'none'}
  logs   ${join(stateDir, 'logs')}
  all of this and the secrets: ${join(stateDir, 'dev.json')}

A token, and the robot's state:
  TOKEN=$(curl -s ${cloud.http_url}/api/v1/auth/token -H 'content-type: application/json' -d '${credentials}' \\
    | node -pe 'JSON.parse(require("fs").readFileSync(0)).access_token')
  curl -s ${cloud.http_url}/v1/robots/${first}/state -H "authorization: Bearer $TOKEN"
${
  robots[0]?.mcu
    ? `
Overheat a motor and watch the robot stop by itself:
  echo 'overheat 0' > ${join(robots[0].home, 'mcu.control')}
  edge-agent/bin/outrider-edge.js failsafe status --config ${robots[0].configFile}
Cool it down again, and let it move (after half a minute; it says what is still missing):
  echo 'cool 0' > ${join(robots[0].home, 'mcu.control')}
  edge-agent/bin/outrider-edge.js failsafe recover --config ${robots[0].configFile}
`
    : ''
}
Ctrl-C stops everything.`);
}

const wholeNumber = (text: string): number => {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError('must be a whole number');
  return Number(text);
};

await new Command('npm run up --')
  .description('Starts the control plane and a robot on this machine, and stays up until Ctrl-C.')
  .option('--state-dir <dir>', 'where everything is kept; delete it to start afresh', join(repositoryRoot, '.outrider'))
  .option(
    '--http-port <n>',
    'HTTP port; 0 takes any free ports, for HTTPS, MQTT and gRPC too (default: 8080)',
    wholeNumber,
  )
  .option('--no-robot', 'only the control plane')
  .option('--robots <n>', 'how many robots, from RB-1022 on', wholeNumber, 1)
  .option('--replay <file>', 'feed a recording (MCAP, .db3, CSV) through the edge agent instead of the firmware')
  .option('--columns <file>', 'YAML file that says what the columns of a CSV recording are')
  .option('--speed <x>', 'replay speed; 0 is as fast as it goes', Number, 1)
  .action(async (options: Options) => {
    try {
      await main(options);
    } catch (error) {
      console.error(`outrider: ${errorMessage(error)}`);
      process.exitCode = 1;
    }
  })
  .parseAsync();
