import { createHash } from 'node:crypto';
import { DomainError } from '@outrider/shared/errors';
import { deviceName } from '@outrider/shared/ids';
import { decodeBlock, encodeBlock } from '@outrider/shared/protocol/block';
import type { Clock, EpochMs } from '@outrider/shared/time';
import type { LaneOutcome } from './ingest-ports.ts';
import type { IngestReceipt, RobotRef, TelemetryIngest, TelemetryReport } from './ports.ts';
import type { PresenceKeeper } from './presence.ts';
import { HASH_BYTES, type TelemetryRecord } from './record.ts';
import { blockSpan, isSaneTime } from './recorded-time.ts';
import { samplesOf } from './report-samples.ts';

const EPOCH_DIGITS = 16;
const REPORTS_MAX = 1000;
/** ULID's digits (Crockford's base 32). */
const BASE32 = '0123456789ABCDEFGHJKMNPQRSTVWXYZ';

/** One report as records of an epoch of its own, which its content names. */
export interface ReportRecords {
  readonly epoch: string;
  /** What the caller is told, and what the bus tells of it. */
  readonly eventId: string;
  readonly records: readonly TelemetryRecord[];
}

/** The storage that reports need. */
export interface ReportStore {
  /**
   * Stores what is not stored yet, in one transaction.
   *
   * @returns By epoch, when those were stored that were there before.
   */
  store(
    robot: RobotRef,
    reports: readonly ReportRecords[],
    traceId: string,
    nowMs: number,
  ): Promise<Map<string, EpochMs>>;
}

export interface ReportIngestOptions {
  readonly store: ReportStore;
  readonly presence: PresenceKeeper;
  readonly clock: Clock;
  /** Hears of what was stored, after the commit. */
  readonly onStored: (outcomes: readonly LaneOutcome[], ingestedAtMs: number) => void;
}

/** Takes telemetry that came over HTTP: the same table, the same readers, and once each by their content. */
export class ReportIngest implements TelemetryIngest {
  readonly #options: ReportIngestOptions;

  constructor(options: ReportIngestOptions) {
    this.#options = options;
  }

  async ingestReports(robot: RobotRef, reports: readonly TelemetryReport[], traceId: string): Promise<IngestReceipt[]> {
    if (reports.length > REPORTS_MAX)
      throw new DomainError('payload_too_large', `at most ${REPORTS_MAX} events at once`);
    const now = this.#options.clock.epochMs();
    const prepared = reports.map((report, index) =>
      prepare(robot, report, now, reports.length > 1 ? `[${index}].` : ''),
    );
    const unique = [...new Map(prepared.map((entry) => [entry.epoch, entry])).values()];
    const before = await this.#options.store.store(robot, unique, traceId, now);
    const fresh = unique.filter((entry) => !before.has(entry.epoch));
    this.#options.onStored(
      fresh.map(({ epoch, records }) => ({
        robot,
        epoch,
        lane: 3,
        upto: records.length,
        collision: false,
        stored: records,
        duplicates: 0,
        collisions: 0,
        deferred: 0,
      })),
      now,
    );
    await this.#options.presence.touch([robot], 'OFFLINE');
    const seen = new Set<string>();
    return prepared.map(({ epoch, eventId }) => {
      const storedAt = before.get(epoch);
      const duplicate = storedAt !== undefined || seen.has(epoch);
      seen.add(epoch);
      return { eventId, ingestedAt: storedAt ?? now, duplicate };
    });
  }
}

function prepare(robot: RobotRef, report: TelemetryReport, now: EpochMs, path: string): ReportRecords {
  if (!isSaneTime(report.at, now)) {
    const reason = 'must be after the year 2000 and at most 5 minutes ahead of the server';
    throw new DomainError('invalid', `timestamp ${reason}`, { problems: [{ field: `${path}timestamp`, reason }] });
  }
  const samples = samplesOf(report, now);
  if (samples.length === 0) {
    const reason = 'needs one of joint_state, imu, power, thermal, flags';
    throw new DomainError('invalid', `the event ${reason}`, {
      problems: [{ field: path.slice(0, -1) || 'body', reason }],
    });
  }
  const digest = createHash('sha256')
    .update(`${deviceName(robot)}\n${canonical(report)}`)
    .digest();
  const epoch = digest.toString('hex').slice(0, EPOCH_DIGITS);
  const records = samples.map((sample, index): TelemetryRecord => {
    const body = encodeBlock([sample]);
    const block = decodeBlock(body);
    const hash = createHash('sha256').update(body).digest().subarray(0, HASH_BYTES);
    return {
      kind: 'telemetry',
      seq: index + 1,
      seqTo: index + 1,
      hash,
      bootId: '',
      body,
      block,
      span: blockSpan(block, now),
    };
  });
  return { epoch, records, eventId: `evt_${ulidOf(report.at, digest)}` };
}

/** JSON with sorted keys, so that the same content has one form. */
function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'null';
  const entries = Object.entries(value).filter(([, child]) => child !== undefined);
  entries.sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${entries.map(([key, child]) => `${JSON.stringify(key)}:${canonical(child)}`).join(',')}}`;
}

/** A ULID whose time is the report's and whose randomness is its content. */
function ulidOf(atMs: number, digest: Uint8Array): string {
  let time = '';
  for (let rest = atMs, digit = 0; digit < 10; digit += 1) {
    time = BASE32[rest % 32] + time;
    rest = Math.floor(rest / 32);
  }
  const tail = Array.from(digest.subarray(8, 24), (byte) => BASE32[byte & 31]).join('');
  return time + tail;
}
