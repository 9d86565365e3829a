import { readdirSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Sample } from '@outrider/shared/telemetry';
import t from 'tap';
import { BlackBoxRecorder } from '../src/blackbox/recorder.ts';
import { SampleRing, sampleBytes } from '../src/blackbox/ring.ts';
import { BoxShelf, type BoxView } from '../src/blackbox/shelf.ts';
import { McapFile, partOf } from '../src/export/mcap-file.ts';
import { openPlayback } from '../src/sources/playback.ts';
import { jointLayout, StepClock, sampleOf, silentLog } from './outbox-rig.ts';

const LAYOUT = jointLayout('mcu/joint_state');
const PERIOD_MS = 20;

/** A recorder at a clock that only moves with the samples. */
class Rig {
  readonly clock = new StepClock();
  readonly recorded: BoxView[] = [];
  readonly #stop = new AbortController();
  readonly recorder: BlackBoxRecorder;
  readonly stopped: Promise<void>;
  #next = 0;
  #arrived: () => void = () => {};

  constructor(stateDir: string, options: { filesMax?: number; memoryMaxBytes?: number } = {}) {
    this.recorder = new BlackBoxRecorder({
      stateDir,
      robot: 'default.RB-1',
      beforeMs: 2000,
      afterMs: 1000,
      memoryMaxBytes: 8 * 1024 * 1024,
      filesMax: 20,
      sizeMaxBytes: 64 * 1024 * 1024,
      clock: this.clock,
      log: silentLog,
      onRecorded: (box) => {
        this.recorded.push(box);
        this.#arrived();
      },
      ...options,
    });
    this.stopped = this.recorder.run(this.#stop.signal);
  }

  run(seconds: number): void {
    for (let i = 0; i < (seconds * 1000) / PERIOD_MS; i += 1) {
      this.clock.nowMs += PERIOD_MS;
      this.recorder.add(sampleOf(LAYOUT, this.#next));
      this.#next += 1;
    }
  }

  trip(latchId: number, atMonoMs: number = this.clock.nowMs): void {
    this.recorder.transition({
      transitionId: latchId,
      atMs: this.clock.epochMs(),
      atMonoMs,
      toPhase: 'LATCHED',
      mode: 'mechanical_lock',
      latchId,
      traceId: `trace_${latchId}`,
      causes: [{ cause: 'mechanical_lock', action: 'STOP0', latched: true, detail: 'knee_l too far' }],
    });
  }

  async boxes(count: number): Promise<readonly BoxView[]> {
    while (this.recorded.length < count)
      await new Promise<void>((resolve) => {
        this.#arrived = resolve;
      });
    return this.recorded;
  }

  stop(): Promise<void> {
    this.#stop.abort();
    return this.stopped;
  }
}

async function samplesOf(file: string): Promise<Sample[]> {
  const playback = await openPlayback({ file });
  const samples: Sample[] = [];
  for await (const sample of playback.samples()) samples.push(sample);
  await playback.close();
  return samples;
}

t.test('a trip keeps every sample of the seconds before and after it, with why and when', async (t) => {
  const stateDir = t.testdir();
  const rig = new Rig(stateDir);
  rig.run(5);
  rig.trip(7);
  rig.run(3);
  const [box] = await rig.boxes(1);
  t.match(box, { latch_id: 7, mode: 'mechanical_lock', trace_id: 'trace_7', cut_short: null, exported_at: null });
  t.strictSame(box?.causes, ['mechanical_lock: STOP0, knee_l too far']);
  const samples = await samplesOf(box?.file ?? '');
  t.equal(samples.length, box?.samples);
  t.equal(samples.length, 101 + 50, '2 s before, both ends included, and 1 s after');
  const stamps = samples.map(({ stampNs }) => stampNs);
  t.ok(
    stamps.every((stamp, i) => i === 0 || stamp - (stamps[i - 1] as bigint) === 20_000_000n),
    'without a hole',
  );
  t.strictSame([...(samples[0] as Sample).values], [...sampleOf(LAYOUT, 149).values]);

  rig.trip(7);
  rig.run(2);
  rig.recorder.transition({ toPhase: 'ARMED', latchId: 7 });
  rig.trip(8, 1000);
  await rig.stop();
  t.equal(new BoxShelf(stateDir).list().length, 1, 'neither the same latch, a recovery nor an old trip makes a box');
});

t.test('a second trip soon after extends the box; a stop of the agent ends it early and says so', async (t) => {
  const rig = new Rig(t.testdir());
  rig.run(3);
  rig.trip(1);
  rig.run(0.5);
  rig.trip(2);
  rig.run(0.2);
  await rig.stop();
  const [box] = rig.recorded;
  t.equal(rig.recorded.length, 1);
  t.equal(box?.cut_short, 'the agent stopped');
  t.match(box?.also, [/^latch 2: mechanical_lock/]);
  t.equal((await samplesOf(box?.file ?? '')).length, 101 + 35);
});

t.test('boxes are bounded: exported ones go first, then the oldest', async (t) => {
  const stateDir = t.testdir();
  const rig = new Rig(stateDir, { filesMax: 3 });
  const shelf = new BoxShelf(stateDir);
  for (let latch = 1; latch <= 5; latch += 1) {
    rig.run(0.1);
    rig.trip(latch);
    rig.run(1.5);
    await rig.boxes(latch);
    if (latch === 3) shelf.markExported(shelf.list()[1]?.id ?? '', '2026-11-20T08:00:00.000Z');
  }
  t.strictSame(
    shelf.list().map((box) => box.latch_id),
    [3, 4, 5],
    'the exported second went first, then the first',
  );
  t.equal(readdirSync(shelf.directory).length, 6, 'with their facts');
  t.throws(() => shelf.get('nothing'), { code: 'not_found' });
  await rig.stop();
});

t.test('a box that a power cut broke off is whole again after the next start, up to its last chunk', async (t) => {
  const stateDir = t.testdir();
  const shelf = new BoxShelf(stateDir);
  shelf.prepare();
  const path = shelf.pathOf('2026-11-20T08-00-00.000Z-latch-4');
  const file = await McapFile.create(path);
  await file.addFacts('outrider.trip', { latch_id: '4', mode: 'thermal_shutdown', causes: 'a\nb', trace_id: 'x' });
  for (let i = 0; i < 3000; i += 1) await file.add(sampleOf(LAYOUT, i));
  await file.finish();
  renameSync(path, partOf(path));
  truncateSync(partOf(path), Math.round(file.bytes / 2));
  writeFileSync(partOf(shelf.pathOf('empty')), '');
  const rig = new Rig(stateDir);
  const [box] = await rig.boxes(1);
  await rig.stop();
  t.match(box, { latch_id: 4, mode: 'thermal_shutdown', trace_id: 'x', causes: ['a', 'b'], cut_short: /killed/ });
  const samples = await samplesOf(box?.file ?? '');
  t.ok(samples.length > 1000 && samples.length < 1600, `${samples.length} of 3000 samples`);
  t.equal(samples.length, box?.samples);
  t.strictSame(shelf.unfinished(), [], 'one that holds nothing is gone');
});

t.test('memory is bounded in bytes as well as in time, and a box whose facts are lost is still listed', async (t) => {
  const ring = new SampleRing(60_000, 50 * sampleBytes(sampleOf(LAYOUT, 0)));
  for (let i = 0; i < 10_000; i += 1) ring.add(sampleOf(LAYOUT, i), i);
  t.equal(ring.samples(10_000).length, 50);
  t.ok(ring.bytes <= 50 * sampleBytes(sampleOf(LAYOUT, 0)));
  t.equal(ring.samples(80_000).length, 0, 'old samples go with time too');

  const stateDir = t.testdir();
  const rig = new Rig(stateDir);
  rig.run(1);
  rig.trip(1);
  await rig.stop();
  const shelf = new BoxShelf(stateDir);
  rmSync(join(shelf.directory, `${shelf.list()[0]?.id}.json`));
  t.match(shelf.list(), [{ samples: 0, cut_short: /facts are lost/ }]);
});
