import { CommandDesk, type TargetOutcome } from '@outrider/edge-agent/commands/command-desk';
import { CommandLog } from '@outrider/edge-agent/commands/command-log';
import { TrustedKeys } from '@outrider/edge-agent/commands/trusted-keys';
import { LANE_NUMBERS } from '@outrider/edge-agent/outbox/records';
import { outrider } from '@outrider/shared/messages';
import { type Campaign, must, runTrials } from './campaign.ts';
import { Load } from './load.ts';
import { noFirmware } from './mcu-rig.ts';
import { Random } from './random.ts';
import { RigPool } from './rig-pool.ts';
import { SimCloud } from './sim-cloud.ts';
import { newFolder, noiseLayout, noiseSample, removeFolder, SimEdge, silent } from './sim-edge.ts';
import { SimNetwork } from './sim-network.ts';
import type { TripTimes } from './trip.ts';
import { countsOf, tripFigures } from './trips.ts';
import { settle, VirtualClock } from './virtual-clock.ts';

const DEVICE = { tenantId: 'default', robotId: 'SIM-1' };
const SIZE_MAX_BYTES = 16 * 1024 * 1024;
const STEP_MS = 250;
const STEPS = 600;
const HOUR_MS = 3_600_000;
const TEN_YEARS_MS = 10 * 365.25 * 24 * HOUR_MS;
const SUSPEND_MS = 30_000;
const TTL_MS = 5000;
/** What the robot may be wrong about the cloud's time, so that no command is refused for the network's delay alone. */
const TOLERANCE_MS = 2000;
const KINDS = ['hour', 'years', 'creep', 'suspend', 'all'] as const;

interface Tally {
  samples: number;
  executed: number;
  refused: number;
  steps: number;
}

/** Believes any signature: here it is time that is tried. */
class Trusting extends TrustedKeys {
  constructor() {
    super({ loadInstructionKeys: () => undefined, saveInstructionKeys: () => undefined }, () => undefined);
  }
  override check(): undefined {
    return undefined;
  }
}

/** A robot whose wall clock does not do what a clock should, and a cloud whose clock is right. */
class WrongClock {
  readonly #random: Random;
  readonly #tally: Tally;
  readonly #kind: (typeof KINDS)[number];
  readonly #robot = new VirtualClock();
  readonly #cloud = new VirtualClock();
  readonly #late: string[] = [];
  /** When the command that is being judged was issued, by the cloud's clock. */
  #issuedAtMs = 0;
  #counter = 0;

  constructor(seed: number, tally: Tally) {
    this.#random = new Random(seed);
    this.#tally = tally;
    this.#kind = KINDS[seed % KINDS.length] as (typeof KINDS)[number];
  }

