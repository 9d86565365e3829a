import type { Clock } from '@outrider/shared/time';

/** Period of the loop, and of the heartbeats. A fifteenth of the microcontroller's lease. [ms] */
export const LOOP_MS = 20;

/**
 * Calls `round` at fixed times; a late one does not push those after it. Whatever has arrived by then is read before:
 * what waited while this process was put aside must not be taken for silence.
 *
 * @returns A function that ends it.
 */
export function startRounds(round: (nowMs: number, lateMs: number) => void, clock: Clock): () => void {
  let dueMs: number = clock.monotonicMs() + LOOP_MS;
  let hasEnded = false;
  const run = (): void => {
    if (hasEnded) return;
    const nowMs = clock.monotonicMs();
    const lateMs = nowMs - dueMs;
    round(nowMs, lateMs);
    dueMs = lateMs > LOOP_MS ? nowMs + LOOP_MS : dueMs + LOOP_MS;
    if (!hasEnded) timer = setTimeout(due, Math.max(0, dueMs - clock.monotonicMs()));
  };
  // Node reads its sockets and ports between its timers and its immediates.
  const due = (): unknown => setImmediate(run);
  let timer = setTimeout(due, LOOP_MS);
  return () => {
    hasEnded = true;
    clearTimeout(timer);
  };
}
