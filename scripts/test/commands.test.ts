import { randomUUID } from 'node:crypto';
import t, { type Test } from 'tap';
import type { Cloud, Robot, Stack } from '../src/stack.ts';
import { openStack } from './rig.ts';

t.setTimeout(600_000);

const ROBOT = 'commanded-1';
const JOINT = 'neck_yaw';
const COMMANDS = `/api/v1/robots/${ROBOT}/commands`;

/** A machine that is busy with other tests, not a robot: what is tested is what happens, not how fast. */
const SETTINGS = {
  failsafe: {
    accept_looser: true,
    looser_reason: 'a test on a busy machine',
    mcu_silent_ms: 1000,
    stop_confirm_ms: 2000,
    stale_min_ms: 1500,
    agent_stuck_ms: 2500,
    joints: { [JOINT]: { position_min_rad: -1, position_max_rad: 1, velocity_max_radps: 2 } },
    clear_dwell_ms: Object.fromEntries(
      ['estop', 'guard_fault', 'mcu_silent', 'mcu_fault', 'source_stale', 'agent_stuck', 'mechanical_lock', 'comm_loss']
        .concat('thermal_shutdown')
        .map((cause) => [cause, 50]),
    ),
  },
};

interface CommandView {
  readonly command_id: string;
  readonly status: string;
  readonly detail: string;
  readonly progress: number;
  readonly motion_epoch: number;
  readonly history: readonly { readonly status: string; readonly at: string }[];
}

interface Rig {
  readonly stack: Stack;
  readonly cloud: Cloud;
  readonly robot: Robot;
}

const say = async (rig: Rig, method: string, path: string, body?: unknown) => {
  const reply = await rig.cloud.client.request(method, path, body);
  return { status: reply.status, json: (await reply.json()) as CommandView & Record<string, unknown> };
};
const move = (positionRad: number, more: object = {}, joint: object = {}) => ({
  command: 'set_joint_positions',
  parameters: { joints: [{ name: JOINT, position_rad: positionRad, velocity_max_radps: 1.5, ...joint }] },
  timeout_ms: 60_000,
  ...more,
});
const read = (rig: Rig, id: string) => rig.cloud.client.get<CommandView>(`${COMMANDS}/${id}`);

async function reaches(rig: Rig, id: string, statuses: readonly string[]): Promise<CommandView> {
  let seen = await read(rig, id);
  await rig.stack.until(`${id} to be ${statuses} (now ${JSON.stringify(seen)})`, async () => {
    seen = await read(rig, id);
    return statuses.includes(seen.status);
  });
  return seen;
}

/** Where the joint is, as the control plane has it. */
async function measured(rig: Rig): Promise<number> {
  const { latest } = await rig.cloud.client.get<{
    latest: Record<string, { names: string[]; values: Record<string, number[]> }>;
  }>(`/api/v1/robots/${ROBOT}/health`);
  const joints = latest['mcu/joint_state'];
  return joints?.values['position']?.[joints.names.indexOf(JOINT)] ?? Number.NaN;
}

/** What the control plane knows of the robot. */
const known = (rig: Rig) =>
  rig.cloud.client.get<{ failsafe: { phase: string } | null; liveness: { presence: string | null } }>(
    `/api/v1/robots/${ROBOT}/health`,
  );

/** Lets a robot that is stopped move again. */
async function recover(rig: Rig): Promise<void> {
  // What is read before the stop was told would be taken for the recovery.
  await rig.stack.until('the stop to be known', async () => {
    const { failsafe } = await known(rig);
    return failsafe !== null && failsafe.phase !== 'ARMED';
  });
  await rig.stack.until('a recovery', async () => {
    if ((await known(rig)).failsafe?.phase === 'ARMED') return true;
    // At the robot: a mechanical lock is not let go from afar.
    await rig.stack.edgeCommand('failsafe', 'recover', '--config', rig.robot.configFile).catch(() => '');
    return false;
  });
}

/** Gives a command to a robot that may have stopped by itself once more: the machine is busy. */
async function accepted(rig: Rig, body: object): Promise<CommandView> {
  for (let tries = 0; ; tries += 1) {
    const { status, json } = await say(rig, 'POST', COMMANDS, body);
    if (status === 202) return json;
    if (status !== 409 || tries === 5) throw new Error(`not accepted: ${status} ${JSON.stringify(json)}`);
    await recover(rig);
  }
}

const steps = (command: CommandView): string[] => command.history.map(({ status }) => status);

async function start(t: Test): Promise<Rig> {
  const { stack, end } = openStack(() => undefined);
  t.teardown(end);
  const cloud = await stack.startCloud({ httpPort: 0 });
  const robot = await stack.startRobot(cloud, { robotId: ROBOT, settings: SETTINGS });
  return { stack, cloud, robot };
}

