import { Random } from './random.ts';

// Loaded into a process before its own program (node --import): its wall clock jumps several times a second, by an hour,
// by ten years, or a thousand times backwards by a millisecond. The monotonic clock goes on as it is.

const STEP_MS = 100;
const JUMPS_MS = [3.6e6, -3.6e6, 3.156e11, -3.156e11, -1, 0] as const;

const random = new Random(process.pid);
const now = Date.now.bind(Date);
let offsetMs = 0;
let creepMs = 0;
Date.now = () => {
  // Backwards by a millisecond with each look at it, while it creeps.
  if (creepMs > 0) creepMs -= 1;
  return Math.round(now() + offsetMs) + creepMs;
};
setInterval(() => {
  const jump = random.pick(JUMPS_MS);
  if (jump === -1) creepMs = 1000;
  else offsetMs = jump;
}, STEP_MS).unref();
