import { type EpochMs, type MonotonicMs, systemClock } from '@outrider/shared/time';
import t from 'tap';
import { jointLayout, openOutbox, sampleOf, seeded } from '../../test/outbox-rig.ts';
import { Budget } from './budget.ts';
import { LaneSender } from './lane-sender.ts';

function fakeClock() {
  let nowMs = 0;
  const clock = { epochMs: () => 0 as EpochMs, monotonicMs: () => nowMs as MonotonicMs };
  return { clock, pass: (ms: number) => (nowMs += ms) };
}

t.test('a lane goes out at the rate of its budget, in batches that leave room for events', async (t) => {
  const { clock, pass } = fakeClock();
  const outbox = openOutbox(t.testdir());
  t.teardown(() => outbox.close());
  const random = seeded(1);
  for (let i = 0; i < 5000; i += 1) outbox.appendSample(sampleOf(jointLayout('arm', 20), i, random));
  outbox.flush();
  const budget = new Budget({ bytesPerSMax: 20_000, isMetered: false, meteredBytesPerSMax: 0 }, clock);
  let [bytes, largest, upto] = [0, 0, 0];
  const sender = new LaneSender('telemetry', outbox, systemClock, {
    window: 4,
    watermark: 0,
    budget,
    send: (_lane, payload, range) => {
      bytes += payload.length;
      largest = Math.max(largest, payload.length);
      upto = range.upto;
    },
  });
  for (let ms = 0; ms < 10_000; ms += 50) {
    sender.fill();
    if (upto > 0) sender.acknowledge({ epoch: outbox.epoch, upto, batchIds: [] });
    pass(50);
  }
  t.ok(bytes > 150_000 && bytes < 250_000, `${bytes} bytes in 10 s of 20,000 each`);
  t.ok(largest < 50_000, `${largest} bytes in the largest batch`);
  t.match(budget.view(), { telemetry: 'limited', bytes_per_s_max: 20_000, sent_bytes: bytes });
});

t.test('on a metered link telemetry waits, or goes at its own rate; without limits nothing waits', async (t) => {
  const { clock, pass } = fakeClock();
  const paused = new Budget({ bytesPerSMax: 0, isMetered: true, meteredBytesPerSMax: 0 }, clock);
  pass(1e9);
  t.notOk(paused.hasRoom());
  t.match(paused.view(), { telemetry: 'paused', metered: true });
  const slow = new Budget({ bytesPerSMax: 500, isMetered: true, meteredBytesPerSMax: 1000 }, clock);
  t.equal(slow.view().bytes_per_s_max, 500, 'the lower one counts');
  t.ok(slow.hasRoom());
  slow.spend(1000);
  pass(1999);
  t.notOk(slow.hasRoom());
  pass(1);
  t.ok(slow.hasRoom());
  const free = new Budget({ bytesPerSMax: 0, isMetered: false, meteredBytesPerSMax: 0 }, clock);
  free.spend(1e12);
  t.ok(free.hasRoom() && !free.isLimited);
});
