import { outrider } from '@outrider/shared/messages';
import type { LaneOutcome, LaneWork } from './ingest-ports.ts';
import type { RobotRef } from './ports.ts';

/** An encoded acknowledgement, and whom it is for. */
export interface AckMessage {
  readonly robot: RobotRef;
  readonly payload: Uint8Array;
}

/** What became of all the work of one lane. */
interface LaneTotal {
  upto: number;
  collision: boolean;
  /** Records that are held: stored now or before. */
  held: number;
}

const laneKey = ({ robot, epoch, lane }: Pick<LaneWork, 'robot' | 'epoch' | 'lane'>): string =>
  `${robot.robotPk}/${epoch}/${lane}`;

/**
 * What to tell the edges after a commit, one message a lane.
 *
 * The batches of a lane are named when every record of all of them is held: an edge that is not named keeps its records
 * and sends them again.
 */
export function acksOf(work: readonly LaneWork[], outcomes: readonly LaneOutcome[]): AckMessage[] {
  const totals = new Map<string, LaneTotal>();
  for (const outcome of outcomes) {
    const { upto, collision, stored, duplicates } = outcome;
    const key = laneKey(outcome);
    const total = totals.get(key);
    const held = stored.length + duplicates;
    if (!total) {
      totals.set(key, { upto, collision, held });
      continue;
    }
    // Halves of an isolated batch: a collision in either holds the watermark of both down.
    total.upto = total.collision ? Math.min(total.upto, upto) : upto;
    total.collision ||= collision;
    total.held += held;
  }
  const messages: AckMessage[] = [];
  for (const entry of work) {
    const total = totals.get(laneKey(entry));
    if (!total) continue;
    const { robot, epoch, lane, batchIds = [] } = entry;
    const isHeld = total.held === entry.records.length;
    const { collision } = total;
    const ack = { epoch, lane, upto: Math.max(0, total.upto), collision, batchIds: isHeld ? [...batchIds] : [] };
    messages.push({ robot, payload: outrider.v1.Ack.encode(ack).finish() });
  }
  return messages;
}
