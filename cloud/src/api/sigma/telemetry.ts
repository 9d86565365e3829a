import type { z } from '@hono/zod-openapi';
import { DomainError } from '@outrider/shared/errors';
import type { EpochMs } from '@outrider/shared/time';
import type { RobotRef } from '../../fleet/robot.ts';
import type { Principal } from '../../identity/principal.ts';
import type { IngestReceipt, TelemetryReport } from '../../telemetry/ports.ts';
import type { Core } from '../core.ts';
import type { Router } from '../router.ts';
import { type SigmaErrors, sigmaErrors } from './responses.ts';
import { TelemetryBatch, type TelemetryEvent, TelemetryReceipt, telemetryShapeOf } from './schemas.ts';

type WireEvent = z.output<typeof TelemetryEvent>;

const BODY_BYTES_MAX = 4 * 1024 * 1024;
const ERRORS: SigmaErrors = [400, 401, 403, 404, 413, 503];

/** POST /api/v1/telemetry/events: one object answers as the seed says; several add `event_ids`. */
export function registerTelemetry(router: Router, core: Core): void {
  router.add(
    {
      method: 'post',
      path: '/api/v1/telemetry/events',
      operationId: 'ingestTelemetry',
      summary: 'Ingest batched robot telemetry',
      tag: 'SigmaPrompt',
      // Who may command a robot may also report for it.
      access: ['telemetry:write', 'robot:write', 'command:write'],
      throttle: 'never',
      body: TelemetryBatch,
      chooseBody: telemetryShapeOf,
      bodyBytesMax: BODY_BYTES_MAX,
      responses: { 202: { description: 'Stored', schema: TelemetryReceipt }, ...sigmaErrors(ERRORS) },
    },
    async ({ principal, body }, c) => {
      const isSingle = !Array.isArray(body) && !('events' in body);
      const events: WireEvent[] = Array.isArray(body) ? body : 'events' in body ? body.events : [body];
      if (isSingle) c.set('robotId', events[0]?.robot_id);
      const receipts = await ingestEvents(core, principal, events, c.get('requestId'), isSingle);
      const [first] = receipts;
      if (!first) throw new DomainError('invalid', 'events is required');
      return c.json(
        {
          accepted: true,
          event_id: first.eventId,
          ingested_at: new Date(first.ingestedAt).toISOString(),
          ...(isSingle ? {} : { event_ids: receipts.map((receipt) => receipt.eventId) }),
        },
        202,
      );
    },
  );
}

/** Stores the events robot by robot and gives the receipts in the order of the events. */
export async function ingestEvents(
  core: Core,
  principal: Principal,
  events: readonly WireEvent[],
  traceId: string,
  isSingle: boolean,
): Promise<IngestReceipt[]> {
  const groups = new Map<string, { robot: RobotRef; indexes: number[] }>();
  for (const [index, event] of events.entries()) {
    const group = groups.get(event.robot_id);
    if (group) group.indexes.push(index);
    else groups.set(event.robot_id, { robot: await core.robots.find(principal, event.robot_id), indexes: [index] });
  }
  const reports = events.map((event, index) => decode(event, isSingle ? '' : `events[${index}].`));
  const receipts: IngestReceipt[] = [];
  for (const { robot, indexes } of groups.values()) {
    const stored = await core.ingest.ingestReports(
      robot,
      indexes.map((index) => reports[index] as TelemetryReport),
      traceId,
    );
    for (const [position, index] of indexes.entries()) receipts[index] = stored[position] as IngestReceipt;
  }
  return receipts;
}

function decode(event: WireEvent, path: string): TelemetryReport {
  const at = Date.parse(event.timestamp) as EpochMs;
  const { joint_state: joints, power, thermal, imu, flags } = event;
  if (joints === undefined && !power && !thermal && !imu && flags === undefined) {
    throw new DomainError('invalid', `${path}joint_state, power, thermal, imu or flags is required`, {
      problems: [{ field: `${path}joint_state`, reason: 'an event must measure something' }],
    });
  }
  const duplicate = joints?.find((joint, index) => joints.findIndex((other) => other.name === joint.name) !== index);
  if (duplicate) {
    const field = `${path}joint_state`;
    throw new DomainError('invalid', `${field} names the joint '${duplicate.name}' twice`, {
      problems: [{ field, reason: `names the joint '${duplicate.name}' twice` }],
    });
  }
  return {
    at,
    ...(joints && joints.length > 0
      ? {
          joints: joints.map((joint) => ({
            name: joint.name,
            ...optional('positionRad', joint.position),
            ...optional('velocityRadps', joint.velocity),
            ...optional('effortNm', joint.torque_nm),
            ...optional('temperatureC', joint.temperature_c),
          })),
        }
      : {}),
    ...(power
      ? {
          power: {
            ...optional('stateOfCharge', power.battery_soc),
            ...optional('drawW', power.draw_w),
            ...optional('voltageV', power.voltage_v),
            ...optional('currentA', power.current_a),
          },
        }
      : {}),
    ...(thermal
      ? {
          temperaturesC: Object.fromEntries(Object.entries(thermal).map(([name, value]) => [name.slice(0, -2), value])),
        }
      : {}),
    ...(imu
      ? {
          imu: {
            ...optional('rollRad', imu.roll),
            ...optional('pitchRad', imu.pitch),
            ...optional('yawRad', imu.yaw),
            ...optional('angularVelocityRadps', vector(imu.angular_velocity)),
            ...optional('linearAccelerationMps2', vector(imu.linear_acceleration)),
          },
        }
      : {}),
    ...optional('flags', flags),
  };
}

const vector = (
  value: { x: number; y: number; z: number } | undefined,
): readonly [number, number, number] | undefined => value && [value.x, value.y, value.z];

/** `{key: value}`, or nothing when the value was not given. */
function optional<K extends string, V>(key: K, value: V | undefined): { [P in K]?: V } {
  return (value === undefined ? {} : { [key]: value }) as { [P in K]?: V };
}
