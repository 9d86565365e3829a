import { LANE_NUMBERS } from '@outrider/edge-agent/outbox/records';
import { type Campaign, must, runTrials } from './campaign.ts';
import { Random } from './random.ts';
import { SimCloud } from './sim-cloud.ts';
import { noiseLayout, noiseSample, SimEdge, silent } from './sim-edge.ts';
import { SimNetwork } from './sim-network.ts';
import { settle, VirtualClock } from './virtual-clock.ts';

const SIZE_MAX_BYTES = 16 * 1024 * 1024;
const STEP_MS = 250;
const KINDS = ['restored', 'copied', 'emptied', 'drained'] as const;

interface Tally {
  readonly kinds: Record<(typeof KINDS)[number], number>;
  recognized: number;
  epochs: number;
}

/** A robot whose database is not the one that the cloud knows: every sample on its disk must reach the cloud. */
async function identityTrial(seed: number, tally: Tally): Promise<void> {
  const random = new Random(seed);
  const kind = KINDS[seed % KINDS.length] as (typeof KINDS)[number];
  const clock = new VirtualClock();
  const network = new SimNetwork(random, () => clock.monotonicMs());
  const cloud = new SimCloud(clock, silent, (topic, payload) => network.send(false, topic, payload));
  const edge = new SimEdge(clock, network, SIZE_MAX_BYTES);
  const layout = noiseLayout('identity', 6);
  const onDisk = new Set<number>();
  let next = 0;
  const produce = (count: number): void => {
    for (let i = 0; i < count; i += 1) {
      edge.outbox.appendSample(noiseSample(layout, next, random));
      onDisk.add(next);
      next += 1;
      if (random.chance(0.1)) edge.outbox.flush();
    }
    edge.outbox.flush();
  };
  const turn = async (steps: number, isDone: () => boolean = () => false): Promise<void> => {
    for (let step = 0; step < steps && !isDone(); step += 1) {
      clock.advance(STEP_MS);
      edge.step(random);
      await settle();
      for (const { isUp, topic, payload } of network.arrived()) {
        if (isUp) await cloud.receive(topic, payload, false);
        else edge.receive(topic, payload);
      }
      await settle();
      edge.outbox.flush();
      edge.session?.pump();
    }
  };
  try {
    produce(random.int(50, 400));
    await turn(random.int(0, 30));
    const image = edge.snapshot();
    const atImage = next;
    produce(random.int(1, 300));
    await turn(random.int(0, 30));
    const before = edge.outbox.epoch;
    if (kind === 'restored' || kind === 'copied') {
      // What was written after the copy was made is not on this disk any more.
      for (let n = atImage; n < next; n += 1) onDisk.delete(n);
      edge.replaceBy(image);
      // A copy that has run elsewhere, as far as the cloud can tell: it gave out positions of its own meanwhile.
      if (kind === 'copied') produce(random.int(100, 400));
    } else if (kind === 'emptied') {
      edge.replaceBy(undefined);
      onDisk.clear();
    } else {
      await turn(400, () => edge.outbox.isDrained());
      edge.crash(random);
    }
    produce(random.int(20, 300));
    await turn(1200, () => edge.outbox.isDrained());
    must(edge.outbox.isDrained(), `${kind}: not drained: ${JSON.stringify(edge.outbox.stats().lanes)}`);
    const seen = samplesOf(cloud);
    for (const n of onDisk) must(seen.has(n), `${kind}: sample ${n} was on disk and is not in the cloud`);
    must(cloud.store.storedTwice === 0, `${kind}: a position was stored twice`);
    if (kind === 'emptied') must(edge.outbox.epoch !== before, 'a new database has an old epoch');
    if (kind === 'drained') must(edge.outbox.epoch === before, 'draining changed the epoch');
    for (const [n, times] of seen) must(times === 1, `${kind}: sample ${n} is in the cloud ${times} times`);
    tally.recognized += cloud.store.recognized;
    if (edge.outbox.epoch !== before) tally.epochs += 1;
    tally.kinds[kind] += 1;
  } finally {
    edge.close();
    await settle();
  }
}

/** How often each sample is in the cloud. */
export function samplesOf(cloud: SimCloud): Map<number, number> {
  const seen = new Map<number, number>();
  for (const [key, { records }] of cloud.store.lanes) {
    if (!key.endsWith(`/${LANE_NUMBERS.telemetry}`)) continue;
    for (const record of records.values()) {
      if (record.kind !== 'telemetry') continue;
      for (const at of record.block.receivedMonoNs) {
        const n = Number(at / 20_000_000n);
        seen.set(n, (seen.get(n) ?? 0) + 1);
      }
    }
  }
  return seen;
}

export const identities: Campaign = {
  id: 'C7a',
  title:
    'database restored from an old copy, copied, emptied, drained: collisions are noticed, nothing on disk is dropped or doubled',
  counts: { full: 200, short: 20 },
  skip: false,
  async run(plan) {
    const tally: Tally = { kinds: { restored: 0, copied: 0, emptied: 0, drained: 0 }, recognized: 0, epochs: 0 };
    const done = await runTrials(plan, (seed) => identityTrial(seed, tally));
    const kinds = Object.entries(tally.kinds).map(([kind, count]) => `${kind} ${count}`);
    const figures = `${kinds.join(', ')}; ${tally.epochs} new epochs; ${tally.recognized} records sent again under a new epoch were known`;
    return { ...done, figures };
  },
};
