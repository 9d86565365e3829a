import type { ChildProcess } from 'node:child_process';
import { readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createLogger } from '@outrider/shared/log';
import { systemClock } from '@outrider/shared/time';
import t, { type Test } from 'tap';
import { EXIT_OTHER_GUARD } from '../src/guard/guard.ts';
import { loadGuardConfig } from '../src/guard/guard-config.ts';
import { GuardLink, type GuardStatus } from '../src/guard/guard-link.ts';
import { GUARD_FLAGS } from '../src/guard/guard-process.ts';
import { GuardRig, rigProblem, until } from './guard-rig.ts';

t.setTimeout(590_000);

async function rigFor(t: Test, options: Parameters<typeof GuardRig.start>[0] = {}): Promise<GuardRig> {
  const rig = await GuardRig.start(options);
  t.teardown(() => rig.close());
  return rig;
}

const exitOf = (child: ChildProcess): Promise<number | null> =>
  new Promise((resolve) => child.once('exit', (code) => resolve(code)));

const latched = (causes: readonly { cause?: string | null }[] | null | undefined): string[] =>
  (causes ?? []).map(({ cause }) => cause ?? '');

t.test('the package starts a guard with the flags that an agent does', async (t) => {
  const launcher = readFileSync(join(import.meta.dirname, '../../packaging/outrider-edge.sh'), 'utf8');
  t.match(launcher, `guard) flags='${GUARD_FLAGS.join(' ')}'`);
});

