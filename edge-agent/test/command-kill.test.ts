import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { signInstruction } from '@outrider/shared/protocol/instruction';
import t from 'tap';
import { DEVICE, exited, instructionKeyPair, TestAuthority } from './uplink-rig.ts';

const CHILD = fileURLToPath(new URL('./command-child.js', import.meta.url));

t.test('an agent that is killed over a command does it once, and says after its restart what came of it', async (t) => {
  const authority = await TestAuthority.create();
  const key = instructionKeyPair('k1');
  const keys = await authority.keyList(1, [key]);
  const cases = [
    // Stored, and killed before anybody heard: answered from the log.
    { verb: 'recover', killedWhile: 'answering', executed: 1, outcome: 'done' },
    { verb: 'trigger', killedWhile: 'answering', executed: 1, outcome: 'done' },
    // Killed before the guard's word was stored: a recovery is not tried again, a stop is.
    { verb: 'recover', killedWhile: 'executing', executed: 1, outcome: 'unknown' },
    { verb: 'trigger', killedWhile: 'executing', executed: 2, outcome: 'done' },
  ] as const;
  for (const { verb, killedWhile, executed, outcome } of cases) {
    const folder = join(t.testdir(), `${verb}-${killedWhile}`);
    mkdirSync(folder, { recursive: true });
    const order = {
      ...DEVICE,
      commandId: 'c1',
      verb,
      counter: 1,
      motionEpoch: 0,
      ttlMs: 60_000,
      issuedAtMs: Date.now(),
      ...(verb === 'trigger' ? { trigger: { mode: 'emergency_stop' } } : { recover: { latchId: 7 } }),
    };
    writeFileSync(join(folder, 'instruction'), signInstruction(order, key.keyId, key.privateKey));
    writeFileSync(join(folder, 'keys'), keys);
    writeFileSync(join(folder, 'ca.pem'), authority.pem);
    const run = async (when: string): Promise<NodeJS.Signals | null> => {
      const child = spawn(process.execPath, [CHILD, folder, when], { stdio: ['ignore', 'ignore', 'inherit'] });
      await exited(child);
      return child.signalCode;
    };
    const name = `${verb}, killed while ${killedWhile}`;
    t.equal(await run(killedWhile), 'SIGKILL', name);
    t.notOk(existsSync(join(folder, 'reply')), 'nobody heard an answer');
    t.equal(await run('never'), null);
    const read = (file: string): string => readFileSync(join(folder, file), 'utf8');
    t.match(JSON.parse(read('reply')), { commandId: 'c1', outcome }, name);
    t.equal(read('executed').trim().split('\n').length, executed, `${name}: times it was carried out`);
    t.match(read('events'), new RegExp(`evt_command_c1 .*"outcome":"${outcome}"`), `${name}: its result is on record`);
    t.equal(await run('never'), null);
    t.equal(read('executed').trim().split('\n').length, executed, `${name}: and not once more`);
  }
});
