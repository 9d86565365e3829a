import type { RobotRef } from '../telemetry/ports.ts';
import type { Rule } from './rule.ts';

/** What a rule found. The store turns findings into alerts. */
export interface Finding {
  readonly robot: RobotRef;
  readonly rule: Rule;
  /**
   * - `raise`: the condition came true. An alert that is open already stays as it is.
   * - `occur`: the same, and counts as one more occurrence of an open alert.
   * - `clear`: the condition is gone.
   * - `episode`: it came and went in the past; an open alert has nothing to do with it.
   */
  readonly action: 'raise' | 'occur' | 'clear' | 'episode';
  /** The robot's own time. */
  readonly atMs: number;
  /** Of an episode. */
  readonly clearedAtMs?: number;
  readonly occurrences?: number;
  readonly value?: number;
  readonly isFlapping?: boolean;
  /** Whether this became known long after it happened: it is kept, and nobody is woken up one by one. */
  readonly isLate: boolean;
  readonly details: Readonly<Record<string, unknown>>;
  readonly traceId?: string;
  /** When the sample or event that decided it was recorded and stored. */
  readonly evidence?: { readonly recordedMs: number; readonly ingestedMs: number };
}

/** Evidence older than this when it is stored is late. */
const LATE_MS = 60_000;

/** Whether something that happened then, and is stored now, comes late. */
export const isLate = (atMs: number, ingestedMs: number): boolean => ingestedMs - atMs > LATE_MS;