  async run(): Promise<void> {
    const random = this.#random;
    const network = new SimNetwork(random, () => this.#robot.monotonicMs());
    const cloud = new SimCloud(this.#cloud, silent, (topic, payload) => network.send(false, topic, payload));
    const edge = new SimEdge(this.#robot, network, SIZE_MAX_BYTES);
    const folder = newFolder('clock');
    const commands = CommandLog.open(folder, silent);
    const desk = this.#openDesk(commands);
    const layout = noiseLayout('clock/joint_state', 3);
    // Some robots have never had the time.
    if (random.chance(0.3)) this.#robot.stepWall(random.pick([-TEN_YEARS_MS, TEN_YEARS_MS, -HOUR_MS]));
    let next = 0;
    try {
      for (let step = 0; step < STEPS || !edge.outbox.isDrained(); step += 1) {
        must(step < 3 * STEPS, 'not drained');
        this.#robot.advance(STEP_MS);
        this.#cloud.advance(STEP_MS);
        const isStorm = step < STEPS;
        if (isStorm && random.chance(0.05)) this.#upset();
        for (let n = isStorm ? random.int(0, 4) : 0; n > 0; n -= 1) {
          edge.outbox.appendSample(noiseSample(layout, next, random));
          next += 1;
        }
        edge.outbox.flush();
        edge.step(random);
        await settle();
        for (const { isUp, topic, payload } of network.arrived()) {
          if (isUp) await cloud.receive(topic, payload, false);
          else edge.receive(topic, payload);
        }
        await settle();
        edge.session?.pump();
        if (isStorm && random.chance(0.05)) await this.#command(desk);
      }
      must(this.#late.length === 0, this.#late.join('; '));
      this.#judge(cloud, next);
    } finally {
      commands.close();
      removeFolder(folder);
      edge.close();
      await settle();
    }
  }

  #openDesk(commands: CommandLog): CommandDesk {
    const done: TargetOutcome = { done: true, detail: 'ok', latchId: 1, unmet: [] };
    return new CommandDesk({
      device: DEVICE,
      keys: new Trusting(),
      commands,
      target: {
        trigger: () => Promise.resolve(done),
        recover: () => {
          const ageMs = this.#cloud.epochMs() - this.#issuedAtMs;
          if (ageMs > TTL_MS + TOLERANCE_MS)
            this.#late.push(`${this.#kind}: a command of ${TTL_MS} ms was carried out ${ageMs} ms after it was issued`);
          this.#tally.executed += 1;
          return Promise.resolve(done);
        },
        status: () => ({ motionEpoch: 1, recoverNonce: 'n' }),
      },
      record: () => Promise.resolve(),
      clock: this.#robot,
      log: silent,
    });
  }

  /** Hello, then the clock may jump, then a command comes that was under way for a while. */
  async #command(desk: CommandDesk): Promise<void> {
    const random = this.#random;
    desk.noteClockSkew(this.#cloud.epochMs() - this.#robot.epochMs());
    const delayMs = random.pick([0, 50, 3000, 10_000, 600_000]);
    this.#issuedAtMs = this.#cloud.epochMs();
    this.#counter += 1;
    const order = {
      ...DEVICE,
      commandId: `rec-${this.#counter}`,
      verb: 'recover',
      counter: this.#counter,
      issuedAtMs: this.#issuedAtMs,
      ttlMs: TTL_MS,
      motionEpoch: 1,
      recover: { latchId: 1, nonce: 'n' },
    };
    const payload = outrider.v1.Instruction.encode(order).finish();
    if (random.chance(0.5)) this.#upset();
    this.#robot.advance(delayMs);
    this.#cloud.advance(delayMs);
    if (random.chance(0.5)) this.#upset();
    const signed = { payload, keyId: 'k', signature: Uint8Array.of(1) };
    const reply = await desk.take(outrider.v1.SignedInstruction.encode(signed).finish(), false);
    if (reply?.outcome !== 'done') this.#tally.refused += 1;
  }

  #upset(): void {
    const random = this.#random;
    const kind = this.#kind === 'all' ? random.pick(KINDS.slice(0, -1)) : this.#kind;
    this.#tally.steps += 1;
    const sign = random.pick([-1, 1]);
    if (kind === 'hour') this.#robot.stepWall(sign * HOUR_MS);
    else if (kind === 'years') this.#robot.stepWall(sign * TEN_YEARS_MS);
    else if (kind === 'creep') this.#robot.stepWall(-1);
    else {
      this.#robot.sleep(SUSPEND_MS);
      this.#cloud.advance(SUSPEND_MS);
    }
  }

  /** The cloud has every sample once, in the order in which they were taken. */
  #judge(cloud: SimCloud, count: number): void {
    let expected = 0;
    for (const [key, { records }] of cloud.store.lanes) {
      if (!key.endsWith(`/${LANE_NUMBERS.telemetry}`)) continue;
      for (const record of [...records.values()].sort((a, b) => a.seq - b.seq)) {
        must(record.kind === 'telemetry', `position ${record.seq} is a ${record.kind}`);
        for (const at of record.block.receivedMonoNs) {
          const n = Number(at / 20_000_000n);
          must(n === expected, `sample ${n} where ${expected} belongs`);
          expected += 1;
        }
      }
    }
    must(expected === count, `${count} samples, ${expected} in the cloud`);
    this.#tally.samples += count;
  }
}

export const wrongClocks: Campaign = {
  id: 'C9a',
  title:
    "a robot's clock jumps by an hour or ten years, creeps back by 1 ms, or slept 30 s: order of samples, late commands",
  counts: { full: 1000, short: 20 },
  skip: false,
  async run(plan) {
    const tally: Tally = { samples: 0, executed: 0, refused: 0, steps: 0 };
    const done = await runTrials(plan, (seed) => new WrongClock(seed, tally).run());
    const { samples, executed, refused, steps } = tally;
    const figures = `${steps} jumps; ${samples} samples in order; ${executed} commands carried out in time, ${refused} refused`;
    return { ...done, figures };
  },
};

const RIGS = 3;

export const clockTrips: Campaign = {
  id: 'C9b',
  title: 'trips as in C2 while the wall clocks of guard and agent jump ten times a second',
  counts: { full: 500, short: 8 },
  skip: noFirmware,
  async run(plan) {
    const load = Load.start();
    const times: TripTimes[] = [];
    try {
      const done = await new RigPool<TripTimes>('clock-trip', 'auto', plan).run(RIGS, (data) => times.push(data));
      const nuisances = times.flatMap(({ nuisance }) => nuisance ?? []);
      return {
        ...done,
        figures: `${tripFigures(times)}; stopped for the load instead: ${countsOf(nuisances)}`,
        detail: Load.words,
      };
    } finally {
      await load.stop();
    }
  },
};
