import { eventOf, jointLayout, openOutbox, sampleOf } from './outbox-rig.ts';

// Run under strace by outbox.test.ts: commits one event after the other, then samples in groups, and says how many.
const [stateDir = '', eventCount = '0', sampleCount = '0'] = process.argv.slice(2);
const outbox = openOutbox(stateDir);
process.stdout.write('opened\n');
for (let n = 0; n < Number(eventCount); n += 1) await outbox.appendEvent(eventOf(n));
process.stdout.write('events\n');
const layout = jointLayout('a');
for (let n = 0; n < Number(sampleCount); n += 1) outbox.appendSample(sampleOf(layout, n));
outbox.flush();
process.stdout.write('samples\n');
process.kill(process.pid, 'SIGKILL');
