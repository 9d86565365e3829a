import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { CommandOutcome } from '@outrider/firmware-bridge/link';
import { DEFAULT_POLICY } from '@outrider/shared/failsafe/rules';
import { durableState, recoverNonce } from '@outrider/shared/failsafe/state';
import { createLogger } from '@outrider/shared/log';
import { SAMPLE_FLAGS, type Sample } from '@outrider/shared/telemetry';
import { type Clock, type EpochMs, type MonotonicMs, systemClock } from '@outrider/shared/time';
import t, { type Test } from 'tap';
import type { Actuators, McuView } from './actuators.ts';
import { Evidence } from './evidence.ts';
import { encodeFrame, FRAME_BYTES_MAX, FrameReader } from './framing.ts';
import { failsafeSchema, guardConfig, guardSchema, loadGuardConfig } from './guard-config.ts';
import { EMPTY_RECORD } from './latch-store.ts';
import { GuardLoop } from './loop.ts';
import { LOOP_MS, startRounds } from './rounds.ts';
import { SamplePacker, SampleUnpacker, signalReport, signalsOfReport } from './sample-wire.ts';

const LOG = createLogger('test', 'silent');

/** A folder of its own; short, unlike the paths of `t.testdir`. */
function folder(t: Test): string {
  const dir = mkdtempSync(join(tmpdir(), 'outrider-latch-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

const failureOf = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => undefined,
    (error: unknown) => error,
  );

const SAMPLE: Sample = {
  layout: {
    stream: 'mcu/joint_state',
    kind: 'joint_state',
    names: ['knee'],
    fields: ['position', 'velocity', 'effort', 'temperature'].map((name) => ({ name, width: 1 })),
    tags: { frame_id: 'base_link' },
    declaredRateHz: 50,
  },
  stampNs: 1_700_000_000_123_456_789n,
  receivedNs: -1n,
  receivedMonoNs: 5_000_000n,
  flags: SAMPLE_FLAGS.nonFinite,
  values: Float64Array.of(Number.NaN, -0, 5e-324, 40),
};

t.test('samples cross the socket whole, however the bytes are cut', async (t) => {
  const packer = new SamplePacker();
  const bytes = Buffer.concat([1, 2, 3].map(() => encodeFrame({ sample: packer.pack(SAMPLE) })));
  t.ok(bytes.length < 3 * encodeFrame({ sample: new SamplePacker().pack(SAMPLE) }).length, 'the layout goes once');
  for (const size of [1, 3, 1000]) {
    const reader = new FrameReader();
    const unpacker = new SampleUnpacker();
    const samples: (Sample | undefined)[] = [];
    for (let at = 0; at < bytes.length; at += size)
      for (const frame of reader.push(bytes.subarray(at, at + size)))
        samples.push(frame.sample ? unpacker.unpack(frame.sample) : undefined);
    t.equal(samples.length, 3);
    for (const sample of samples) t.same({ ...sample, values: undefined }, { ...SAMPLE, values: undefined });
    t.ok(samples.every((sample) => Object.is(sample?.values[1], -0) && sample?.values[2] === 5e-324));
  }
  t.equal(
    new SampleUnpacker().unpack({ layoutId: 4, times: new Uint8Array(24), values: new Uint8Array(8) }),
    undefined,
  );
});

t.test('bytes that are no frames end the connection, not the process', async (t) => {
  const tooLong = Buffer.alloc(4);
  tooLong.writeUInt32LE(FRAME_BYTES_MAX + 1);
  t.throws(() => new FrameReader().push(tooLong), { code: 'invalid', message: /too many/ });
  t.throws(() => new FrameReader().push(Buffer.from([3, 0, 0, 0, 255, 255, 255])), { code: 'invalid' });
});

t.test('a report carries what the evaluator needs, and recordings are left out', async (t) => {
  const report = signalReport(SAMPLE);
  t.match(signalsOfReport(report ?? {}), { kind: 'joint_state', names: ['knee'], isOwn: false, isMalformed: false });
  t.ok(Number.isNaN(signalsOfReport(report ?? {}).positionRad[0]));
  t.equal(signalReport({ ...SAMPLE, flags: SAMPLE_FLAGS.replayed }), undefined);
  const mismatch = signalReport({ ...SAMPLE, flags: SAMPLE_FLAGS.nameCountMismatch });
  t.equal(signalsOfReport(mismatch ?? {}).isMalformed, true);
});

t.test('config', async (t) => {
  const load = async (t: Test, text: string): Promise<Awaited<ReturnType<typeof loadGuardConfig>>> => {
    const path = join(folder(t), 'edge.yaml');
    writeFileSync(path, text);
    return loadGuardConfig(path);
  };
  const head = 'robot: { id: RB-1 }\nstate_dir: state\n';

  t.test('takes its parts, fills the defaults and resolves paths against the file', async (t) => {
    const config = await load(t, `${head}cloud: { anything: 1 }\nsources: [{ type: serial, path: /dev/ttyACM0 }]\n`);
    t.match(config, { robotId: 'RB-1', serial: { path: '/dev/ttyACM0', baud: 921_600 }, scheduling: 'auto' });
    t.match(config.socketPath, /state\/guard\.sock$/);
    t.same(config.requiredStreams, ['mcu/joint_state']);
    t.equal((await load(t, head)).serial, undefined);
  });

  t.test('a wrong option is named by its path', async (t) => {
    for (const [text, field] of [
      ['failsafe: { motor_max_c: hot }', 'failsafe.motor_max_c'],
      ['failsafe: { motor_max_c: 96 }', 'failsafe.motor_max_c'],
      ['failsafe: { motor_trip_c: 80 }', 'failsafe.motor_trip_c'],
      ['failsafe: { motor_max_c: 70 }', 'failsafe.motor_clear_c'],
      ['failsafe: { actions: { estop: WARN } }', 'failsafe.actions.estop'],
      [
        'failsafe: { joints: { knee: { position_min_rad: 1, position_max_rad: 0 } } }',
        'failsafe.joints.knee.position_max_rad',
      ],
      ['failsafe: { agent_stuck_ms: 1 }', 'failsafe.agent_stuck_ms'],
      ['failsafe: { typo: 1 }', 'failsafe'],
      ['guard: { scheduling: best }', 'guard.scheduling'],
      ['guard: { gpio: { driver: sysfs } }', 'guard.gpio.driver'],
      ['sources: [{ type: replay }, { type: serial, path: x, baud: 9600 }]', 'sources[1].baud'],
    ] as const)
      t.match(await failureOf(load(t, `${head}${text}\n`)), { code: 'invalid', problems: [{ field }] }, text);
    t.match(await failureOf(load(t, 'state_dir: x\n')), { problems: [{ field: 'robot' }] });
    await t.rejects(loadGuardConfig('/nonexistent/edge.yaml'), { code: 'invalid', message: /no such file/ });
  });
});

/** Actuators that write down what they are told, in one list with the writes to the store. */
class FakeActuators implements Actuators {
  readonly hasMcu = true;
  readonly done: string[];
  state: McuView['state'] = 'STOPPED';
  line: 'clear' | 'pressed' | 'unknown' | undefined;
  failStop = false;
  armOutcome: CommandOutcome = { kind: 'accepted', state: 'ARMED' };
  nowMs = 0;
  hasArmed = false;

  constructor(done: string[]) {
    this.done = done;
  }
  mcu(): McuView {
    return {
      state: this.state,
      lastFrameMs: this.nowMs,
      hasRestarted: false,
      hasArmed: this.hasArmed,
      isEstopPressed: false,
      framesOk: 0,
      framesBad: 0,
      heartbeatRttMs: 1,
    };
  }
  estopLine(): 'clear' | 'pressed' | 'unknown' | undefined {
    return this.line;
  }
  heartbeat(gateOpen: boolean): void {
    this.done.push(gateOpen ? 'lease open' : 'lease closed');
  }
  stop(action: string): void {
    this.done.push(`stop ${action}`);
    this.state = 'STOPPED';
    if (this.failStop) throw new Error('the stop line is broken');
  }
  async arm(): Promise<CommandOutcome> {
    this.done.push('arm');
    if (this.armOutcome.kind === 'accepted') this.state = 'ARMED';
    this.hasArmed = this.state === 'ARMED';
    return this.armOutcome;
  }
}

/** A loop with a hand-driven clock, everything clear, recovered into ARMED unless told otherwise. */
function loopRig(options: { readonly arm?: boolean } = {}) {
  const done: string[] = [];
  const actuators = new FakeActuators(done);
  const clock: Clock = {
    epochMs: () => 1_700_000_000_000 as EpochMs,
    monotonicMs: () => actuators.nowMs as MonotonicMs,
  };
  const serial = { path: 'x', baud: 921_600 };
  const config = guardConfig(failsafeSchema.parse({}), guardSchema.parse({}), serial, '/state');
  const evidence = new Evidence(config, config.requiredStreams, 0);
  const answers: string[] = [];
  const loop = new GuardLoop({
    policy: { ...DEFAULT_POLICY, rules: DEFAULT_POLICY.rules.map((rule) => ({ ...rule, clearDwellMs: 0 })) },
    clock,
    log: LOG,
    actuators,
    evidence,
    stored: EMPTY_RECORD,
    phaseBefore: 'BOOT',
    damage: undefined,
    nonceSeed: 'seed',
    save: (durable, phase) => done.push(`write ${phase} ${durable.motionEpoch}`),
    answer: (result) => answers.push(`${result.done} ${result.detail}`),
    onChange: () => done.push('report'),
  });
  let consumed = 0;
  evidence.agentConnected(0);
  const round = (): void => {
    actuators.nowMs += 20;
    consumed += 1;
    evidence.agentProgress(consumed, consumed, actuators.nowMs);
    sample(0, 40);
    loop.tick();
  };
  const sample = (position: number, celsius: number): void => {
    const receivedMonoNs = BigInt(actuators.nowMs) * 1_000_000n;
    loop.sample({ ...SAMPLE, receivedMonoNs, flags: 0, values: Float64Array.of(position, 0, 0, celsius) });
  };
  const recover = (): void =>
    loop.command({
      commandId: 'r',
      verb: 'recover',
      latchId: loop.state.latchId,
      nonce: recoverNonce(loop.state),
      local: true,
    });
  for (let i = 0; i < 5; i++) round();
  if (options.arm ?? true) {
    recover();
    loop.stored(durableState(loop.state));
    round();
  }
  done.length = 0;
  answers.length = 0;
  return { loop, actuators, evidence, done, answers, round, sample, recover };
}

t.test('loop', async (t) => {
  t.test('a trip stops, then writes, then reports, and the lease is renewed closed', async (t) => {
    const { loop, sample, done, round } = loopRig();
    round();
    t.same(done, ['lease open']);
    done.length = 0;
    sample(0, 96);
    t.same(done, ['stop STOP1', 'write LATCHED 1', 'report']);
    t.equal(loop.state.phase, 'LATCHED');
    done.length = 0;
    round();
    t.same(done, ['lease closed']);
  });

  t.test('the gate does not open before the opening is on disk', async (t) => {
    const { loop, recover, done, round, answers, actuators } = loopRig({ arm: false });
    recover();
    round();
    t.same(done, ['write RECOVERING 1', 'report', 'lease closed']);
    t.same(answers, [], 'a recovery is answered when it has ended');
    loop.stored({ latchId: 0, motionEpoch: 0, latched: [] });
    t.equal(loop.state.phase, 'RECOVERING', 'an older write opens nothing');
    loop.stored(durableState(loop.state));
    t.equal(loop.state.phase, 'ARMED');
    t.ok(done.includes('arm'));
    actuators.state = 'ARMED';
    round();
    t.ok(done.includes('lease open'));
    t.same(answers, ['true armed']);
  });

  t.test('a store that cannot be written ends a recovery and latches', async (t) => {
    const { loop, recover, answers, round } = loopRig({ arm: false });
    recover();
    loop.storeFailed('no space left');
    round();
    t.equal(loop.state.phase, 'LATCHED');
    t.same(answers, ['false stopped again']);
    t.match(loop.status(), { mode: 'unknown_state', gateOpen: false });
  });

  t.test('a microcontroller that refuses to arm stops everything again', async (t) => {
    const { loop, recover, actuators } = loopRig({ arm: false });
    actuators.armOutcome = { kind: 'refused', state: 'STOPPED', reason: 'estop_pressed' };
    recover();
    loop.stored(durableState(loop.state));
    await new Promise((resolve) => setImmediate(resolve));
    t.equal(loop.state.phase, 'LATCHED');
    t.match(loop.status().causes, [{ cause: 'mcu_fault', detail: /estop_pressed/ }]);
  });

  t.test('a broken stop line keeps neither the stop nor the latch from happening', async (t) => {
    const { loop, actuators, sample, done } = loopRig();
    actuators.failStop = true;
    sample(0, 96);
    t.equal(done[0], 'stop STOP1');
    t.same(
      loop.status().causes?.map(({ cause }) => cause),
      ['guard_fault', 'thermal_shutdown'],
    );
  });

  t.test('anything thrown selects the worst stop first', async (t) => {
    const { loop, evidence, actuators, done } = loopRig();
    evidence.liveness = () => {
      throw new Error('a bug');
    };
    actuators.nowMs += 20;
    loop.tick();
    t.equal(done[0], 'stop STOP0');
    t.equal(done.at(-1), 'lease closed');
    t.match(loop.status(), { phase: 'LATCHED', action: 'STOP0', causes: [{ cause: 'guard_fault', detail: 'a bug' }] });
  });

  t.test('streams, microcontroller and agent that fall silent stop, each by its own cause', async (t) => {
    const { loop, actuators, evidence } = loopRig();
    for (let i = 0; i < 20 && loop.state.phase === 'ARMED'; i++) {
      actuators.nowMs += 20;
      evidence.agentProgress(1000 + i, 1000 + i, actuators.nowMs);
      loop.tick();
    }
    t.match(loop.status().causes, [{ cause: 'source_stale', detail: /mcu\/joint_state silent for 2[0-4]\d ms/ }]);
    const stuck = loopRig();
    for (let i = 0; i < 20 && stuck.loop.state.phase === 'ARMED'; i++) {
      stuck.actuators.nowMs += 20;
      stuck.sample(0, 40);
      stuck.loop.tick();
    }
    t.match(stuck.loop.status().causes, [{ cause: 'agent_stuck' }]);
    const gone = loopRig();
    gone.evidence.agentGone();
    for (let i = 0; i < 2; i++) gone.round();
    t.match(gone.loop.status().causes, [{ cause: 'agent_stuck', detail: 'the agent is gone' }]);
  });

  t.test('a guard that was put aside stops at its first round, and not for what waited to be read', async (t) => {
    const { loop, actuators, evidence, sample } = loopRig();
    // 250 ms without a turn; then what arrived meanwhile is read first.
    const late = (hasArrived: boolean): void => {
      actuators.nowMs += 250;
      evidence.agentProgress(actuators.nowMs, actuators.nowMs, actuators.nowMs);
      if (hasArrived) sample(0, 40);
      loop.tick();
    };
    late(true);
    t.equal(loop.state.phase, 'ARMED');
    late(false);
    t.match(loop.status().causes, [{ cause: 'source_stale', detail: 'mcu/joint_state silent for 250 ms' }]);
  });

  t.test('wrong commands are answered, not obeyed', async (t) => {
    const { loop, answers } = loopRig();
    loop.command({ commandId: 'a', verb: 'arm' });
    loop.command({ commandId: 'b', verb: 'trigger', mode: 'self_destruct' });
    loop.command({ commandId: 'c', verb: 'recover', latchId: 0, nonce: 'x' });
    t.match(answers, [/^false unknown verb 'arm'/, /^false unknown mode/, /^false nothing to recover/]);
    t.equal(loop.state.phase, 'ARMED');
    loop.command({ commandId: 'd', verb: 'trigger', mode: 'emergency_stop', reason: 'test' });
    loop.command({ commandId: 'e', verb: 'trigger', mode: 'emergency_stop', reason: 'test' });
    t.match(answers.slice(3), ['true stopped and latched', 'true was latched already']);
  });

  t.test(
    'what a joint is told is held against where it is, while the gate is open and the word is fresh',
    async (t) => {
      const told = (rad: number): Parameters<GuardLoop['report']>[0] =>
        signalsOfReport({ kind: 'joint_command', stream: '/arm/state', names: ['knee'], positionCommandRad: [rad] });
      const { loop, actuators, round, recover } = loopRig();
      loop.report(told(0.4), 50, actuators.nowMs);
      for (let i = 0; i < 3; i++) round();
      t.equal(loop.state.phase, 'ARMED', 'within its limit');
      loop.report(told(2), 50, actuators.nowMs);
      for (let i = 0; i < 3; i++) round();
      t.match(loop.status().causes, [{ cause: 'mechanical_lock', detail: /knee is 2\.0000 rad from its command/ }]);
      for (let i = 0; i < 8; i++) round();
      recover();
      t.equal(loop.state.phase, 'RECOVERING', 'stopped, it need not be where it was told to be');
      const old = loopRig();
      old.loop.report(told(2), 50, old.actuators.nowMs - 250);
      for (let i = 0; i < 5; i++) old.round();
      t.equal(old.loop.state.phase, 'ARMED', 'a word of a stream that has ended means nothing');
      old.loop.report(told(2), 0, old.actuators.nowMs - 250);
      for (let i = 0; i < 5; i++) old.round();
      t.equal(old.loop.state.phase, 'LATCHED', 'one that is only said at changes holds');
    },
  );

  t.test('a stream of the agent counts, and a time ahead of now does not keep it fresh', async (t) => {
    const { loop, actuators, round } = loopRig();
    const report = { ...signalsOfReport(signalReport(SAMPLE) ?? {}), stream: '/motors', kind: 'joint_state' };
    loop.report({ ...report, temperatureC: [96] }, 10, actuators.nowMs + 1e9);
    t.match(loop.status().causes, [{ cause: 'thermal_shutdown', detail: 'knee 96.0 C' }]);
    for (let i = 0; i < 40; i++) round();
    t.match(loop.status().causes, [
      { cause: 'source_stale', detail: /\/motors silent/ },
      { cause: 'thermal_shutdown' },
    ]);
  });
});

t.test('a late round reads what has arrived before it judges', async (t) => {
  const server = createServer();
  const path = join(folder(t), 'port.sock');
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve));
  const there = connect(path);
  const here = await accepted;
  t.teardown(() => {
    here.destroy();
    there.destroy();
    server.close();
  });
  const clock = systemClock;
  const seen: string[] = [];
  here.on('data', () => seen.push('data'));
  let rounds = 0;
  await new Promise<void>((resolve) => {
    const stop = startRounds((nowMs, lateMs) => {
      rounds += 1;
      if (rounds === 1) {
        // Not scheduled for longer than a period, while something comes in.
        setImmediate(() => {
          there.write('x');
          while (clock.monotonicMs() < nowMs + 3 * LOOP_MS);
        });
        return;
      }
      seen.push(lateMs > LOOP_MS ? 'late round' : 'round');
      stop();
      resolve();
    }, clock);
  });
  t.same(seen, ['data', 'late round']);
});
