import { alarmBasis } from './alarm-level.ts';
import type { Classifier } from './boost.ts';
import { type Shape, type Steps, type StreamModel, VIEWS, type View } from './stream-model.ts';
import { type RawViews, StreamScorer } from './stream-scorer.ts';
import { fitTail, type Tail } from './tail.ts';

/** Windows that one piece of the work looks at. */
const PIECE = 20;

/**
 * Gives a shape its distributions and its alarm level from normal windows that it was not fitted on.
 *
 * @param perHour False alarms wanted on normal data, an hour.
 */
export function* calibrate(
  shape: Shape,
  heldOut: readonly ArrayLike<number>[],
  perHour: number,
  classifier?: Classifier,
): Steps<StreamModel> {
  const scorer = new StreamScorer(shape, classifier);
  const raws: RawViews[] = [];
  for (const window of heldOut) {
    raws.push(scorer.look(window));
    if (raws.length % PIECE === 0) yield;
  }
  const tails: Partial<Record<View, Tail>> = {};
  for (const view of VIEWS)
    if (view !== 'learnt' || classifier) tails[view] = fitTail(raws.map((raw) => raw.values[view]));
  yield;
  const scores = raws.map((raw) => scorer.combine(raw, tails));
  return { ...shape, tails, classifier, alarm: alarmBasis(scores, shape.windowMs, perHour) };
}
