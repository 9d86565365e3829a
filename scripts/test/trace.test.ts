import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { outrider } from '@outrider/shared/messages';
import mqtt from 'mqtt';
import t from 'tap';
import { repositoryRoot } from '../src/stack.ts';
import { openStack } from './rig.ts';

const { Instruction, SignedInstruction } = outrider.v1;
const ROBOT = 'trace-1';

t.test(
  'one request id is in the answer, the instruction, the edge’s log and the event',
  { timeout: 480_000 },
  async (t) => {
    const { stack, end } = openStack(() => undefined, 120_000);
    t.teardown(end);
    const cloud = await stack.startCloud({ httpPort: 0 });
    const robot = await stack.startRobot(cloud, { robotId: ROBOT });
    await stack.until('telemetry', async () => (await cloud.client.sampleCounts(ROBOT)).size > 0);
    // With the agent away, its place on the broker is ours: what comes there is what it would have been told.
    await robot.edge.stop();
    const identity = (name: string): Buffer => readFileSync(join(robot.home, 'state/identity', name));
    const line = await mqtt.connectAsync(cloud.ready.mqtt_url, {
      clientId: `default.${ROBOT}`,
      protocolVersion: 4,
      cert: identity('robot.crt'),
      key: identity('robot.key'),
      ca: readFileSync(cloud.ready.ca_file),
    });
    const heard: string[] = [];
    line.on('message', (topic, payload) => {
      if (topic.endsWith('/down/command'))
        heard.push(Instruction.decode(SignedInstruction.decode(payload).payload).traceId);
    });
    await line.subscribeAsync(`outrider/v1/default.${ROBOT}/down/+`, { qos: 1 });

    const headers = { authorization: `Bearer ${await cloud.client.token()}`, 'x-request-id': 'console.42-a' };
    const live = new AbortController();
    t.teardown(() => live.abort());
    const events = await fetch(`${cloud.ready.http_url}/api/v1/dashboard/stream?robot_id=${ROBOT}`, {
      headers: { ...headers, accept: 'text/event-stream' },
      signal: live.signal,
    });
    let told = '';
    void (async () => {
      for await (const chunk of events.body ?? []) told += Buffer.from(chunk).toString();
    })().catch(() => undefined);

    const reply = await fetch(`${cloud.ready.http_url}/api/v1/robots/${ROBOT}/failsafe/trigger`, {
      method: 'POST',
      headers: { ...headers, 'content-type': 'application/json' },
      body: JSON.stringify({ mode: 'mechanical_lock', reason: 'trace' }),
    });
    t.equal(reply.status, 504, 'nobody answers for the robot yet; the stop is kept');
    t.equal(reply.headers.get('x-request-id'), 'console.42-a', 'the answer');
    t.match(await reply.json(), { error: { request_id: 'console.42-a' } }, 'and its body');
    await stack.until('the instruction', () => heard.length > 0);
    t.same([...new Set(heard)], ['console.42-a'], 'the instruction over MQTT');
    await line.endAsync();

    const agent = join(repositoryRoot, 'edge-agent/bin/outrider-edge.js');
    stack.start('edge-again', process.execPath, [agent, 'run', '--config', robot.configFile]);
    const logFile = stack.logFile('edge-again');
    const logged = (): string[] =>
      (existsSync(logFile) ? readFileSync(logFile, 'utf8') : '')
        .split('\n')
        .filter((entry) => entry.includes('"trace_id":"console.42-a"'));
    await stack.until('the edge’s log line', () => logged().length > 0);
    t.match(JSON.parse(logged()[0] ?? ''), { msg: 'command.answered', verb: 'trigger', trace_id: 'console.42-a' });
    await stack.until('the event', () => told.includes('"trace_id":"console.42-a"'));
    const event = told
      .split('\n')
      .filter((entry) => entry.startsWith('data: ') && entry.includes('console.42-a'))
      .map((entry) => JSON.parse(entry.slice(6)) as { data: { event_type: string; trace_id: string } })[0];
    t.equal(event?.data.trace_id, 'console.42-a', `the event ${event?.data.event_type}`);
  },
);