t.test('a guard on the real firmware', { skip: rigProblem ?? false }, async (t) => {
  t.test('boots closed, recovers into motion, overheats, stops, refuses, and recovers when cool', async (t) => {
    const rig = await rigFor(t);
    t.equal(statSync(rig.socketPath).mode & 0o777, 0o600);
    const boot = await rig.until('a status', () => true);
    t.match(view(boot), { phase: 'BOOT', gateOpen: false, mode: '', latchId: 0, motionEpoch: 0 });
    t.equal(
      rig.states.some((state) => state.motion),
      false,
      'nothing moved before a recovery',
    );

    await rig.recover(false);
    const armed = await rig.until('ARMED', (status) => status.phase === 'ARMED' && status.mcuState === 'ARMED');
    t.equal(armed.motionEpoch, 1);

    rig.control('overheat 4');
    const hot = await rig.until('a thermal shutdown', (status) => status.mode === 'thermal_shutdown');
    t.match(view(hot), { phase: 'LATCHED', gateOpen: false, action: 'STOP1', latchId: 1 });
    t.match(hot.causes?.[0]?.detail, /^left_ankle_pitch (8[5-9]|9\d)\.\d C$/);
    await until('the MCU to stop', () => rig.lastState?.state === 'STOPPED');
    t.equal(rig.lastState?.reason, 'gate_closed');

    const again = { local: true, requestedBy: 'test', traceId: 'trace' };
    const nonce = rig.link.status()?.recoverNonce ?? '';
    const refused = await rig.link.recover({ ...again, latchId: 1, nonce });
    t.equal(refused.done, false);
    t.match(refused.unmet.join(), /thermal_shutdown \(mcu\/joint_state\): not clear: left_ankle_pitch/);
    t.match(await rig.link.recover({ ...again, latchId: 1, nonce }), { done: false, detail: /nonce/ });
    await rig.until('a new nonce', (status) => status.recoverNonce !== nonce);
    const fresh = rig.link.status()?.recoverNonce ?? '';
    t.match(await rig.link.recover({ ...again, latchId: 0, nonce: fresh }), { done: false, detail: /latch 0/ });

    rig.control('cool 4');
    await rig.recover(false);
    t.equal(rig.link.status()?.motionEpoch, 2);
    await until('the last report', () => rig.transitions.filter(({ toPhase }) => toPhase === 'ARMED').length === 2);
    const stops = rig.transitions.filter((transition) => transition.mode === 'thermal_shutdown');
    t.equal(stops[0]?.toPhase, 'LATCHED');
    t.ok((stops[0]?.decisionLatencyMs ?? -1) >= 0);
    t.strictSame(
      rig.transitions.map((transition) => transition.toPhase),
      ['BOOT', 'RECOVERING', 'ARMED', 'LATCHED', 'RECOVERING', 'ARMED'],
    );
  });

  t.test('a requested stop latches, keeps its trace id, and a killed guard comes back with it', async (t) => {
    const rig = await rigFor(t);
    await rig.recover();
    const outcome = await rig.link.trigger({
      commandId: 'c1',
      mode: 'geofence_lock',
      reason: 'left the yard',
      requestedBy: 'operator',
      traceId: 'req_1',
      local: false,
    });
    t.match(outcome, { done: true, latchId: 1 });
    await until('the MCU to stop', () => rig.lastState?.motion === false);
    await until('the report', () => rig.transitions.find((transition) => transition.traceId === 'req_1'));
    await rig.kill(rig.guard);
    rig.startGuard();
    const back = await rig.until('the latch after a restart', (status) => status.guardPid === rig.guard.pid);
    t.match(view(back), { phase: 'LATCHED', mode: 'geofence_lock', gateOpen: false, latchId: 1, motionEpoch: 1 });
    await until('the report of the restart', () => rig.transitions.at(-1)?.reason === 'the guard started');
    const ids = rig.transitions.map((transition) => transition.transitionId);
    t.strictSame(
      ids,
      ids.map((_, i) => i + 1),
    );
  });

  t.test('a killed guard leaves the MCU to stop by its lease and to stay stopped [I11]', async (t) => {
    const rig = await rigFor(t);
    await rig.recover();
    await until('the report', () => rig.transitions.at(-1)?.toPhase === 'ARMED');
    const killedUs = systemClock.monotonicMs() * 1000;
    await rig.kill(rig.guard);
    const stopped = await until('the lease to end', () =>
      rig.lastState?.state === 'STOPPED' ? rig.lastState : undefined,
    );
    t.equal(stopped.reason, 'lease_expired');
    t.ok(stopped.mono_us > killedUs, 'it stopped after the kill');
    rig.startGuard();
    await rig.until('the guard again', (status) => status.guardPid === rig.guard.pid && status.mcuState === 'STOPPED');
    t.equal(rig.lastState?.motion, false);
    t.equal(rig.link.status()?.phase, 'BOOT');
    await until('the report of the restart', () => rig.transitions.at(-1)?.reason === 'the guard started');
    t.equal(rig.transitions.at(-1)?.fromPhase, 'ARMED');
  });

  t.test(
    'the emergency stop of the MCU, a limit, NaN, a reset and silence each stop under their own name',
    async (t) => {
      const rig = await rigFor(t, { failsafe: { ...dwells(), joints: { left_hip_yaw: { position_max_rad: 2 } } } });
      for (const [line, undo, cause] of [
        ['estop on', 'estop off', 'estop'],
        ['limit left_hip_yaw', 'clear', 'mechanical_lock'],
        ['nan 2', 'clear', 'mechanical_lock'],
        ['reset', '', 'mcu_fault'],
        ['silent', 'resume', 'mcu_silent'],
      ] as const) {
        await rig.recover();
        rig.control(line);
        const status = await rig.until(`${cause} after ${line}`, (s) => latched(s.causes).includes(cause));
        t.match(view(status), { phase: 'LATCHED', gateOpen: false }, line);
        await until(`no motion after ${line}`, () => rig.lastState?.motion === false);
        if (undo) rig.control(undo);
      }
    },
  );

  t.test('a frozen agent and a killed agent are causes, and what they missed comes exactly once', async (t) => {
    const rig = await rigFor(t);
    const file = join(rig.dir, 'transitions.txt');
    const told = (): string[] => readFileSync(file, { encoding: 'utf8', flag: 'a+' }).split('\n').filter(Boolean);
    const hasTold = (pattern: RegExp) => (): boolean => told().some((line) => pattern.test(line));
    await rig.recover();
    // A child takes the place of the agent in this process.
    await rig.stopLink();
    await rig.kill(rig.guard);
    rig.startGuard();
    for (const [round, signal] of (['SIGSTOP', 'SIGKILL'] as const).entries()) {
      const agent = rig.startAgentChild(file);
      let said = '';
      agent.stdout?.on('data', (bytes: Buffer) => {
        said += bytes.toString();
      });
      await until('the child to arm the robot', () => said.includes('armed') && rig.lastState?.motion);
      agent.kill(signal);
      await until(`no motion after ${signal}`, () => rig.lastState?.motion === false);
      t.not(rig.lastState?.reason, 'lease_expired', 'the guard stopped it, not the lease');
      await rig.kill(agent);
      if (round > 0) continue;
      // What the frozen one missed outlives the guard too, once it is on disk.
      const slots = (): string => ['latch-a', 'latch-b'].map((slot) => readFileSync(join(rig.latchDir, slot))).join();
      await until('the latch on disk', () => slots().includes('"cause":"agent_stuck"'));
      await rig.kill(rig.guard);
      rig.startGuard();
    }
    rig.startAgentChild(file);
    await until('the last report', hasTold(/ARMED LATCHED the agent is gone/));
    t.ok(hasTold(/ARMED LATCHED its tick counter stands still/)(), told().join('\n'));
    t.ok(hasTold(/LATCHED LATCHED the guard started/)(), told().join('\n'));
    const ids = told().map((line) => Number(line.split(' ')[0]));
    t.strictSame(
      ids,
      ids.map((_, i) => (ids[0] ?? 0) + i),
      'every id once, without a hole',
    );
  });

  t.test('a damaged or missing latch store is latched, with what the other slot still knows', async (t) => {
    const rig = await rigFor(t);
    await rig.recover();
    await rig.link.trigger({
      commandId: 'c',
      mode: 'geofence_lock',
      reason: '',
      requestedBy: '',
      traceId: '',
      local: true,
    });
    await until('all reports', () => rig.transitions.at(-1)?.mode === 'geofence_lock');
    await rig.kill(rig.guard, 'SIGTERM');
    for (const slot of ['latch-a', 'latch-b']) {
      const path = join(rig.latchDir, slot);
      const bytes = readFileSync(path);
      bytes[bytes.length - 9] = (bytes[bytes.length - 9] ?? 0) ^ 0x10;
      writeFileSync(path, bytes);
      rig.startGuard();
      const status = await rig.until(`damage in ${slot}`, (s) => s.guardPid === rig.guard.pid);
      t.match(view(status), { phase: 'LATCHED', gateOpen: false }, slot);
      t.ok(latched(status.causes).includes('unknown_state'), slot);
      t.ok((status.motionEpoch ?? 0) > 1, 'no old command fits the motion epoch any more');
      await rig.kill(rig.guard, 'SIGTERM');
    }
  });

  t.test('a second guard is refused, a stale socket is replaced, a lost line is opened again', async (t) => {
    const rig = await rigFor(t);
    const second = rig.startGuard();
    t.equal(await exitOf(second), EXIT_OTHER_GUARD);
    t.equal((await rig.until('the first guard', () => true)).phase, 'BOOT');
    // As a device that is pulled out: what is left of its name could be another program's terminal by then.
    rmSync(join(rig.dir, 'tty'));
    await rig.kill(rig.mcu);
    await rig.until('silence', (status) => latched(status.causes).includes('mcu_silent'));
    await rig.startMcu();
    await rig.recover();
  });

  t.test('the agent starts its guard, starts it again when killed, and ends it with itself', async (t) => {
    const rig = await rigFor(t);
    await rig.recover();
    await rig.stopLink();
    await rig.kill(rig.guard);
    const link = new GuardLink({
      socketPath: rig.socketPath,
      spawnConfig: await loadGuardConfig(rig.configPath),
      agentBootId: 'spawner',
      transitionsStored: () => rig.transitionsStored,
      clock: systemClock,
      log: createLogger('agent', 'silent'),
    });
    link.onTransition(async () => {});
    const stop = new AbortController();
    const done = link.run(stop.signal);
    t.teardown(() => stop.abort());
    const firstPid = await until('a spawned guard', () => link.status()?.guardPid ?? undefined);
    process.kill(firstPid, 'SIGKILL');
    const pid = await until('another guard', () => {
      const now = link.status()?.guardPid ?? undefined;
      return now === firstPid ? undefined : now;
    });
    stop.abort();
    await done;
    await until('the guard to end', () => !isAlive(pid));
    t.equal(rig.lastState?.motion, false);
  });

  t.test('outside its geofence it is held, and a recovery lets it move inwards only', async (t) => {
    const geofence = {
      frame: 'map',
      corners: [
        [0, 0],
        [10, 0],
        [10, 10],
        [0, 10],
      ],
    };
    const rig = await rigFor(t, { failsafe: { ...dwells(), geofence } });
    await rig.recover();
    let x = 5;
    const pose = setInterval(() => {
      const receivedMonoNs = process.hrtime.bigint();
      rig.link.reportPlace({ stream: '/pose', frame: 'map', at: [x, 5], declaredRateHz: 1, receivedMonoNs });
    }, 50);
    t.teardown(() => clearInterval(pose));
    x = 12;
    const held = await rig.until('the hold', (s) => latched(s.causes).includes('geofence_lock'));
    t.match(held, { mode: 'geofence_lock', action: 'HOLD', gateOpen: false, speedFactor: 0 });
    await rig.recover();
    const back = await rig.until('the way back', (s) => s.inwardOnly === true);
    t.match(back, { phase: 'ARMED', gateOpen: true, speedFactor: 1, inwardSpeedMaxMps: 0.1 });
    x = 5;
    await rig.until('freedom inside', (s) => s.phase === 'ARMED' && s.inwardOnly !== true);
  });

  t.test('with GPIO lines: a pressed or unreadable button stops', async (t) => {
    const file = 'estop.txt';
    const rig = await rigFor(t, { guard: { gpio: { driver: 'simulated', file } } });
    const path = join(rig.dir, file);
    await rig.until('an unreadable line', (status) => latched(status.causes).includes('estop'));
    writeFileSync(path, 'clear');
    await rig.recover();
    writeFileSync(path, 'pressed');
    await rig.until('the button', (status) => latched(status.causes).includes('estop'));
    await until('no motion', () => rig.lastState?.motion === false);
  });
});

/** Fields that are left at their default are not the message's own: asked for one by one. */
const view = (status: GuardStatus): object => ({
  phase: status.phase,
  mode: status.mode,
  action: status.action,
  gateOpen: status.gateOpen,
  latchId: status.latchId,
  motionEpoch: status.motionEpoch,
});

function dwells(): object {
  const names = [
    'estop',
    'mcu_silent',
    'mcu_fault',
    'source_stale',
    'agent_stuck',
    'mechanical_lock',
    'thermal_shutdown',
  ];
  return {
    accept_looser: true,
    looser_reason: 'a test',
    clear_dwell_ms: Object.fromEntries(names.map((cause) => [cause, 50])),
  };
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
