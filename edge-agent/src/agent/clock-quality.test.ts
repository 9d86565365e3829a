import { join } from 'node:path';
import { SAMPLE_FLAGS, type Sample } from '@outrider/shared/telemetry';
import type { EpochMs, MonotonicMs } from '@outrider/shared/time';
import t from 'tap';
import { ClockQuality } from './clock-quality.ts';

const sample: Sample = {
  layout: { stream: 's', kind: 'temperature', names: [], fields: [], tags: {}, declaredRateHz: 0 },
  stampNs: 0n,
  receivedNs: 0n,
  receivedMonoNs: 0n,
  flags: SAMPLE_FLAGS.noStamp,
  values: new Float64Array(0),
};

t.test('each sample says when its wall time is not known to be right', async (t) => {
  let [wallMs, monoMs] = [1_000_000, 0];
  const clock = { epochMs: () => wallMs as EpochMs, monotonicMs: () => monoMs as MonotonicMs };
  const quality = new ClockQuality(clock, join(t.testdir(), 'none'));
  const pass = (ms: number): void => {
    wallMs += ms;
    monoMs += ms;
  };
  const isUnsure = (flags = 0): boolean => (quality.mark({ ...sample, flags }).flags & SAMPLE_FLAGS.clockUnsure) !== 0;
  t.equal(quality.word(), 'bad', 'it was never set');
  wallMs = 1_790_000_000_000;
  pass(5000);
  t.equal(quality.word(), '', 'nobody says');
  t.equal(quality.mark(sample).flags, SAMPLE_FLAGS.noStamp | SAMPLE_FLAGS.clockUnsure);
  quality.noteSkew(-1500);
  t.equal(quality.word(), 'good', 'the cloud agrees');
  t.equal(quality.mark(sample), sample);
  pass(86_400_000);
  t.notOk(isUnsure(), 'still, a day later, offline');
  wallMs += 10_000;
  pass(5000);
  t.equal(quality.word(), 'unsure', 'somebody has set it since');
  t.ok(isUnsure());
  wallMs += 3_600_000;
  pass(5000);
  t.equal(quality.word(), 'bad');
  t.notOk(isUnsure(SAMPLE_FLAGS.replayed), 'a recording has its own times');
  const synchronized = new ClockQuality(clock, join(t.testdir({ mark: '' }), 'mark'));
  t.equal(synchronized.word(), 'good', 'the system says so');
});
