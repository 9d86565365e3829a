import type { Sample } from '@outrider/shared/telemetry';
import t from 'tap';
import type { CommandOutcome, ExecuteRequest } from '../src/guard/guard-link.ts';
import { GuardRig, rigProblem, until } from './guard-rig.ts';

t.setTimeout(590_000);

/** A guard on the real firmware that is armed, and where its joints were last measured. */
async function armed(t: { teardown(fn: () => Promise<void>): unknown }, failsafe: object = {}) {
  const rig = await GuardRig.start({
    failsafe: {
      joints: { neck_yaw: { position_min_rad: -1, position_max_rad: 1, velocity_max_radps: 2 } },
      ...failsafe,
    },
  });
  t.teardown(() => rig.close());
  const joints = new Map<string, number>();
  rig.link.onSample((sample: Sample) => {
    rig.samples += 1;
    rig.link.progress(rig.samples);
    if (sample.layout.stream !== 'mcu/joint_state') return;
    for (const [i, name] of sample.layout.names.entries()) joints.set(name, sample.values[i] ?? Number.NaN);
  });
  await rig.recover();
  await until('a measurement', () => joints.size > 0);
  let commands = 0;
  const progress: number[] = [];
  const execute = (order: ExecuteRequest['order'], motionEpoch = rig.link.status()?.motionEpoch ?? 0) => {
    commands += 1;
    const commandId = `c${commands}`;
    const ended = rig.link.execute(
      { commandId, order, motionEpoch, requestedBy: 'test', traceId: 'trace' },
      (share) => void progress.push(share),
    );
    return { commandId, ended };
  };
  const move = (positionRad: number, more: object = {}, joint: object = {}) =>
    execute({
      kind: 'set_joint_positions',
      joints: [{ name: 'neck_yaw', positionRad, velocityMaxRadps: 1.5, ...joint }],
      timeoutMs: 10_000,
      ...more,
    });
  const at = (name = 'neck_yaw'): number => joints.get(name) ?? Number.NaN;
  return { rig, execute, move, at, progress };
}

t.test('joints move where they are told, and completion is measured', { skip: rigProblem ?? false }, async (t) => {
  const { rig, execute, move, at, progress } = await armed(t);
  const others = ['left_knee_pitch', 'waist_yaw'];
  const first = await move(0.6).ended;
  t.match(first, { done: true, outcome: 'done', detail: /at their targets/ });
  t.ok(Math.abs(at() - 0.6) <= 0.021, `measured ${at()}`);
  t.ok(progress.length > 1 && progress.every((share) => share >= 0 && share <= 1), 'progress was told');
  const stood = others.map((name) => at(name));
  t.match(await move(-0.4).ended, { outcome: 'done' });
  for (const [i, name] of others.entries())
    t.ok(Math.abs(at(name) - (stood[i] ?? 0)) < 0.01, `${name} stayed where it was`);

  const refusals: [object, RegExp][] = [
    [{ joints: [{ name: 'neck_yaw', positionRad: 1.2 }] }, /at most 1 rad/],
    [{ joints: [{ name: 'neck_yaw', positionRad: Number.NaN }] }, /must be a number/],
    [{ joints: [{ name: 'tail', positionRad: 0 }] }, /no joint 'tail'/],
    [{ joints: [{ name: 'neck_yaw', positionRad: 0, velocityMaxRadps: 2.5 }] }, /at most 2 rad/],
    [{ joints: [] }, /names no joint/],
    [{ kind: 'dance' }, /'dance' is not known/],
    [{ kind: 'release', joints: [] }, /not held/],
  ];
  const before = at();
  for (const [more, detail] of refusals)
    t.match(await move(0, more).ended, { done: false, outcome: 'refused', detail }, String(detail));
  const epoch = rig.link.status()?.motionEpoch ?? 0;
  t.match(await execute({ kind: 'hold' }, epoch - 1).ended, { outcome: 'conflict', detail: /motion epoch/ });
  t.ok(Math.abs(at() - before) < 0.01, 'nothing moved for what was refused');

  const running = move(0.9, {}, { velocityMaxRadps: 0.3 });
  const early = { detail: '' };
  void running.ended.then(({ detail }) => Object.assign(early, { detail }));
  await until('the motion', () => at() > -0.3 || early.detail !== '');
  t.equal(early.detail, '', 'it moves');
  t.match(await move(0).ended, { outcome: 'conflict', detail: new RegExp(running.commandId) }, 'one at a time');
  t.match(await rig.link.cancel(running.commandId, 'op', 'trace'), { outcome: 'done' });
  t.match(await running.ended, { done: false, outcome: 'cancelled', detail: /called off by op/ });
  const stopped = at();
  t.match(await rig.link.cancel(running.commandId, 'op', 'trace'), { outcome: 'refused' });
  t.match(await move(0.9, { timeoutMs: 300 }, { velocityMaxRadps: 0.2 }).ended, {
    outcome: 'failed',
    detail: /not done within 300 ms: neck_yaw is [01]\.\d+ rad from its target/,
  });
  t.ok(at() - stopped < 0.2, 'it stays where it was when its time was over');
});

t.test('a hold keeps the robot armed and still until it is released', { skip: rigProblem ?? false }, async (t) => {
  const { rig, execute, move, progress } = await armed(t);
  const running = move(0.9, { timeoutMs: 60_000 }, { velocityMaxRadps: 0.02 });
  await until('the motion', () => progress.length > 0);
  const held: CommandOutcome = await execute({ kind: 'hold', timeoutMs: 5000 }).ended;
  t.match(held, { outcome: 'done', detail: /stand still/ });
  t.match(await running.ended, { outcome: 'failed', detail: /told the robot to hold/ });
  t.match(rig.lastState, { state: 'HOLD', motion: false });
  const status = await rig.until('a status after it', ({ mcuState }) => mcuState === 'HOLDING');
  t.match(status, { phase: 'ARMED', gateOpen: true }, 'it is no fault to hold when told');
  t.match(await move(0).ended, { outcome: 'refused', detail: /release it first/ });
  t.match(await execute({ kind: 'hold', timeoutMs: 5000 }).ended, { outcome: 'done' }, 'holding twice is holding');
  t.match(await execute({ kind: 'release' }).ended, { outcome: 'done', detail: /released/ });
  await rig.until('armed and moving', ({ mcuState, phase }) => mcuState === 'ARMED' && phase === 'ARMED');
  t.match(await move(0.1).ended, { outcome: 'done' });
  t.equal(rig.link.status()?.phase, 'ARMED');
  // A stop takes a robot that holds, too.
  t.match(await execute({ kind: 'hold', timeoutMs: 5000 }).ended, { outcome: 'done' });
  rig.control('estop on');
  await until('the stop', () => rig.lastState?.state === 'STOPPED');
});

t.test(
  'a stop ends a motion with its cause, and a closed gate lets none begin',
  { skip: rigProblem ?? false },
  async (t) => {
    const { rig, move, progress, execute } = await armed(t);
    // Slower than a motor heats up.
    const running = move(0.9, { timeoutMs: 60_000 }, { velocityMaxRadps: 0.02 });
    await until('the motion', () => progress.length > 0);
    rig.control('overheat 3');
    t.match(await running.ended, { done: false, outcome: 'failed', detail: /was stopped: .*thermal_shutdown/ });
    await until('the firmware to stop', () => rig.lastState?.state === 'STOPPED');
    t.match(await move(0).ended, { outcome: 'refused', detail: /gate is closed: .*thermal_shutdown/ });
    t.match(await execute({ kind: 'hold' }).ended, { outcome: 'refused', detail: /gate is closed/ });
  },
);
