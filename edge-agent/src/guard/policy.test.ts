import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { staleAfterMs } from '@outrider/shared/failsafe/classify-liveness';
import { CAUSE_IDS } from '@outrider/shared/failsafe/rules';
import type { Sample } from '@outrider/shared/telemetry';
import type { EpochMs, MonotonicMs } from '@outrider/shared/time';
import t, { type Test } from 'tap';
import { HealthReporter } from '../agent/health-reporter.ts';
import { loadConfig } from '../config.ts';
import { readAgentConfig, readGuardConfig } from '../config-process.ts';
import type { ExplainedCause } from './explain.ts';
import { loadGuardConfig } from './guard-config.ts';
import { healthOf, signalReport, signalsOfReport } from './sample-wire.ts';

const CLI = join(import.meta.dirname, '../cli.js');
const HEAD = 'robot: { id: RB-1 }\nstate_dir: /nonexistent/state\ncloud: { http_url: "https://cloud.example" }\n';

const SQUARE = [
  [0, 0],
  [1, 0],
  [1, 1],
];

/** edge.yaml with this `failsafe:` section, and a policy file beside it. */
function files(t: Test, failsafe: object, policy?: object | string): string {
  const dir = t.testdir();
  const path = join(dir, 'edge.yaml');
  const section = policy === undefined ? failsafe : { policy_file: 'fleet/policy.yaml', ...failsafe };
  // JSON is YAML.
  writeFileSync(path, `${HEAD}failsafe: ${JSON.stringify(section)}\n`);
  if (policy !== undefined) {
    mkdirSync(join(dir, 'fleet'));
    writeFileSync(join(dir, 'fleet/policy.yaml'), typeof policy === 'string' ? policy : JSON.stringify(policy));
  }
  return path;
}

const refusal = async (path: string): Promise<unknown> =>
  loadGuardConfig(path).then(
    () => 'was accepted',
    (error: unknown) => error,
  );

t.test('options of edge.yaml win over those of the policy file, which win over the defaults', async (t) => {
  const policy = {
    motor_max_c: 80,
    battery: { low_soc: 0.4, max_c: 50 },
    joints: { knee: { velocity_max_radps: 3, effort_max_nm: 40 } },
    actions: { tilt: 'STOP0', battery_low: 'HOLD' },
    geofence: {
      frame: 'map',
      corners: [
        [0, 0],
        [9, 0],
        [9, 9],
      ],
      margin_m: 0.5,
    },
  };
  const own = {
    battery: { low_soc: 0.3 },
    joints: { knee: { velocity_max_radps: 2 } },
    actions: { battery_low: 'STOP1' },
  };
  const { signals, policy: found } = await loadGuardConfig(files(t, own, policy));
  t.equal(signals.thermal.maxC, 80);
  t.match(signals.power, { lowSoc: 0.3, maxC: 50, criticalSoc: 0.05 });
  t.match(signals.joints['knee'], { velocityMaxRadps: 2, effortMaxNm: 40 });
  t.match(signals.geofence, { frame: 'map', marginM: 0.5, corners: { length: 3 } });
  t.equal(found.rules.find(({ cause }) => cause === 'battery_low')?.action, 'STOP1');
  t.equal(found.rules.find(({ cause }) => cause === 'tilt')?.action, 'STOP0');
});

t.test('an action may be raised by either file and lowered by none [I24]', async (t) => {
  const lowered = files(t, { actions: { battery_low: 'WARN' } });
  t.match(await refusal(lowered), {
    problems: [{ field: 'failsafe.actions.battery_low', reason: /raised from DERATE/ }],
  });
  const below = files(t, { actions: { battery_low: 'HOLD' } }, { actions: { battery_low: 'STOP1' } });
  t.match(await refusal(below), { problems: [{ field: 'failsafe.actions.battery_low', reason: /raised from STOP1/ }] });
  const inPolicy = files(t, {}, { actions: { estop: 'HOLD' } });
  t.match(await refusal(inPolicy), { message: /policy\.yaml: actions\.estop/, problems: [{ field: 'actions.estop' }] });
});

