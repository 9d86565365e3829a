import t from 'tap';
import {
  COMMAND_STATUSES,
  type CommandStatus,
  canBecome,
  hasEnded,
  statusesBefore,
  statusOfOutcome,
  targetProblems,
} from './command.ts';
import { COMMAND_OUTCOMES } from './protocol/instruction.ts';

/** The whole table, row by row: `x` where the command may go. Columns in the order of COMMAND_STATUSES. */
const TABLE: Readonly<Record<CommandStatus, string>> = {
  //            acc del exe com fai rej exp can
  accepted: '     .   x   x   x   x   x   x   x',
  delivered: '    .   .   x   x   x   x   x   x',
  executing: '    .   .   .   x   x   .   .   x',
  completed: '    .   .   .   .   .   .   .   .',
  failed: '       .   .   .   .   .   .   .   .',
  rejected: '     .   .   .   .   .   .   .   .',
  expired: '      .   .   .   .   .   .   .   .',
  cancelled: '    .   .   .   .   .   .   .   .',
};

t.test('a command goes exactly where the table lets it', async (t) => {
  for (const from of COMMAND_STATUSES) {
    const row = TABLE[from].trim().split(/ +/);
    t.equal(row.length, COMMAND_STATUSES.length);
    for (const [i, to] of COMMAND_STATUSES.entries()) {
      t.equal(canBecome(from, to), row[i] === 'x', `${from} -> ${to}`);
      t.equal(statusesBefore(to).includes(from), row[i] === 'x', `${to} <- ${from}`);
    }
    t.equal(hasEnded(from), !row.includes('x'), from);
  }
});

t.test('whatever a robot says last ends a command, and only "done" completes it', async (t) => {
  for (const outcome of COMMAND_OUTCOMES) {
    const status = statusOfOutcome(outcome);
    t.ok(hasEnded(status), outcome);
    t.equal(status === 'completed', outcome === 'done', outcome);
    t.ok(canBecome('accepted', status), outcome);
  }
  t.equal(statusOfOutcome('unknown'), 'failed', 'what nobody knows is not done');
});

t.test('targets beyond what the robot is are named one by one', async (t) => {
  const limits = { knee: { positionMinRad: -1, positionMaxRad: 1, velocityMaxRadps: 2 } };
  const problems = targetProblems(
    [
      { name: 'knee', positionRad: 1, velocityMaxRadps: 2 },
      { name: 'knee', positionRad: 0 },
      { name: 'elbow', positionRad: 0 },
      { name: 'hip', positionRad: Number.NaN },
      { name: 'neck', positionRad: 99, velocityMaxRadps: 99 },
    ],
    ['knee', 'hip', 'neck'],
    (name) => (name === 'knee' ? limits.knee : undefined),
  );
  t.match(problems, [
    { at: 1, field: 'name', reason: /twice/ },
    { at: 2, field: 'name', reason: /no joint 'elbow'/ },
    { at: 3, field: 'position_rad', reason: /must be a number/ },
  ]);
  t.equal(problems.length, 3, 'a joint without limits goes where it is told');
  const at = (positionRad: number, velocityMaxRadps?: number) =>
    targetProblems([{ name: 'knee', positionRad, velocityMaxRadps }], undefined, () => limits.knee).map((p) => p.field);
  t.same(at(1.001), ['position_rad']);
  t.same(at(-1.001), ['position_rad']);
  t.same(at(0, 2.001), ['velocity_max_radps']);
  t.same(at(0, 0), ['velocity_max_radps']);
  t.same(at(0, Number.NaN), ['velocity_max_radps']);
  t.same(at(-1, 1), []);
});
