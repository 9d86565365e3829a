// An agent that can be frozen and killed: recovers the robot, and stores each transition in a file before it acknowledges it.
import { appendFileSync, existsSync, readFileSync } from 'node:fs';
import { createLogger } from '@outrider/shared/log';
import { systemClock } from '@outrider/shared/time';
import { GuardLink } from '../src/guard/guard-link.ts';

const [, , socketPath = '', file = ''] = process.argv;
const lines = existsSync(file) ? readFileSync(file, 'utf8').split('\n').filter(Boolean) : [];
let transitionsStored = Math.max(0, ...lines.map((line) => Number(line.split(' ')[0])));
let samples = 0;

const link = new GuardLink({
  socketPath,
  agentBootId: String(process.pid),
  transitionsStored: () => transitionsStored,
  clock: systemClock,
  log: createLogger('agent', 'silent'),
});
link.onSample(() => {
  samples += 1;
  link.progress(samples);
});
link.onTransition(async (transition) => {
  appendFileSync(
    file,
    `${transition.transitionId} ${transition.fromPhase} ${transition.toPhase} ${transition.reason}\n`,
  );
  transitionsStored = transition.transitionId ?? 0;
});
// Recovers until it is granted, then says so: from here on it must work, or the robot stops.
const recovering = setInterval(() => {
  const status = link.status();
  if (!status) return;
  const { latchId, recoverNonce: nonce } = status;
  link.recover({ latchId: latchId ?? 0, nonce: nonce ?? '', local: true, requestedBy: 'child', traceId: '' }).then(
    ({ done }) => {
      if (!done) return;
      clearInterval(recovering);
      process.stdout.write('armed\n');
    },
    () => {},
  );
}, 50);
await link.run(new AbortController().signal);
