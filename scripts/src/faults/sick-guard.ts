import { McuLink } from '@outrider/firmware-bridge/link';
import { FrameWriter } from '@outrider/firmware-bridge/writer';

// Loaded into a guard process before its own program (node --import): makes it sick on a signal, in ways in which
// a healthy program cannot be made to fail from outside.

let isStuck = false;
let lastCounter = 0;
let link: McuLink | undefined;

const { send } = FrameWriter.prototype;
FrameWriter.prototype.send = function stuckSend(message): boolean {
  if (message.kind !== 'heartbeat') return send.call(this, message);
  if (!isStuck) lastCounter = message.counter;
  return send.call(this, { ...message, counter: lastCounter });
};

const { sendHeartbeat } = McuLink.prototype;
McuLink.prototype.sendHeartbeat = function notedHeartbeat(state): boolean {
  link = this;
  return sendHeartbeat.call(this, state);
};

// The counter stands still while heartbeats go on: work has stopped, a timer has not.
process.on('SIGUSR2', () => {
  isStuck = true;
});
process.on('SIGWINCH', () => link?.close());
