import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { outrider } from '@outrider/shared/messages';
import t from 'tap';
import { LANE_NUMBERS } from '../src/outbox/records.ts';
import { openOutbox, seeded } from './outbox-rig.ts';
import { counted, exited, TestCloud, TestRobot, until, writeRecording } from './uplink-rig.ts';

const { BodyKind } = outrider.v1;

t.test('kill -9 at random points, broker gone at times: the cloud has each sample of the recording once', async (t) => {
  const cloud = await TestCloud.start();
  const rows = 6000;
  const seed = 20_261_120;
  const random = seeded(seed);
  const robot = new TestRobot(cloud);
  const source = writeRecording(join(robot.home, 'drive.csv'), rows);
  const settings = readFileSync(robot.configFile, 'utf8');
  const replayAt = (speed: number): void =>
    writeFileSync(
      robot.configFile,
      `${settings}sources: [${JSON.stringify({ ...source, speed })}]
`,
    );
  // Slowly enough that it outlasts the kills on a busy machine too.
  replayAt(8);
  t.teardown(async () => {
    await robot.close();
    await cloud.close();
  });
  await robot.enrol(cloud);
  let kills = 0;
  for (; kills < 12; kills += 1) {
    const before = cloud.hellos.length;
    const agent = robot.start('run');
    if (random() < 0.75 && cloud.isUp) await until('connected', () => cloud.hellos.length > before);
    await new Promise((resolve) => setTimeout(resolve, 100 + random() * 500));
    if (random() < 0.3) await (cloud.isUp ? cloud.down() : cloud.up());
    agent.kill('SIGKILL');
    await exited(agent);
  }
  if (!cloud.isUp) await cloud.up();
  t.ok(counted(cloud).samples < 2 * rows, 'the kills came while it replayed');
  replayAt(0);
  const last = robot.start('run', '--exit-when-done');
  t.equal(await exited(last), 0, robot.log.split('\n').slice(-5).join('\n'));
  const { samples, problem } = counted(cloud);
  t.equal(problem, '', `0 duplicated over ${kills} kills (seed ${seed})`);
  t.equal(samples, 2 * rows, `0 lost over ${kills} kills (seed ${seed})`);
  t.same(cloud.problems, []);
  t.equal(cloud.lane('telemetry').filter(({ kind }) => kind === BodyKind.BODY_GAP).length, 0);
  const outbox = openOutbox(robot.stateDir);
  t.ok(outbox.isDrained());
  for (const lane of ['event', 'state', 'telemetry'] as const)
    t.equal(
      cloud.watermark(outbox.epoch, LANE_NUMBERS[lane]),
      outbox.maxSeq(lane),
      'committed and stored are the same set',
    );
  outbox.close();
});
