import { DomainError } from '@outrider/shared/errors';
import type { DeviceIdentity } from '@outrider/shared/ids';
import type { Logger } from '@outrider/shared/log';
import { outrider } from '@outrider/shared/messages';
import { decodeWire, isEpoch } from '@outrider/shared/protocol/codec';
import { downTopic } from '@outrider/shared/protocol/topics';
import type { Clock } from '@outrider/shared/time';
import type { IngestStore, RobotDirectory } from './ingest-ports.ts';
import { refusalOf } from './uplink.ts';

const { Hello, HelloReply, Lane } = outrider.v1;
const LANES = [Lane.LANE_EVENT, Lane.LANE_STATE, Lane.LANE_TELEMETRY] as const;
const NONCE_CHARACTERS_MAX = 128;

export interface HelloOptions {
  readonly store: IngestStore;
  readonly directory: RobotDirectory;
  readonly clock: Clock;
  readonly log: Logger;
  readonly publish: (topic: string, payload: Uint8Array) => Promise<void>;
}

/**
 * Answers an edge that has connected: how far each of its lanes is stored, or why it may not send. An edge whose
 * own highest position is below the answer has an older database than it had, and starts a new epoch.
 *
 * @throws what the database throws. The edge asks again.
 */
export async function answerHello(options: HelloOptions, device: DeviceIdentity, payload: Uint8Array): Promise<void> {
  const { clock, directory, log, publish, store } = options;
  const robot = await directory.find(device);
  if (!robot) return log.warn({ ...device }, 'hello.robot_unknown');
  const hello = decodeWire(Hello, payload, 'hello');
  const refused = refusalOf(hello.protocolVersion) || (isEpoch(hello.epoch) ? '' : 'the epoch is not 16 hex digits');
  const lanes: outrider.v1.Ack.$Properties[] = [];
  if (refused === '') {
    await acceptForgotten(options, robot.robotPk, hello);
    const known = new Map(
      (await store.watermarks(robot.robotPk, hello.epoch)).map((entry) => [entry.lane, entry.upto]),
    );
    for (const lane of LANES) lanes.push({ epoch: hello.epoch, lane, upto: known.get(lane) ?? 0, collision: false });
  }
  const reply = HelloReply.encode({
    epoch: hello.epoch,
    lanes,
    wallMs: clock.epochMs(),
    nonce: hello.nonce.slice(0, NONCE_CHARACTERS_MAX),
    refused,
    namesBatches: true,
  }).finish();
  await publish(downTopic(device, 'hello'), reply);
  log.info({ ...device, epoch: hello.epoch, agentVersion: hello.agentVersion, refused }, 'hello.answered');
}

/** An edge that holds nothing below a position was told to delete it, by this database before it was rolled back. */
async function acceptForgotten(options: HelloOptions, robotPk: number, hello: outrider.v1.Hello): Promise<void> {
  for (const range of hello.lanes) {
    const lane = LANES.find((known) => known === range.lane);
    const oldestSeq = range.oldestSeq ?? 0;
    if (lane === undefined || oldestSeq <= 1) continue;
    if (!Number.isSafeInteger(oldestSeq)) throw new DomainError('invalid', 'hello: oldest_seq is too large');
    await options.store.acceptForgotten(robotPk, hello.epoch, lane, oldestSeq, options.clock.epochMs());
  }
}
