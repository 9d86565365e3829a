import { type Classifier, trainBoost } from './boost.ts';
import { type Shape, scale, transform } from './stream-model.ts';
import { learntRow } from './stream-scorer.ts';

/**
 * Learns from labelled windows what faults look like, beyond what is merely unusual. Give the result to `calibrate`
 * with normal windows that it has not seen: the alarm level then knows of it, and it is kept in the same model.
 */
export function trainClassifier(
  shape: Shape,
  windows: readonly ArrayLike<number>[],
  isFault: readonly boolean[],
): Classifier {
  const rows = windows.map((window) => learntRow(scale(transform(window, shape.floors), shape)));
  return trainBoost(rows, isFault);
}
