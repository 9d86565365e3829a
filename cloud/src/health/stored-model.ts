import { decodeModel } from '@outrider/shared/health/model-codec';
import type { RobotModel } from '@outrider/shared/health/robot-analyser';

/** A model that cannot be read is none: it is learnt anew. */
export function readModel(body: Uint8Array): RobotModel {
  try {
    return decodeModel(body);
  } catch {
    return new Map();
  }
}
