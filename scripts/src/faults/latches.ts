import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { EMPTY_RECORD, type LatchRecord, LatchStore } from '@outrider/edge-agent/guard/latch-store';
import { describe, evaluate } from '@outrider/shared/failsafe/evaluate';
import { CAUSE_IDS, DEFAULT_POLICY } from '@outrider/shared/failsafe/rules';
import { bootState, recoverNonce } from '@outrider/shared/failsafe/state';
import { type Campaign, must, runTrials } from './campaign.ts';
import { Random } from './random.ts';
import { newFolder, removeFolder } from './sim-edge.ts';

const SLOTS = ['latch-a', 'latch-b'] as const;

/** Damages one or both slots of a guard's memory: it must say so or be right, and open nothing. */
async function latchTrial(seed: number, tally: { noticed: number; harmless: number }): Promise<void> {
  const random = new Random(seed);
  const root = newFolder('latch');
  const dir = join(root, 'latches');
  mkdirSync(dir);
  try {
    const { store } = await LatchStore.open(dir);
    let record: LatchRecord = EMPTY_RECORD;
    for (let write = random.int(2, 6); write > 0; write -= 1) {
      record = drawRecord(record, random);
      await store.write(record);
    }
    for (const slot of random.chance(0.5) ? [random.pick(SLOTS)] : SLOTS) damageSlot(join(dir, slot), random);
    const { content } = await LatchStore.open(dir);
    if (content.damage === undefined) {
      must(sameLatch(content.record, record), 'the memory was changed and nobody noticed');
      tally.harmless += 1;
    } else tally.noticed += 1;
    const state = bootState(DEFAULT_POLICY, content.record, content.damage, 1000, 'seed');
    const view = describe(state, DEFAULT_POLICY);
    must(!view.gateOpen, 'the gate is open after a start');
    if (content.damage === undefined) return;
    must(view.causes.length > 0, 'an unknown memory latches nothing');
    must(content.record.motionEpoch >= 0 && Number.isSafeInteger(content.record.motionEpoch), 'motion epoch');
    // Nobody local asks: the robot must stay where it is.
    const { latchId } = state;
    const request = { kind: 'recover', atMs: 1020, latchId, nonce: recoverNonce(state), local: false } as const;
    must(!evaluate(state, request, DEFAULT_POLICY).output.gateOpen, 'a recovery from afar opened the gate');
  } finally {
    removeFolder(root);
  }
}

function drawRecord(before: LatchRecord, random: Random): LatchRecord {
  const causes = CAUSE_IDS.filter(() => random.chance(0.15));
  return {
    ...before,
    phase: random.pick(['BOOT', 'LATCHED', 'ARMED']),
    latchId: before.latchId + causes.length,
    motionEpoch: before.motionEpoch + random.int(0, 1),
    transitionIdMax: before.transitionIdMax + 1,
    latched: causes.map((cause) => ({ cause, detail: `seen ${random.int(0, 999)}` })),
    transitions: [{ id: before.transitionIdMax + 1, bytes: random.bytes(random.int(0, 200)) }],
  };
}

function damageSlot(path: string, random: Random): void {
  const bytes = readFileSync(path);
  const how = random.pick(['flip', 'flip', 'flip', 'cut', 'missing', 'empty', 'noise', 'zeros'] as const);
  if (how === 'missing') {
    rmSync(path);
    return;
  }
  if (how === 'flip') {
    for (let flips = random.pick([1, 1, 2, 8]); flips > 0; flips -= 1) {
      const at = random.int(0, bytes.length - 1);
      bytes[at] = (bytes[at] as number) ^ (1 << random.int(0, 7));
    }
  }
  const damaged = {
    flip: bytes,
    cut: bytes.subarray(0, random.int(0, bytes.length - 1)),
    empty: Buffer.alloc(0),
    noise: random.bytes(bytes.length),
    zeros: Buffer.alloc(bytes.length),
  }[how];
  writeFileSync(path, damaged);
}

const sameLatch = (a: LatchRecord, b: LatchRecord): boolean => {
  const text = (record: LatchRecord): string =>
    JSON.stringify({ ...record, transitions: record.transitions.map(({ id, bytes }) => [id, [...bytes]]) });
  return text(normal(a)) === text(normal(b));
};

const normal = ({ latchId, motionEpoch, latched, phase, transitionIdMax, transitions }: LatchRecord): LatchRecord => ({
  latchId,
  motionEpoch,
  latched: latched.map(({ cause, detail }) => ({ cause, detail })),
  phase,
  transitionIdMax,
  transitions,
});

export const latchSlots: Campaign = {
  id: 'C5c',
  title: "the guard's latch slots flipped, cut, emptied, missing",
  counts: { full: 500, short: 60 },
  skip: false,
  async run(plan) {
    const tally = { noticed: 0, harmless: 0 };
    const done = await runTrials(plan, (seed) => latchTrial(seed, tally));
    return { ...done, figures: `${tally.noticed} noticed and latched, ${tally.harmless} unchanged in meaning` };
  },
};