t.test('commands go from the API to the joints of a robot and back', async (t) => {
  const rig = await start(t);
  const { stack, robot } = rig;
  await stack.until('the joint state', async () => Number.isFinite(await measured(rig).catch(() => Number.NaN)));

  const latched = await say(rig, 'POST', COMMANDS, move(0.5));
  t.match(latched, {
    status: 409,
    json: { error: { code: 'FAILED_PRECONDITION', message: /takes no commands: its failsafe is/ } },
  });
  await recover(rig);

  // It moves, once, and says so as it goes.
  const key = randomUUID();
  const [one, two] = await Promise.all(
    [0, 1].map(() => say(rig, 'POST', COMMANDS, move(0.6, { idempotency_key: key }))),
  );
  t.match([one, two], [{ status: 202 }, { status: 202 }]);
  t.equal(one?.json.command_id, two?.json.command_id, 'one key is one command');
  const other = await say(rig, 'POST', COMMANDS, move(0.7, { idempotency_key: key }));
  t.match(other, { status: 409, json: { error: { code: 'ALREADY_EXISTS' } } });
  const done = await reaches(rig, one?.json.command_id ?? '', ['completed', 'failed', 'rejected', 'expired']);
  t.match(done, { status: 'completed', progress: 1, detail: /at their targets/ });
  t.same(steps(done), ['accepted', 'delivered', 'executing', 'completed']);
  t.same(
    done.history.map(({ at }) => at),
    done.history.map(({ at }) => at).toSorted(),
    'in order',
  );
  await stack.until('the joint to be there', async () => Math.abs((await measured(rig)) - 0.6) < 0.03);

  // What cannot be is said by the control plane, and what only the robot knows by the robot.
  const wrong = await say(rig, 'POST', COMMANDS, {
    ...move(0),
    parameters: { joints: [{ name: 'tail', position_rad: 0 }] },
  });
  t.match(wrong, { status: 400, json: { error: { details: [{ field: 'parameters.joints[0].name' }] } } });
  const beyond = await say(rig, 'POST', COMMANDS, move(1.5));
  const refused = await reaches(rig, beyond.json.command_id, ['rejected', 'completed', 'failed']);
  t.match(refused, { status: 'rejected', detail: /at most 1 rad/ });

  // Called off on the way.
  const slow = await accepted(rig, move(-0.9, {}, { velocity_max_radps: 0.02 }));
  await reaches(rig, slow.command_id, ['executing']);
  const cancelled = await say(rig, 'DELETE', `${COMMANDS}/${slow.command_id}`);
  t.ok(cancelled.status === 200 || cancelled.status === 202, 'done, or on its way on a busy machine');
  t.match(await reaches(rig, slow.command_id, ['cancelled', 'completed']), { detail: /called off by/ });
  const again = await say(rig, 'DELETE', `${COMMANDS}/${slow.command_id}`);
  t.match(again, { status: 200, json: { status: 'cancelled' } });
  t.match(await say(rig, 'DELETE', `${COMMANDS}/${done.command_id}`), { status: 409 }, 'what is done is done');
  t.ok((await measured(rig)) > 0, 'it went no further');

  // A stop on the way.
  const doomed = await accepted(rig, move(-0.9, {}, { velocity_max_radps: 0.02 }));
  await reaches(rig, doomed.command_id, ['executing']);
  const stop = () => say(rig, 'POST', `/api/v1/robots/${ROBOT}/failsafe/trigger`, { mode: 'mechanical_lock' });
  // 504 when the robot takes long to confirm: then it is asked again, as a person would.
  await stack.until('a confirmed stop', async () => (await stop()).status === 200);
  const stopped = await reaches(rig, doomed.command_id, ['failed', 'completed']);
  t.match(stopped, { status: 'failed', detail: /was stopped: .*mechanical_lock/ });

  // An agent that is killed over a command: nobody says that it was done, and it is not done again.
  await recover(rig);
  const orphan = await accepted(rig, move(-0.9, {}, { velocity_max_radps: 0.02 }));
  await reaches(rig, orphan.command_id, ['executing']);
  const pid = robot.edge.pid ?? 0;
  process.kill(pid, 'SIGKILL');
  await stack.until('another agent', () => robot.edge.pid !== undefined && robot.edge.pid !== pid);
  const lost = await reaches(rig, orphan.command_id, ['failed', 'completed', 'rejected']);
  t.match(lost, { status: 'failed', detail: /agent was stopped/ });
  t.ok((await measured(rig)) > -0.8, 'and it has not moved on since');

  // A robot that is away: kept until it expires, or refused when asked so.
  await recover(rig);
  await robot.edge.stop();
  await stack.until('its absence to be known', async () => (await known(rig)).liveness.presence !== 'ONLINE');
  const impatient = await say(rig, 'POST', COMMANDS, move(0.1, { require_online: true }));
  t.match(impatient, { status: 503, json: { error: { code: 'UNAVAILABLE' } } });
  const late = await say(rig, 'POST', COMMANDS, move(0.1, { expires_in_ms: 700 }));
  // On a busy machine its last word may have been that it has stopped by itself: for such a robot nothing is kept.
  const isArmed = (await known(rig)).failsafe?.phase === 'ARMED';
  t.equal(late.status, isArmed ? 202 : 409, JSON.stringify(late.json));
  if (isArmed) {
    const unsent = await say(rig, 'POST', COMMANDS, move(0.1));
    t.match(await say(rig, 'DELETE', `${COMMANDS}/${unsent.json.command_id}`), {
      status: 200,
      json: { status: 'cancelled' },
    });
    t.match(await reaches(rig, late.json.command_id, ['expired']), { detail: /not connected/ });
    t.same(steps(await read(rig, late.json.command_id)), ['accepted', 'expired']);
  }

  const first = await rig.cloud.client.get<{ commands: CommandView[]; next_cursor: string }>(`${COMMANDS}?limit=3`);
  const rest = await rig.cloud.client.get<{ commands: CommandView[]; next_cursor: string | null }>(
    `${COMMANDS}?limit=100&cursor=${first.next_cursor}`,
  );
  const ids = [...first.commands, ...rest.commands].map(({ command_id }) => command_id);
  t.equal(new Set(ids).size, isArmed ? 7 : 5, 'each command is on one page');
  t.same(ids, ids.toSorted().reverse(), 'the newest first');
  t.equal(rest.next_cursor, null);
});
