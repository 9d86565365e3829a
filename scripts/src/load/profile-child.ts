/**
 * Loaded into the control plane before its own modules (`node --import`): profiles it from SIGUSR2 on and writes what was
 * found when it ends. Node takes no `--cpu-prof` from the environment, and enrolling a fleet would fill the profile.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { Session } from 'node:inspector';
import { join } from 'node:path';

const directory = process.env['LOAD_PROFILE_DIR'];
if (directory !== undefined) {
  const session = new Session();
  session.connect();
  session.post('Profiler.enable');
  session.post('Profiler.setSamplingInterval', { interval: 500 });
  process.on('SIGUSR2', () => session.post('Profiler.start'));
  process.on('exit', () => {
    session.post('Profiler.stop', (error, result) => {
      if (error) return;
      mkdirSync(directory, { recursive: true });
      writeFileSync(join(directory, `cloud-${process.pid}.cpuprofile`), JSON.stringify(result.profile));
    });
  });
}
