import { type ChildProcess, spawn } from 'node:child_process';
import type { EventEnvelope } from '@outrider/shared/events';
import { createLogger } from '@outrider/shared/log';
import { systemClock } from '@outrider/shared/time';
import { Registry } from 'prom-client';
import { EventFeed } from '../src/events/event-feed.ts';
import type { NewEvent } from '../src/events/ports.ts';
import { EventPublisher, type EventTransport } from '../src/events/publisher.ts';
import type { Database } from '../src/storage/database.ts';
import { SqlEventLog } from '../src/storage/event-store.ts';
import { until } from '../src/testing/engines.ts';

const logger = createLogger('test', 'silent');

/** Notes when its feed has found the place from which its watchers are told. */
class NotingLog extends SqlEventLog {
  isFound = false;

  override async head(): Promise<number> {
    const head = await super.head();
    this.isFound = true;
    return head;
  }
}

/** A feed and, when there is a transport, a publisher on a database: what one replica runs. */
export function runEvents(
  database: Database,
  transport?: EventTransport,
): { readonly feed: EventFeed; readonly log: SqlEventLog; listening(): Promise<void>; stop(): Promise<void> } {
  const log = new NotingLog(database);
  const deps = { log, clock: systemClock, logger };
  const feed = new EventFeed(deps);
  const stop = new AbortController();
  const running: Promise<void>[] = [feed.run(stop.signal)];
  if (transport) {
    const publisher = new EventPublisher({ ...deps, transport, metrics: new Registry() });
    running.push(publisher.run(stop.signal));
  }
  return {
    feed,
    log,
    /** Resolves when who has subscribed is told of whatever is committed from now on. */
    listening: () => until(() => log.isFound, 'the feed to know its place'),
    async stop() {
      stop.abort();
      await Promise.all(running);
    },
  };
}

/** Notes what it is given; fails for as long as `isDown`. */
export class NotingTransport implements EventTransport {
  readonly sent: { topic: string; envelope: EventEnvelope }[] = [];
  isDown = false;
  delayMs = 0;

  async publish(topic: string, payload: Uint8Array): Promise<void> {
    if (this.delayMs > 0) await new Promise((resolve) => setTimeout(resolve, this.delayMs));
    if (this.isDown) throw new Error('the broker is away');
    this.sent.push({ topic, envelope: JSON.parse(Buffer.from(payload).toString()) as EventEnvelope });
  }
}

/** One valid event of each type that the control plane itself is to emit. */
export const CLOUD_EVENTS: readonly NewEvent[] = [
  {
    type: 'swarm.leader_elected.v1',
    tenantId: 'default',
    swarmId: 'assembly-line-a',
    occurredAtMs: Date.UTC(2026, 0, 11),
    traceId: 'req_swarm',
    payload: { leader_robot_id: 'RB-2001', term: 3, previous_leader_robot_id: null },
  },
  {
    type: 'twin.simulation.completed.v1',
    tenantId: 'default',
    robotId: 'RB-1',
    occurredAtMs: Date.UTC(2026, 0, 11),
    traceId: 'req_twin',
    payload: {
      simulation_id: 'sim_7f2',
      mode: 'joint_fatigue',
      physics_backend: 'mujoco',
      failure_probability: 0.28,
      maintenance_window_hours: 72,
      risk_heatmap_uri: null,
    },
  },
];

/** What a robot sends of an anomaly and of a stop. */
export const EDGE_PAYLOADS = {
  'anomaly.detected.v1': {
    anomaly_score: 0.91,
    risk_level: 'high',
    signals: [{ signal: 'knee_l', score: 0.9, since: '2026-01-11T05:12:00.000Z' }],
  },
  'failsafe.triggered.v1': {
    mode: 'thermal_shutdown',
    action: 'STOP1',
    causes: [{ cause: 'thermal_shutdown', action: 'STOP1', detail: 'knee_l 96.0 °C' }],
    latch_id: 3,
    motion_epoch: 1,
    requested_by: '',
    reason: '',
    decision_latency_ms: 21.5,
  },
} as const;

/** mosquitto_sub on a tenant's events: nothing of ours reads what it prints. */
export class Subscriber {
  readonly lines: { topic: string; envelope: EventEnvelope }[] = [];
  /** Every topic that it heard, whatever it is. */
  readonly topics: string[] = [];
  readonly ended: Promise<number | null>;
  readonly #child: ChildProcess;
  #text = '';
  #errors = '';

  constructor(options: { port: number; folder: string; name: string; filter: string; tenant?: string }) {
    const { port, folder, name, filter, tenant = 'default' } = options;
    const files = ['--cafile', `${folder}/ca.pem`, '--cert', `${folder}/${name}.pem`, '--key', `${folder}/${name}.key`];
    const where = ['-h', 'localhost', '-p', String(port), '-i', `events:${tenant}:${name}`, '-q', '1'];
    const command = ['mosquitto_sub', ...where, ...files, '-t', filter, '-F', '%t %p', '-d'];
    // Line by line: a pipe would be given whole blocks.
    this.#child = spawn('stdbuf', ['-oL', ...command], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#child.stdout?.on('data', (chunk: Buffer) => this.#take(chunk.toString()));
    this.#child.stderr?.on('data', (chunk: Buffer) => {
      this.#errors += chunk.toString();
    });
    this.ended = new Promise((resolve) => this.#child.on('close', resolve));
  }

  get hasEnded(): boolean {
    return this.#child.exitCode !== null;
  }

  /** Whether the broker has confirmed the subscription. */
  get isSubscribed(): boolean {
    return /Subscribed \(mid: \d+\): 1/.test(this.output);
  }

  /** All that it printed of itself. */
  get output(): string {
    return this.#errors;
  }

  async end(): Promise<void> {
    this.#child.kill('SIGTERM');
    await this.ended;
  }

  #take(chunk: string): void {
    this.#text += chunk;
    for (let end = this.#text.indexOf('\n'); end >= 0; end = this.#text.indexOf('\n')) {
      const line = this.#text.slice(0, end);
      this.#text = this.#text.slice(end + 1);
      const [topic = '', ...rest] = line.split(' ');
      if (topic.includes('/')) this.topics.push(topic);
      if (topic.startsWith('events/'))
        this.lines.push({ topic, envelope: JSON.parse(rest.join(' ')) as EventEnvelope });
      else this.#errors += `${line}\n`;
    }
  }
}
