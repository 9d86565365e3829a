import { outrider } from '@outrider/shared/messages';
import type { LaneOutcome, LaneWork } from './ingest-ports.ts';
import type { RobotRef } from './ports.ts';

/** An encoded acknowledgement, and whom it is for. */
export interface AckMessage {
  readonly robot: RobotRef;
  readonly payload: Uint8Array;
}

/** What became of all the work of one lane. */
interface LaneTotal extends Pick<LaneOutcome, 'robot' | 'epoch' | 'lane' | 'upto' | 'collision'> {
  /** Records that are held: stored now or before. */
  readonly held: number;
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
  for (const { robot, epoch, lane, upto, collision, stored, duplicates } of outcomes) {
    const key = laneKey({ robot, epoch, lane });
    const known = totals.get(key);
    totals.set(key, {
      ...{ robot, epoch, lane },
      // Halves of an isolated batch: a collision in either holds the watermark of both down.
      upto: known?.collision ? Math.min(known.upto, upto) : upto,
      collision: known?.collision === true || collision,
      held: (known?.held ?? 0) + stored.length + duplicates,
    });
  }
  const messages: AckMessage[] = [];
  for (const entry of work) {
    const total = totals.get(laneKey(entry));
    if (!total) continue;
    const { robot, epoch, lane, upto, collision, held } = total;
    const batchIds = held === entry.records.length ? [...(entry.batchIds ?? [])] : [];
    const ack = { epoch, lane, upto: Math.max(0, upto), collision, batchIds };
    messages.push({ robot, payload: outrider.v1.Ack.encode(ack).finish() });
  }
  return messages;
}
