import { readdirSync } from 'node:fs';
import { dirname } from 'node:path';
import t from 'tap';
import { exportStream, fingerprints, openStack, recording } from './rig.ts';
import { readExpected } from './second-reader.ts';

t.setTimeout(900_000);

const SPEED = 20;
const { file: sample, skip } = recording('rosbag/array_msgs_0.mcap');

t.test(
  'every mapped topic of every recording arrives whole, equal to the bit',
  { skip, timeout: 300_000 },
  async (t) => {
    const { stack, end } = openStack((line) => t.comment(line));
    t.teardown(end);
    const cloud = await stack.startCloud({ httpPort: 0 });
    const folder = dirname(sample);
    const recordings = readdirSync(folder).filter((name) => /\.(db3|mcap)$/.test(name));
    let compared = 0;
    await Promise.all(
      recordings.map(async (name, index) => {
        const expected = await readExpected(`${folder}/${name}`);
        if (expected.size === 0) return;
        const robotId = `bag-${index}`;
        await stack.startRobot(cloud, {
          robotId,
          replay: { file: `${folder}/${name}`, speed: SPEED },
          settings: { guard: { enabled: false } },
        });
        const total = [...expected.values()].reduce((sum, samples) => sum + samples.length, 0);
        await stack.until(`${total} samples of ${name}`, async () => {
          const counts = await cloud.client.sampleCounts(robotId);
          return [...counts.values()].reduce((sum, count) => sum + count, 0) >= total;
        });
        const counts = await cloud.client.sampleCounts(robotId);
        for (const [topic, samples] of expected) {
          t.equal(counts.get(topic), samples.length, `${name} ${topic}: ${samples.length} samples`);
          const fields = Object.keys(samples[0]?.values ?? {});
          const stored = await exportStream(cloud.client, robotId, topic);
          t.same(fingerprints(stored, fields), fingerprints(samples, fields), `${name} ${topic}: the recorded values`);
          compared += samples.length;
        }
      }),
    );
    t.comment(`${compared} samples compared`);
    t.ok(compared > 10_000, `${compared} samples were compared`);
  },
);
