import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { type Database, openDatabase } from '@outrider/cloud/storage/database';
import { SqlIngestStore } from '@outrider/cloud/storage/ingest-store';
import { createPartitions } from '@outrider/cloud/storage/partitions';
import { SqlTelemetryStore } from '@outrider/cloud/storage/telemetry-store';
import { Committer } from '@outrider/cloud/telemetry/committer';
import { Inbox } from '@outrider/cloud/telemetry/inbox';
import { IngestMetrics } from '@outrider/cloud/telemetry/ingest-metrics';
import { startPostgres } from '@outrider/cloud/testing/engines';
import { createLogger } from '@outrider/shared/log';
import { outrider } from '@outrider/shared/messages';
import { bodyCrc } from '@outrider/shared/protocol/codec';
import { PROTOCOL_VERSION } from '@outrider/shared/protocol/version';
import { systemClock } from '@outrider/shared/time';
import { alternate, format, spreadOf, wallMs } from '../bench/measure.ts';
import { blockTemplates, LOAD_STREAM } from './block-template.ts';
import { count, type Section, type SectionContext } from './section.ts';

const { BodyKind, Lane, UplinkBatch } = outrider.v1;
const run = promisify(execFile);
const log = createLogger('load', 'silent');
const ROBOTS = 200;
const ROWS = 10;
const RATIO_MIN = 0.5;
const RANGE_RATIO_MAX = 2;
const RANGE_BLOCKS = 50;

/** What the storage costs against the database's own ways. */
export const copySection: Section = {
  name: 'copy',
  about: 'the ingest and the reader of ranges against bare SQL on the same PostgreSQL, alternating',
  timeoutMs: () => 240_000,
  run: runSection,
};

interface Message {
  readonly robotPk: number;
  readonly payload: Uint8Array;
}

async function runSection(context: SectionContext): Promise<void> {
  const { options, defer, say } = context;
  const directory = mkdtempSync(join(tmpdir(), 'outrider-copy-'));
  defer(async () => rmSync(directory, { recursive: true, force: true }));
  const postgres = await startPostgres({ isDurable: true });
  defer(() => postgres.stop());
  const database = await openDatabase({ databaseUrl: postgres.url, dataDir: directory, log, clock: systemClock });
  defer(() => database.close());
  await createPartitions(database, systemClock.epochMs(), log);
  const robotPks = await addRobots(database);
  const messages = messagesOf(robotPks, options.isShort ? 10 : 50, options.joints);
  const bytes = messages.reduce((sum, { payload }) => sum + payload.length, 0);
  const samples = messages.length * ROWS;
  say(`${count(messages.length)} blocks, ${count(samples)} samples, ${format(bytes / 1e6)} MB`);
  await copy(context, { database, url: postgres.url, messages, samples, directory });
  await ranges(context, database, robotPks);
}

interface CopyParts {
  readonly database: Database;
  readonly url: string;
  readonly messages: readonly Message[];
  readonly samples: number;
  readonly directory: string;
}

async function copy({ options, row }: SectionContext, parts: CopyParts): Promise<void> {
  const { database, url, messages, samples, directory } = parts;
  const psql = (command: string) => run('psql', ['-q', '-v', 'ON_ERROR_STOP=1', '-d', url, '-c', command]);
  const ingest = (): Promise<number> => wallMs(() => store(database, messages));
  await empty(database);
  await ingest();
  const file = join(directory, 'rows.copy');
  await psql(`\\copy (select * from telemetry_block) to '${file}' (format binary)`);
  await database.query(
    'create table copied_block (like telemetry_block including indexes including defaults including constraints including storage)',
  );
  const rate = (took: number): number => samples / (took / 1000);
  const { ours, theirs, ratio } = await alternate(
    options.isShort ? 2 : 5,
    async () => {
      await empty(database);
      return rate(await ingest());
    },
    async () => {
      await database.query('truncate copied_block');
      return rate(await wallMs(() => psql(`\\copy copied_block from '${file}' (format binary)`)));
    },
  );
  row({
    what: `samples into PostgreSQL: read, checked, once per position, latest values and watermarks too; against psql \\copy (binary) of the same ${count(messages.length)} rows, ${format(statSync(file).size / 1e6)} MB, into a table with the same indexes`,
    goal: `≥ ${RATIO_MIN}`,
    measured:
      `${count(spreadOf(ours).median)} against ${count(spreadOf(theirs).median)} samples/s: ` +
      `${format(ratio.median)} (${format(ratio.low)} – ${format(ratio.high)}, ${ratio.runs} pairs)`,
    met: ratio.median >= RATIO_MIN,
  });
}

/** The ingest of the control plane with messages that have piled up, until the last is acknowledged. */
async function store(database: Database, messages: readonly Message[]): Promise<void> {
  const stop = new AbortController();
  let waiting = messages.length;
  const ingest = new SqlIngestStore(database);
  const metrics = new IngestMetrics();
  const robots = new Map(messages.map(({ robotPk }) => [robotIdOf(robotPk), { robotPk, ...deviceOf(robotPk) }]));
  const inbox = new Inbox({
    store: ingest,
    committer: new Committer({ store: ingest, metrics, clock: systemClock, log, isDataError: () => true }),
    directory: {
      find: async ({ robotId }) => robots.get(robotId),
      findRegistered: async ({ robotId }) => robots.get(robotId),
      forget: () => undefined,
    },
    metrics,
    clock: systemClock,
    log,
    publish: async () => undefined,
    onStored: (outcomes) => {
      for (const { stored } of outcomes) waiting -= stored.length;
      if (waiting <= 0) stop.abort();
    },
  });
  for (const { robotPk, payload } of messages) inbox.receive(deviceOf(robotPk), 'telemetry', payload);
  await inbox.run(stop.signal);
}

