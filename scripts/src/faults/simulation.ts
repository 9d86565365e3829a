import { LANE_NUMBERS } from '@outrider/edge-agent/outbox/records';
import { outrider } from '@outrider/shared/messages';
import { decodeBlock, sampleAt } from '@outrider/shared/protocol/block';
import { type Campaign, must, runTrials } from './campaign.ts';
import { Random } from './random.ts';
import { SimCloud } from './sim-cloud.ts';
import { noiseLayout, noiseSample, readLane, SimEdge, silent } from './sim-edge.ts';
import { CALM, SimNetwork, type Weather } from './sim-network.ts';
import { settle, VirtualClock } from './virtual-clock.ts';

const STEP_MS = 250;
const STORM_STEPS = (10 * 60_000) / STEP_MS;
const CALM_STEPS_MAX = (20 * 60_000) / STEP_MS;
const { BODY_GAP } = outrider.v1.BodyKind;

/** What the edge has on disk, or has had: the oracle that the cloud is held against. */
interface Committed {
  readonly records: Map<number, Uint8Array>;
  readonly events: Set<string>;
}

interface Totals {
  steps: number;
  records: number;
  gaps: number;
  evicted: number;
  thinned: number;
  crashes: number;
  connections: number;
  letters: number;
  dropped: number;
  duplicated: number;
}

/** Whether a block holds samples of another, in their order, and says how many it held before. */
function isThinned(given: Uint8Array, whole: Uint8Array): boolean {
  const samplesOf = (body: Uint8Array): string[] => {
    const block = decodeBlock(body);
    return Array.from({ length: block.count }, (_, row) => {
      const { receivedNs, flags, values } = sampleAt(block, row);
      return `${receivedNs} ${flags} ${Buffer.from(values.buffer).toString('hex')}`;
    });
  };
  const all = samplesOf(whole);
  let from = 0;
  for (const sample of samplesOf(given)) {
    const at = all.indexOf(sample, from);
    if (at < 0) return false;
    from = at + 1;
  }
  return decodeBlock(given).thinnedFrom === all.length;
}

/** Ten virtual minutes of bad weather, then peace: nothing committed may be missing, doubled or changed. */
class Simulation {
  readonly #random: Random;
  readonly #clock = new VirtualClock();
  readonly #network: SimNetwork;
  readonly #edge: SimEdge;
  readonly #cloud: SimCloud;
  readonly #committed: Committed = { records: new Map(), events: new Set() };
  readonly #layout = noiseLayout('sim/joint_state', 6);
  readonly #epoch: string;
  readonly #totals: Totals;
  #sampleCount = 0;
  #eventCount = 0;
  #stateCount = 0;
  #readUpto = 0;
  #cloudAwayUntilMs = 0;

  constructor(seed: number, totals: Totals) {
    this.#random = new Random(seed);
    this.#totals = totals;
    this.#network = new SimNetwork(this.#random, () => this.#clock.monotonicMs());
    // Some robots have room for the whole storm, others for seconds of it.
    const sizeMaxBytes = this.#random.pick([64, 128, 512, 4096]) * 4096;
    this.#edge = new SimEdge(this.#clock, this.#network, sizeMaxBytes);
    this.#cloud = new SimCloud(this.#clock, silent, (topic, payload) => this.#network.send(false, topic, payload));
    this.#epoch = this.#edge.outbox.epoch;
  }