t.test('a limit beyond its default needs accept_looser and a reason, in the file that has it', async (t) => {
  for (const [section, field] of [
    [{ motor_max_c: 86 }, 'failsafe.motor_max_c'],
    [{ body: { roll_max_deg: 46 } }, 'failsafe.body.roll_max_deg'],
    [{ body: { free_fall_mps2: 2 } }, 'failsafe.body.free_fall_mps2'],
    [{ body: { imu_streams: ['other'] } }, 'failsafe.body.imu_streams'],
    [{ battery: { streams: [] } }, 'failsafe.battery.streams'],
    [{ battery: { critical_soc: 0.04 } }, 'failsafe.battery.critical_soc'],
    [{ clear_dwell_ms: { tilt: 2999 } }, 'failsafe.clear_dwell_ms.tilt'],
    [{ joints: { knee: { temperature_max_c: 86 } } }, 'failsafe.joints.knee.temperature_max_c'],
    [{ joints: { knee: { tracking_max_rad: 0.6 } } }, 'failsafe.joints.knee.tracking_max_rad'],
    [
      {
        geofence: {
          frame: 'map',
          corners: [
            [0, 0],
            [1, 0],
            [1, 1],
          ],
          margin_m: 0.1,
        },
      },
      'failsafe.geofence.margin_m',
    ],
    [{ agent_stuck_ms: 201 }, 'failsafe.agent_stuck_ms'],
    [{ disk_min_mb: 255 }, 'failsafe.disk_min_mb'],
  ] as const) {
    t.match(await refusal(files(t, section)), { code: 'invalid', problems: [{ field, reason: /accept_looser/ }] });
    const reason = { accept_looser: true, looser_reason: 'a bench without people' };
    t.ok((await loadGuardConfig(files(t, { ...section, ...reason }))).policy, field);
  }
  const mute = { accept_looser: true, looser_reason: ' ', motor_max_c: 86 };
  t.match(await refusal(files(t, mute)), { problems: [{ field: 'failsafe.looser_reason' }] });
  const accepted = { accept_looser: true, looser_reason: 'old motors', motor_max_c: 90 };
  t.equal((await loadGuardConfig(files(t, {}, accepted))).signals.thermal.maxC, 90);
  t.match(await refusal(files(t, { stale_min_ms: 201 }, accepted)), { problems: [{ field: 'failsafe.stale_min_ms' }] });
  t.match(await refusal(files(t, {}, { motor_max_c: 90 })), { problems: [{ field: 'motor_max_c' }] });
});

t.test('by default every watch waits 200 ms, and explain says so', async (t) => {
  const path = files(t, {});
  const { liveness } = await loadGuardConfig(path);
  t.match(liveness, { staleMsMin: 200, mcuSilentMs: 200, agentStuckMs: 200 });
  t.equal(staleAfterMs(50, liveness), 200, 'five periods of 50 Hz are less than what a loaded host delays');
  t.equal(staleAfterMs(10, liveness), 500);
  const said = execFileSync(process.execPath, [CLI, 'failsafe', 'explain', '--config', path], { encoding: 'utf8' });
  t.match(said, /no valid frame for 200 ms/);
  t.match(said, /silent for 5 periods, at least 200 ms/);
});

t.test('a configuration that was read in a process of its own is the same, and so are its refusals', async (t) => {
  const path = files(t, { joints: { knee: { position_max_rad: 1 } }, geofence: { frame: 'map', corners: SQUARE } });
  /** As the other process hands it over; anything that JSON cannot say would be lost silently. */
  const sayable = (config: object): unknown =>
    JSON.parse(
      JSON.stringify(config, (key, value) => {
        if (typeof value === 'number' && !Number.isFinite(value)) throw new Error(`${key} is ${value}`);
        return value;
      }),
    );
  t.strictSame(await readGuardConfig(path), sayable(await loadGuardConfig(path)));
  t.strictSame(
    await readAgentConfig(path, { replayFile: 'x.csv' }),
    sayable(loadConfig(path, { replayFile: 'x.csv' })),
  );
  const wrong = files(t, { motor_max_c: 90 });
  const refused = { code: 'invalid', problems: [{ field: 'failsafe.motor_max_c' }] };
  await t.rejects(readGuardConfig(wrong), refused);
  await t.rejects(readAgentConfig(wrong, {}), refused);
});

t.test('a policy file that cannot be used is named, with the option', async (t) => {
  t.match(await refusal(files(t, { policy_file: 'gone.yaml' })), { message: /failsafe\.policy_file: .*gone\.yaml/ });
  t.match(await refusal(files(t, {}, '{ not yaml')), { problems: [{ field: 'failsafe.policy_file' }] });
  t.match(await refusal(files(t, {}, { policy_file: 'x' })), { problems: [{ field: 'policy_file' }] });
  t.match(await refusal(files(t, {}, { battery: { low_sok: 1 } })), { problems: [{ field: 'battery' }] });
  t.match(
    await refusal(
      files(t, {
        geofence: {
          frame: 'wgs84',
          corners: [
            [0, 0],
            [91, 0],
            [1, 1],
          ],
        },
      }),
    ),
    {
      problems: [{ field: 'failsafe.geofence.corners[1]' }],
    },
  );
});