const robotIdOf = (robotPk: number): string => `COPY-${robotPk}`;
const deviceOf = (robotPk: number) => ({ tenantId: 'default', robotId: robotIdOf(robotPk) });

async function empty(database: Database): Promise<void> {
  await database.query('truncate telemetry_block, ingest_ahead, ingest_cursor, latest_sample');
}

async function addRobots(database: Database): Promise<number[]> {
  await database.query(`insert into tenant (tenant_id, name) values ('default', 'default') on conflict do nothing`);
  const rows = await database.query<{ robot_pk: number }>(
    `insert into robot (tenant_id, robot_id, robot_name, robot_type)
     select 'default', 'COPY-' || n, 'load', 'test' from generate_series(1, $1::int4) as n returning robot_pk`,
    [ROBOTS],
  );
  return rows.map((each) => each.robot_pk);
}

/** As robots send them: a block of each robot, then the next of each. */
function messagesOf(robotPks: readonly number[], each: number, joints: number): Message[] {
  const templates = blockTemplates({ joints, rows: ROWS, rateHz: ROWS });
  const fromMs = systemClock.epochMs() - each * 1000;
  const messages: Message[] = [];
  for (let seq = 1; seq <= each; seq += 1) {
    for (const robotPk of robotPks) {
      const body = templates[seq % templates.length]?.at(fromMs + seq * 1000) ?? new Uint8Array();
      const epoch = createHash('sha256').update(String(robotPk)).digest('hex').slice(0, 16);
      const record = { seq, body, crc: bodyCrc(body), bootId: 'load', kind: BodyKind.BODY_TELEMETRY };
      const batch = { protocolVersion: PROTOCOL_VERSION, epoch, lane: Lane.LANE_TELEMETRY, records: [record] };
      messages.push({ robotPk, payload: UplinkBatch.encode(batch).finish() });
    }
  }
  return messages;
}

/** A range of one robot's stream as the control plane reads it, against the rows as SQL gives them. */
async function ranges(
  { options, row }: SectionContext,
  database: Database,
  robotPks: readonly number[],
): Promise<void> {
  const reader = new SqlTelemetryStore(database);
  const [newest] = await database.query<{ at: Date }>('select max(recorded_at) as at from telemetry_block');
  const toMs = newest?.at.getTime() ?? 0;
  const fromMs = toMs - RANGE_BLOCKS * 1000;
  const rounds = options.isShort ? 40 : 200;
  const robotAt = (round: number): number => robotPks[round % robotPks.length] ?? 0;
  let [oursBlocks, theirBlocks] = [0, 0];
  const ours = async (): Promise<number> =>
    await wallMs(async () => {
      oursBlocks = 0;
      for (let round = 0; round < rounds; round += 1) {
        const query = { robotPk: robotAt(round), streams: [LOAD_STREAM], fromMs: fromMs as never, toMs: toMs as never };
        for await (const block of reader.history(query)) oursBlocks += block.count > 0 ? 1 : 0;
      }
    });
  const theirs = async (): Promise<number> =>
    await wallMs(async () => {
      theirBlocks = 0;
      for (let round = 0; round < rounds; round += 1) {
        const rows = await database.query(
          `select epoch, seq, recorded_at, ingested_at, boot_id, body from telemetry_block
            where robot_pk = $1 and stream = $2 and recorded_until >= to_timestamp($3::float8 / 1000)
              and recorded_at <= to_timestamp($4::float8 / 1000) and recorded_at >= to_timestamp(($3::float8 - 86400000) / 1000)
            order by recorded_at`,
          [robotAt(round), LOAD_STREAM, fromMs, toMs],
        );
        theirBlocks += rows.length;
      }
    });
  const pairs = await alternate(options.isShort ? 2 : 5, ours, theirs);
  const isSame = oursBlocks === theirBlocks && oursBlocks > 0;
  row({
    what: `a range of ${RANGE_BLOCKS} s of one robot's stream, every block unpacked and cut to the range; against the bare SQL of the same rows, still packed`,
    goal: `≤ ${RANGE_RATIO_MAX}×`,
    measured:
      `${format(spreadOf(pairs.ours).median / rounds)} against ${format(spreadOf(pairs.theirs).median / rounds)} ms: ` +
      `${format(pairs.ratio.median)} (${format(pairs.ratio.low)} – ${format(pairs.ratio.high)}, ${pairs.ratio.runs} pairs); ` +
      `${isSame ? `${Math.round(oursBlocks / rounds)} blocks each` : `not the same blocks: ${oursBlocks} and ${theirBlocks}`}`,
    met: isSame && pairs.ratio.median <= RANGE_RATIO_MAX,
  });
}
