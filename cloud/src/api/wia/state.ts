import { z } from '@hono/zod-openapi';
import { DomainError } from '@outrider/shared/errors';
import type { EpochMs } from '@outrider/shared/time';
import { HISTORY_FIELDS, HISTORY_STATES_MAX, readHistory } from '../../fleet/history.ts';
import { describeState } from '../../fleet/state.ts';
import type { Core } from '../core.ts';
import type { Router } from '../router.ts';
import { success } from './envelope.ts';
import { exportLines } from './export.ts';
import { wiaResponses } from './responses.ts';
import { CountsQuery, ExportQuery, HistoryQuery, RobotPath } from './schemas.ts';

const HOUR_MS = 3_600_000;

/** /v1/robots/{robot_id}/state, its history, and our own telemetry export and counts. */
export function registerState(router: Router, core: Core): void {
  router.add(
    {
      method: 'get',
      path: '/v1/robots/{robot_id}/state',
      operationId: 'getRobotState',
      summary: 'Current state',
      tag: 'WIA',
      access: ['robot:read'],
      throttle: 'tier',
      params: RobotPath,
      responses: wiaResponses(200, 'The state', z.record(z.string(), z.unknown()), [401, 403, 404, 429, 503]),
    },
    async ({ principal, params }, c) => {
      const robot = await core.robots.read(principal, params.robot_id);
      const [latest, shadow] = await Promise.all([
        core.reader.latest(robot.robotPk),
        core.reader.shadow(robot.robotPk),
      ]);
      return success(c, describeState(robot, latest, shadow));
    },
  );
  router.add(
    {
      method: 'get',
      path: '/v1/robots/{robot_id}/state/history',
      operationId: 'getRobotStateHistory',
      summary: 'State over time, resampled when an interval is given',
      tag: 'WIA',
      access: ['robot:read'],
      throttle: 'tier',
      params: RobotPath,
      query: HistoryQuery,
      responses: wiaResponses(
        200,
        'The states, oldest first',
        z.object({
          robot_id: z.string(),
          start_time: z.iso.datetime(),
          end_time: z.iso.datetime(),
          interval: z.number().nullable(),
          states: z.array(z.record(z.string(), z.unknown())),
          truncated: z.boolean(),
        }),
        [401, 403, 404, 422, 429, 503],
      ),
    },
    async ({ principal, params, query }, c) => {
      const robot = await core.robots.find(principal, params.robot_id);
      const { fromMs, toMs } = rangeOf(query, core.clock.epochMs());
      const from = fromMs ?? ((toMs - HOUR_MS) as EpochMs);
      const intervalMs = query.interval === undefined ? undefined : query.interval * 1000;
      if (intervalMs !== undefined && (toMs - from) / intervalMs > HISTORY_STATES_MAX)
        throw refuse('interval', `would give more than ${HISTORY_STATES_MAX} states: make it longer`);
      const { states, truncated } = await readHistory(core.reader, {
        robotPk: robot.robotPk,
        fromMs: from,
        toMs,
        fields: fieldsOf(query.fields),
        intervalMs,
        limit: query.limit,
      });
      return success(c, {
        robot_id: robot.robotId,
        start_time: new Date(from).toISOString(),
        end_time: new Date(toMs).toISOString(),
        interval: query.interval ?? null,
        states,
        truncated,
      });
    },
  );
  router.add(
    {
      method: 'get',
      path: '/v1/robots/{robot_id}/telemetry/counts',
      operationId: 'countTelemetry',
      summary: 'How much of each stream is stored, and what the robot had to drop',
      tag: 'WIA',
      access: ['robot:read'],
      throttle: 'tier',
      params: RobotPath,
      query: CountsQuery,
      responses: wiaResponses(
        200,
        'Counts by stream',
        z.object({
          robot_id: z.string(),
          streams: z.array(z.record(z.string(), z.unknown())),
          gaps: z.array(z.record(z.string(), z.unknown())),
        }),
        [401, 403, 404, 422, 429, 503],
      ),
    },
    async ({ principal, params, query }, c) => {
      const robot = await core.robots.find(principal, params.robot_id);
      const { fromMs, toMs } = rangeOf(query, core.clock.epochMs());
      const range = { ...(fromMs === undefined ? {} : { fromMs }), ...(query.end_time === undefined ? {} : { toMs }) };
      const [counts, gaps] = await Promise.all([
        core.reader.counts(robot.robotPk, range),
        core.reader.gaps(robot.robotPk),
      ]);
      return success(c, {
        robot_id: robot.robotId,
        streams: counts.map((count) => ({
          stream: count.stream,
          kind: count.kind,
          samples: count.samples,
          thinned: count.thinned,
          blocks: count.blocks,
          first_at: new Date(count.firstAt).toISOString(),
          last_at: new Date(count.lastAt).toISOString(),
        })),
        gaps: gaps.map((gap) => ({
          epoch: gap.epoch,
          lane: gap.lane,
          seq_from: gap.seqFrom,
          seq_to: gap.seqTo,
          reason: gap.reason,
          samples: gap.samples,
          from: new Date(gap.fromAt).toISOString(),
          to: new Date(gap.toAt).toISOString(),
        })),
      });
    },
  );
  router.add(
    {
      method: 'get',
      path: '/v1/robots/{robot_id}/telemetry/export',
      operationId: 'exportTelemetry',
      summary: 'Every sample of one stream, to the bit, as lines of JSON',
      tag: 'WIA',
      access: ['robot:read'],
      throttle: 'tier',
      params: RobotPath,
      query: ExportQuery,
      responses: {
        ...wiaResponses(200, 'Lines', z.unknown(), [401, 403, 404, 422, 429, 503]),
        200: {
          description: 'A layout line before samples of each shape, a line per sample, and an end line',
          contentType: 'application/x-ndjson',
        },
      },
    },
    async ({ principal, params, query }, c) => {
      const robot = await core.robots.find(principal, params.robot_id);
      const { fromMs, toMs } = rangeOf(query, core.clock.epochMs());
      const blocks = core.reader.history({
        robotPk: robot.robotPk,
        streams: [query.stream],
        ...(fromMs === undefined ? {} : { fromMs }),
        ...(query.end_time === undefined ? {} : { toMs }),
      });
      const lines = exportLines(blocks, { limit: query.limit, cursor: query.cursor });
      c.header('Content-Type', 'application/x-ndjson');
      return c.body(streamOf(lines));
    },
  );
}

