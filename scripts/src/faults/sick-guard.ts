import { write } from 'node:fs';
import { McuLink } from '@outrider/firmware-bridge/link';
import { FrameWriter } from '@outrider/firmware-bridge/writer';
import { systemClock } from '@outrider/shared/time';
import { type StopNote, type Turn, waitedMs } from './guard-turns.ts';

// Loaded into a guard process before its own program (node --import): makes it sick on a signal, in ways in which
// a healthy program cannot be made to fail from outside.

let isStuck = false;
let lastCounter = 0;
let link: McuLink | undefined;
/** Turns told with a stop: a second and a half at 20 ms each. */
const TURNS_MAX = 75;
const turns: Turn[] = [];
let last = { atMs: systemClock.monotonicMs() as number, waitedMs: waitedMs() };

function noteTurn(): void {
  const now = { atMs: systemClock.monotonicMs(), waitedMs: waitedMs() };
  turns.push({ fromMs: last.atMs, toMs: now.atMs, waitedMs: now.waitedMs - last.waitedMs });
  if (turns.length > TURNS_MAX) turns.shift();
  last = now;
}

const { send } = FrameWriter.prototype;
FrameWriter.prototype.send = function stuckSend(message): boolean {
  if (message.kind !== 'heartbeat') return send.call(this, message);
  if (!isStuck) lastCounter = message.counter;
  return send.call(this, { ...message, counter: lastCounter });
};

const { sendHeartbeat } = McuLink.prototype;
McuLink.prototype.sendHeartbeat = function notedHeartbeat(state): boolean {
  link = this;
  noteTurn();
  return sendHeartbeat.call(this, state);
};

// For who measures: when the stop was written, and whether this process had its turns until then.
const { stop } = McuLink.prototype;
McuLink.prototype.stop = function notedStop() {
  const outcome = stop.call(this);
  noteTurn();
  const note: StopNote = { probe: 'stop', atMs: last.atMs, turns: turns.filter((turn) => turn.waitedMs >= 1) };
  write(2, `${JSON.stringify(note)}\n`, () => {});
  return outcome;
};

// The counter stands still while heartbeats go on: work has stopped, a timer has not.
process.on('SIGUSR2', () => {
  isStuck = true;
});
process.on('SIGWINCH', () => link?.close());
