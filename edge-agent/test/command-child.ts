import { appendFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createLogger } from '@outrider/shared/log';
import { systemClock } from '@outrider/shared/time';
import { CommandDesk, type TargetOutcome } from '../src/commands/command-desk.ts';
import { CommandLog } from '../src/commands/command-log.ts';
import { TrustedKeys } from '../src/commands/trusted-keys.ts';

/**
 * Takes the instruction of a folder with a guard that only writes down what it was asked, and writes the answer there.
 *
 * Arguments: the folder, and when to be killed: `executing`, `answering` or `never`.
 */
const [folder = '', killedWhile = 'never'] = process.argv.slice(2);
const file = (name: string): string => join(folder, name);
const log = createLogger('test', 'silent');
const die = (): boolean => process.kill(process.pid, 'SIGKILL');

const commands = CommandLog.open(folder, log);
if (killedWhile === 'answering') {
  const finish = commands.finish.bind(commands);
  commands.finish = (commandId, reply) => {
    finish(commandId, reply);
    die();
  };
}
const execute = (what: string): Promise<TargetOutcome> => {
  appendFileSync(file('executed'), `${what}\n`);
  const outcome = { done: true, detail: 'ok', latchId: 7, unmet: [] };
  // Later than what follows the request in the same turn, as with a guard in another process.
  return new Promise((resolve) =>
    setImmediate(() => {
      if (killedWhile === 'executing') die();
      resolve(outcome);
    }),
  );
};
const store = {
  loadInstructionKeys: () => (existsSync(file('keys')) ? readFileSync(file('keys')) : undefined),
  saveInstructionKeys: (bytes: Uint8Array) => writeFileSync(file('keys'), bytes),
};
const desk = new CommandDesk({
  device: { tenantId: 'default', robotId: 'RB-1' },
  keys: new TrustedKeys(store, () => readFileSync(file('ca.pem'), 'utf8')),
  commands,
  target: { trigger: () => execute('trigger'), recover: () => execute('recover'), status: () => ({ motionEpoch: 0 }) },
  record: (event) => {
    appendFileSync(file('events'), `${event.eventId} ${JSON.stringify(event.payload)}\n`);
    return Promise.resolve();
  },
  clock: systemClock,
  log,
});
const reply = await desk.take(readFileSync(file('instruction')), false);
writeFileSync(file('reply'), JSON.stringify(reply));