t.test('failsafe explain says what trips each cause, how it clears, and which file says so', async (t) => {
  const path = files(
    t,
    { battery: { low_soc: 0.3 } },
    { actions: { geofence_lock: 'STOP1' }, clear_dwell_ms: { tilt: 9000 } },
  );
  const run = (...args: string[]): string =>
    execFileSync(process.execPath, [CLI, 'failsafe', 'explain', '--config', path, ...args], { encoding: 'utf8' });
  const { causes, accepts_looser } = JSON.parse(run('--json')) as {
    readonly causes: readonly ExplainedCause[];
    readonly accepts_looser: null;
  };
  t.equal(accepts_looser, null);
  t.same(
    causes.map(({ cause }) => cause),
    CAUSE_IDS,
  );
  const of = (name: string): ExplainedCause | undefined => causes.find(({ cause }) => cause === name);
  t.match(of('geofence_lock'), { action: 'STOP1', action_default: 'HOLD', action_from: /policy\.yaml$/ });
  t.match(of('tilt'), { action_from: 'default', clear_dwell_ms: 9000, clear_dwell_from: /policy\.yaml$/ });
  t.match(of('battery_low'), {
    trips: /below 30 %/,
    settings: [
      { option: 'battery.low_soc', value: 0.3, from: /edge\.yaml$/ },
      { option: 'battery.sag_ratio', value: 0.15, from: 'default' },
    ],
  });
  for (const { cause, settings } of causes)
    for (const { option, value } of settings)
      t.ok(
        value !== null || ['required_streams', 'geofence', 'battery.voltage_min_v'].includes(option),
        `${cause} ${option}`,
      );
  const words = run();
  t.match(words, /geofence_lock: STOP1 \(policy\.yaml; default HOLD\)/);
  t.match(words, /set {5}battery\.low_soc: 0\.3 \(edge\.yaml\)/);
});

t.test('IMU, battery and place cross the socket to the guard as they were measured', async (t) => {
  const sample = (kind: 'imu' | 'power', fields: Readonly<Record<string, number[]>>): Sample => ({
    layout: {
      stream: '/s',
      kind,
      names: [],
      fields: Object.entries(fields).map(([name, values]) => ({ name, width: values.length })),
      tags: {},
      declaredRateHz: 50,
    },
    stampNs: 0n,
    receivedNs: 0n,
    receivedMonoNs: 5_000_000n,
    flags: 0,
    values: Float64Array.from(Object.values(fields).flat()),
  });
  const imu = signalReport(sample('imu', { orientation: [0, 0, 0, 1], linear_acceleration: [0, 0, 9.8] })) ?? {};
  t.match(signalsOfReport(imu), {
    imu: { orientation: [0, 0, 0, 1], accelerationMps2: [0, 0, 9.8] },
    power: undefined,
  });
  const power = signalReport(sample('power', { voltage: [48], current: [-2], temperature: [31] })) ?? {};
  t.match(signalsOfReport(power), { power: { voltageV: 48, currentA: -2, temperatureC: [31] }, imu: undefined });
  t.ok(Number.isNaN(signalsOfReport(power).power?.stateOfCharge));
  t.same(signalsOfReport({ positionFrame: 'map', position: [1, 2] }).place, { frame: 'map', at: [1, 2] });
  t.equal(signalsOfReport({ kind: 'imu' }).place, undefined);
  t.match(healthOf({ hasLink: true, linkAgeMs: 7, commPolicy: 'hold' }, 9), {
    missionPolicy: 'hold',
    linkAgeMs: 7,
    receivedMs: 9,
  });
  t.equal(healthOf({ commPolicy: 'sometimes' }, 0).missionPolicy, undefined);
});

t.test('the agent reports how long its link has been silent, and the disk', async (t) => {
  let nowMs = 1000;
  let isUp = true;
  const said: unknown[] = [];
  const reporter = new HealthReporter({
    mission: () => ({ policy: 'hold', maxMs: 7 }),
    clockQuality: () => 'bad',
    stateDir: t.testdir(),
    clock: { epochMs: () => 0 as EpochMs, monotonicMs: () => nowMs as MonotonicMs },
    link: () => ({ exists: true, isUp }),
    report: (health) => said.push(health),
  });
  reporter.report();
  nowMs = 3000;
  isUp = false;
  reporter.report();
  t.match(said, [
    { hasLink: true, linkUp: true, linkAgeMs: 0, clockQuality: 'bad', commPolicy: 'hold', commMaxMs: 7 },
    { hasLink: true, linkUp: false, linkAgeMs: 2000, diskFreeBytes: Number },
  ]);
});
