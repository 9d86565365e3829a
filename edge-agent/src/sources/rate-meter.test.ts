import t from 'tap';
import { RateMeter } from './rate-meter.ts';

const ms = (value: number): bigint => BigInt(value) * 1_000_000n;

t.test('the measured rate follows arrivals and forgets old ones', async (t) => {
  const meter = new RateMeter(50, 5, 0n);
  t.equal(meter.rateHz(ms(10)), 0, 'nothing came yet');
  for (let at = 0; at <= 1000; at += 20) meter.observe(ms(at));
  t.equal(Math.round(meter.rateHz(ms(1000))), 50);
  for (let at = 1100; at <= 30_000; at += 100) meter.observe(ms(at));
  t.equal(Math.round(meter.rateHz(ms(30_000))), 10);
  t.equal(meter.rateHz(ms(60_000)), 0, 'all is older than the window');
});

t.test('a stream is stale by its declared rate, an undeclared one by a default', async (t) => {
  const meter = new RateMeter(10, 5, 0n);
  t.equal(meter.isStale(ms(500)), false);
  t.equal(meter.isStale(ms(501)), true, 'the wait for the first sample counts too');
  meter.observe(ms(600));
  t.equal(meter.isStale(ms(1100)), false);
  t.equal(meter.ageMs(ms(700)), 100);
  t.equal(meter.isStale(ms(1101)), true);
  const fast = new RateMeter(1000, 5, 0n);
  t.equal(fast.isStale(ms(100)), false, 'a late tick of the scheduler is no outage');
  t.equal(fast.isStale(ms(101)), true);
  const silent = new RateMeter(0, 5, 0n);
  t.equal(silent.isStale(ms(5000)), false);
  t.equal(silent.isStale(ms(5001)), true);
});

t.test('a receive time that goes backwards does not make a rate', async (t) => {
  const meter = new RateMeter(10, 5, ms(1000));
  for (const at of [2000, 1500, 1400]) meter.observe(ms(at));
  t.equal(meter.rateHz(ms(2000)), 0);
  t.equal(meter.ageMs(ms(2000)), 0);
});