function rangeOf(
  query: { start_time?: string | undefined; end_time?: string | undefined },
  nowMs: EpochMs,
): { fromMs: EpochMs | undefined; toMs: EpochMs } {
  const fromMs = query.start_time === undefined ? undefined : (Date.parse(query.start_time) as EpochMs);
  const toMs = query.end_time === undefined ? nowMs : (Date.parse(query.end_time) as EpochMs);
  if (fromMs !== undefined && fromMs > toMs) throw refuse('start_time', 'must not be after end_time');
  return { fromMs, toMs };
}

function fieldsOf(text: string | undefined): readonly (typeof HISTORY_FIELDS)[number][] {
  if (text === undefined) return HISTORY_FIELDS;
  return [...new Set(text.split(','))].map((word) => {
    const field = HISTORY_FIELDS.find((known) => known === word.trim());
    if (!field) throw refuse('fields', `must be among ${HISTORY_FIELDS.join(', ')}`);
    return field;
  });
}

/** Pulled line by line, so that a slow reader slows the database and not our memory. */
function streamOf(lines: AsyncIterator<string>): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      const { done, value } = await lines.next();
      if (done) controller.close();
      else controller.enqueue(encoder.encode(value));
    },
    async cancel() {
      await lines.return?.();
    },
  });
}

const refuse = (field: string, reason: string): DomainError =>
  new DomainError('invalid', `${field} ${reason}`, { problems: [{ field, reason }] });