  async run(): Promise<void> {
    try {
      for (let step = 0; step < STORM_STEPS; step += 1) await this.#stormStep();
      this.#network.weather = CALM;
      this.#cloudAwayUntilMs = 0;
      this.#commit();
      let step = 0;
      for (; step < CALM_STEPS_MAX && !this.#edge.outbox.isDrained(); step += 1) await this.#peaceStep(step);
      must(this.#edge.outbox.isDrained(), `not drained after ${CALM_STEPS_MAX} calm steps: ${this.#stats()}`);
      this.#judge();
    } finally {
      this.#edge.close();
      await settle();
    }
  }

  async #stormStep(): Promise<void> {
    const random = this.#random;
    if (random.chance(0.02)) this.#network.weather = this.#drawWeather();
    if (random.chance(0.01)) this.#edge.disconnect(random);
    if (random.chance(0.002)) this.#network.lose(1);
    if (random.chance(0.01)) this.#cloudAwayUntilMs = this.#clock.monotonicMs() + random.int(100, 30_000);
    if (random.chance(0.004)) this.#clock.stepWall(random.pick([-3.6e6, 3.6e6, -3.15e11, 3.15e11, -1]));
    this.#produce();
    if (random.chance(0.8)) this.#commit();
    if (random.chance(0.006)) {
      this.#edge.crash(random);
      must(this.#edge.outbox.epoch === this.#epoch, 'a crash changed the epoch');
    }
    await this.#turn();
  }

  async #peaceStep(step: number): Promise<void> {
    // A lost hello hangs on a timeout of real time: here the connection is given up instead.
    if (step % 40 === 39 && this.#edge.session?.oldestInFlight === undefined) this.#edge.disconnect(this.#random);
    this.#commit();
    await this.#turn();
  }

  async #turn(): Promise<void> {
    this.#totals.steps += 1;
    this.#clock.advance(STEP_MS);
    this.#edge.step(this.#random);
    await settle();
    for (const { isUp, topic, payload } of this.#network.arrived()) {
      if (!isUp) this.#edge.receive(topic, payload);
      else if (this.#clock.monotonicMs() >= this.#cloudAwayUntilMs)
        await this.#cloud.receive(topic, payload, this.#network.weather !== CALM && this.#random.chance(0.02));
    }
    await settle();
    this.#edge.session?.pump();
  }

  #produce(): void {
    const { outbox } = this.#edge;
    for (let n = this.#random.int(0, 6); n > 0; n -= 1) {
      outbox.appendSample(noiseSample(this.#layout, this.#sampleCount, this.#random));
      this.#sampleCount += 1;
    }
    if (this.#random.chance(0.05)) {
      const eventId = `evt_${this.#eventCount}`;
      this.#eventCount += 1;
      const event = { eventId, type: 'edge.started.v1', occurredAtMs: this.#clock.epochMs(), traceId: 'sim' } as const;
      const { crashes } = this.#edge;
      outbox.appendEvent({ ...event, payload: {} }).then(
        // What a dead process would have written does not count.
        () => crashes === this.#edge.crashes && this.#committed.events.add(eventId),
        () => undefined,
      );
    }
    if (this.#random.chance(0.02)) {
      outbox.appendState('sim', { n: this.#stateCount });
      this.#stateCount += 1;
    }
  }

  /** Lets the outbox write, and notes what it has on disk now. */
  #commit(): void {
    const { outbox } = this.#edge;
    outbox.flush();
    for (const { seq, seqTo, kind, body } of readLane(outbox, 'telemetry', this.#readUpto)) {
      if (kind !== BODY_GAP) this.#committed.records.set(seq, body);
      this.#readUpto = Math.max(seq, seqTo);
    }
  }

  #judge(): void {
    const { store } = this.#cloud;
    const { telemetry, event } = LANE_NUMBERS;
    must(this.#edge.outbox.epoch === this.#epoch, 'the epoch changed');
    must(store.collisions === 0, `${store.collisions} collisions`);
    must(store.storedTwice === 0, `${store.storedTwice} positions were stored twice`);
    must(store.strays.length === 0, 'a batch went to quarantine');
    let gaps = 0;
    let thinned = 0;
    for (const [seq, body] of this.#committed.records) {
      const found = store.find(this.#epoch, telemetry, seq);
      must(found !== undefined, `position ${seq} was committed and is neither stored nor in a gap`);
      if (found.kind === 'gap') gaps += 1;
      else {
        must(found.kind === 'telemetry', `position ${seq} became ${found.kind}`);
        if (Buffer.from(body).equals(found.body)) continue;
        must(isThinned(found.body, body), `position ${seq} holds something else`);
        thinned += 1;
      }
    }
    const events = [...store.lane(this.#epoch, event).records.values()];
    const ids = events.map((record) => (record.kind === 'event' ? record.eventId : `${record.kind}@${record.seq}`));
    must(new Set(ids).size === ids.length, 'an event is there twice');
    for (const id of this.#committed.events) must(ids.includes(id), `${id} was committed and is lost`);
    for (const lane of Object.values(LANE_NUMBERS)) this.#mustBeContiguous(lane);
    const totals = this.#totals;
    totals.records += this.#committed.records.size + events.length;
    totals.evicted += gaps;
    totals.thinned += thinned;
    totals.gaps += [...store.lane(this.#epoch, telemetry).records.values()].filter((r) => r.kind === 'gap').length;
    totals.crashes += this.#edge.crashes;
    totals.connections += this.#edge.connections;
    totals.letters += this.#network.counts.sent;
    totals.dropped += this.#network.counts.dropped;
    totals.duplicated += this.#network.counts.duplicated;
  }

  #mustBeContiguous(lane: number): void {
    const { upto, records, ahead } = this.#cloud.store.lane(this.#epoch, lane);
    must(ahead.length === 0, `lane ${lane} still has ranges beyond its watermark`);
    let expected = 1;
    for (const record of [...records.values()].sort((a, b) => a.seq - b.seq)) {
      must(record.seq <= expected, `lane ${lane}: nothing stands for position ${expected}`);
      expected = Math.max(expected, record.seqTo + 1);
    }
    must(expected === upto + 1, `lane ${lane}: watermark ${upto}, records up to ${expected - 1}`);
  }

  #drawWeather(): Weather {
    const random = this.#random;
    return {
      drop: random.pick([0, 0, 0.05, 0.3]),
      duplicate: random.pick([0, 0.2, 0.5]),
      delayMaxMs: random.pick([20, 500, 4000, 15_000]),
      isPartitioned: random.chance(0.15),
    };
  }

  #stats(): string {
    const { fill, lanes, isFull } = this.#edge.outbox.stats();
    return JSON.stringify({ fill, lanes, isFull, inFlight: this.#edge.session?.oldestInFlight });
  }
}

export const simulation: Campaign = {
  id: 'C10',
  title: 'deterministic simulation of outbox, sender, hello and watermark: 10 virtual minutes of storm each',
  counts: { full: 1000, short: 12 },
  skip: false,
  async run(plan) {
    const totals: Totals = {
      steps: 0,
      records: 0,
      gaps: 0,
      evicted: 0,
      thinned: 0,
      crashes: 0,
      connections: 0,
      letters: 0,
      dropped: 0,
      duplicated: 0,
    };
    const done = await runTrials(plan, (seed) => new Simulation(seed, totals).run());
    const { records, evicted, thinned, gaps, crashes, connections, letters, dropped, duplicated } = totals;
    const figures =
      `${records} records committed, ${evicted} of them evicted and explained by ${gaps} gap records, ${thinned} thinned and saying so; ` +
      `${crashes} crashes, ${connections} connections, ${letters} messages, ${dropped} dropped, ${duplicated} doubled`;
    return { ...done, figures };
  },
};
