import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { type Database, openDatabase } from '@outrider/cloud/storage/database';
import { SqlIngestStore } from '@outrider/cloud/storage/ingest-store';
import { createPartitions } from '@outrider/cloud/storage/partitions';
import type { LaneOutcome } from '@outrider/cloud/telemetry/ingest-ports';
import type { RobotRef } from '@outrider/cloud/telemetry/ports';
import { readBatch } from '@outrider/cloud/telemetry/uplink';
import { Outbox } from '@outrider/edge-agent/outbox/outbox';
import { LANE_NUMBERS, LANES } from '@outrider/edge-agent/outbox/records';
import { LaneSender } from '@outrider/edge-agent/uplink/lane-sender';
import { createLogger } from '@outrider/shared/log';
import { decodeBlock } from '@outrider/shared/protocol/block';
import { systemClock } from '@outrider/shared/time';
import SqliteFile from 'better-sqlite3';
import t from 'tap';
import { Random } from '../src/faults/random.ts';
import { noiseLayout, noiseSample } from '../src/faults/sim-edge.ts';

const log = createLogger('test', 'silent');
const layout = noiseLayout('epochs', 6);

const openOutbox = (stateDir: string): Outbox =>
  new Outbox({
    stateDir,
    sizeMaxBytes: 64 * 1024 * 1024,
    commitIntervalMs: 50,
    flushIntervalMs: 250,
    flushIntervalOfflineMs: 1000,
    bootId: 'b007',
    log,
    clock: systemClock,
  });

/** The edge's records and the control plane's store, with nothing between them that could fail. */
class Line {
  readonly #database: Database;
  readonly #store: SqlIngestStore;
  readonly #robot: RobotRef;
  readonly #random = new Random(7);
  #made = 0;

  constructor(database: Database, robot: RobotRef) {
    this.#database = database;
    this.#store = new SqlIngestStore(database);
    this.#robot = robot;
  }

  /** Writes some samples and events, all of them different from any other. */
  async produce(outbox: Outbox, samples: number, events: number): Promise<void> {
    for (let i = 0; i < samples; i += 1, this.#made += 1) {
      outbox.appendSample(noiseSample(layout, this.#made, this.#random));
      if (i % 10 === 9) outbox.flush();
    }
    outbox.flush();
    for (let i = 0; i < events; i += 1, this.#made += 1) {
      const at = { occurredAtMs: 1_790_000_000_000 + this.#made, traceId: '' };
      const payload = { boot_id: 'b007', agent_version: '0.0.0', epoch: String(this.#made) };
      await outbox.appendEvent({ eventId: `evt_${this.#made}`, type: 'edge.started.v1', ...at, payload });
    }
  }

  /** Sends everything that waits and stores it. */
  async send(outbox: Outbox, isAcknowledged: boolean): Promise<LaneOutcome[]> {
    const outcomes: LaneOutcome[] = [];
    for (const lane of LANES) {
      const payloads: Uint8Array[] = [];
      const send = (_lane: string, payload: Uint8Array): unknown => payloads.push(payload);
      new LaneSender(lane, outbox, systemClock, { window: 1000, watermark: outbox.oldestSeq(lane) - 1, send }).fill();
      for (const payload of payloads) {
        const batch = readBatch(payload, LANE_NUMBERS[lane], systemClock.epochMs());
        const [outcome] = await this.#store.commit([{ robot: this.#robot, ...batch }], systemClock.epochMs());
        if (!outcome) continue;
        outcomes.push(outcome);
        if (isAcknowledged) outbox.acknowledge({ epoch: batch.epoch, lane, upto: outcome.upto });
      }
    }
    outbox.flush();
    return outcomes;
  }

  /** What the control plane holds: how many samples and events, and how many of each are different. */
  async held(): Promise<{ samples: number; differentSamples: number; events: number; differentEvents: number }> {
    const key = [this.#robot.robotPk];
    const blocks = await this.#database.query<{ body: Uint8Array }>(
      'select body from telemetry_block where robot_pk = $1',
      key,
    );
    const samples = blocks.flatMap(({ body }) => [...decodeBlock(body).receivedMonoNs]);
    const events = await this.#database.query<{ event_id: string }>(
      'select event_id from robot_event where robot_pk = $1',
      key,
    );
    return {
      samples: samples.length,
      differentSamples: new Set(samples).size,
      events: events.length,
      differentEvents: new Set(events.map(({ event_id }) => event_id)).size,
    };
  }
}

async function openLine(test: { teardown(fn: () => Promise<void>): unknown }): Promise<Line> {
  const database = await openDatabase({ dataDir: 'memory://', log, clock: systemClock });
  test.teardown(() => database.close());
  await createPartitions(database, systemClock.epochMs(), log);
  await database.query("insert into tenant (tenant_id, name) values ('default', 'default') on conflict do nothing");
  const [row] = await database.query<{ robot_pk: number }>(
    `insert into robot (tenant_id, robot_id, robot_name, robot_type) values ('default', 'R', 'R', 'test') returning robot_pk`,
  );
  return new Line(database, { robotPk: row?.robot_pk ?? 0, tenantId: 'default', robotId: 'R' });
}

t.test('what was stored and not acknowledged is stored once, whatever becomes of the outbox', async (t) => {
  const line = await openLine(t);
  const dir = t.testdir();
  let outbox = openOutbox(dir);
  await line.produce(outbox, 300, 5);
  await line.send(outbox, false);
  await line.produce(outbox, 50, 2);
  const first = outbox.epoch;
  outbox.close();
  const file = new SqliteFile(join(dir, 'outbox.db'));
  file.exec('ALTER TABLE state RENAME COLUMN body TO bodies');
  file.close();
  outbox = openOutbox(dir);
  t.not(outbox.epoch, first, 'salvaged');
  const outcomes = await line.send(outbox, false);
  t.equal(
    outcomes.reduce((sum, { stored }) => sum + stored.filter(({ kind }) => kind === 'telemetry').length, 0),
    5,
    'only what the control plane did not have: five blocks of ten samples',
  );
  const once = { samples: 350, differentSamples: 350, events: 7, differentEvents: 7 };
  t.same(await line.held(), once);
  await line.produce(outbox, 20, 1);
  t.ok(outbox.startEpoch('rolled_back'));
  await line.send(outbox, true);
  t.same(await line.held(), { samples: 370, differentSamples: 370, events: 8, differentEvents: 8 });
  t.ok(outbox.isDrained(), 'all of it is acknowledged, what was known too');
  outbox.close();
});

t.test('a copy that gave positions out again loses nothing and doubles nothing', async (t) => {
  const line = await openLine(t);
  const dir = t.testdir({ robot: {}, copy: {} });
  let outbox = openOutbox(join(dir, 'robot'));
  await line.produce(outbox, 100, 4);
  await line.send(outbox, false);
  outbox.close();
  cpSync(join(dir, 'robot', 'outbox.db'), join(dir, 'copy', 'outbox.db'));
  outbox = openOutbox(join(dir, 'robot'));
  await line.produce(outbox, 60, 3);
  await line.send(outbox, true);
  outbox.close();
  outbox = openOutbox(join(dir, 'copy'));
  await line.produce(outbox, 80, 5);
  const refused = await line.send(outbox, false);
  t.ok(refused.some(({ collision }) => collision));
  t.ok(outbox.startEpoch('seq_collision'));
  const outcomes = await line.send(outbox, true);
  t.notOk(outcomes.some(({ collision }) => collision));
  t.same(await line.held(), { samples: 240, differentSamples: 240, events: 12, differentEvents: 12 });
  t.ok(outbox.isDrained());
  outbox.close();
});
