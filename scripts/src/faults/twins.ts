import { type Campaign, must, runTrials } from './campaign.ts';
import { samplesOf } from './identities.ts';
import { Random } from './random.ts';
import { SimCloud } from './sim-cloud.ts';
import { noiseLayout, noiseSample, SimEdge, silent } from './sim-edge.ts';
import { CALM, SimNetwork, type Weather } from './sim-network.ts';
import { settle, VirtualClock } from './virtual-clock.ts';

const SIZE_MAX_BYTES = 16 * 1024 * 1024;
const STEP_MS = 250;
const STORM_STEPS = 400;
const CALM_STEPS = 1200;
/** What the second robot writes is numbered from here. */
const SECOND_FROM = 1_000_000;
const ROUGH: Weather = { drop: 0.1, duplicate: 0.1, delayMaxMs: 1500, isPartitioned: false };

interface Tally {
  takeovers: number;
  collisions: number;
  samples: number;
}

interface Twin {
  readonly edge: SimEdge;
  readonly onDisk: Set<number>;
  next: number;
}

/**
 * A disk image on two computers: two live agents with one identity, one epoch and one certificate, each of which the
 * broker puts out when the other one connects. Nothing may be lost.
 */
async function twinsTrial(seed: number, tally: Tally): Promise<void> {
  const random = new Random(seed);
  const clock = new VirtualClock();
  const network = new SimNetwork(random, () => clock.monotonicMs());
  const cloud = new SimCloud(clock, silent, (topic, payload) => network.send(false, topic, payload));
  const layout = noiseLayout('identity', 6);
  const first: Twin = { edge: new SimEdge(clock, network, SIZE_MAX_BYTES), onDisk: new Set(), next: 0 };
  const second: Twin = { edge: new SimEdge(clock, network, SIZE_MAX_BYTES), onDisk: new Set(), next: SECOND_FROM };
  const twins = [first, second];
  let online = first;
  const produce = (twin: Twin, count: number): void => {
    for (let n = 0; n < count; n += 1) {
      twin.edge.outbox.appendSample(noiseSample(layout, twin.next, random));
      twin.onDisk.add(twin.next);
      twin.next += 1;
    }
    twin.edge.outbox.flush();
  };
  const turn = async (): Promise<void> => {
    clock.advance(STEP_MS);
    online.edge.step(random);
    await settle();
    for (const { isUp, topic, payload } of network.arrived()) {
      if (isUp) await cloud.receive(topic, payload, false);
      // The broker knows one session of that name, whoever it is.
      else online.edge.receive(topic, payload);
    }
    await settle();
    for (const { edge } of twins) edge.outbox.flush();
    online.edge.session?.pump();
  };
  const takeOver = (): void => {
    online.edge.disconnect(random);
    online = online === first ? second : first;
    tally.takeovers += 1;
  };
  try {
    produce(first, random.int(20, 300));
    for (let step = random.int(0, 30); step > 0; step -= 1) await turn();
    second.edge.replaceBy(first.edge.snapshot());
    for (const n of first.onDisk) second.onDisk.add(n);
    if (random.chance(0.5)) network.weather = ROUGH;
    for (let step = 0; step < STORM_STEPS; step += 1) {
      for (const twin of twins) if (random.chance(0.5)) produce(twin, random.int(1, 8));
      if (random.chance(0.08)) takeOver();
      await turn();
    }
    network.weather = CALM;
    // Its hello may be lost, and nobody waits here until it is given up.
    online.edge.disconnect(random);
    for (const twin of twins) {
      if (online !== twin) takeOver();
      for (let step = 0; step < CALM_STEPS && !twin.edge.outbox.isDrained(); step += 1) await turn();
      must(twin.edge.outbox.isDrained(), `not drained: ${JSON.stringify(twin.edge.outbox.stats().lanes)}`);
    }
    const seen = samplesOf(cloud);
    const lost = twins.flatMap(({ onDisk }) => [...onDisk]).filter((n) => !seen.has(n));
    must(cloud.store.storedTwice === 0, 'a position was stored twice');
    must(lost.length === 0, `${lost.length} samples are lost, with ${cloud.store.collisions} collisions reported`);
    must(
      first.edge.outbox.epoch !== second.edge.outbox.epoch || cloud.store.collisions > 0,
      'both still have one epoch, and no collision was reported',
    );
    tally.collisions += cloud.store.collisions;
    tally.samples += seen.size;
  } finally {
    for (const { edge } of twins) edge.close();
    await settle();
  }
}

export const twins: Campaign = {
  id: 'C7b',
  title: 'two live agents with one identity, one certificate and one database copied onto both',
  counts: { full: 100, short: 6 },
  skip: false,
  async run(plan) {
    const tally: Tally = { takeovers: 0, collisions: 0, samples: 0 };
    const done = await runTrials(plan, (seed) => twinsTrial(seed, tally));
    const figures = `${tally.samples} samples reached the cloud; ${tally.takeovers} takeovers; ${tally.collisions} collisions reported`;
    return { ...done, figures };
  },
};
