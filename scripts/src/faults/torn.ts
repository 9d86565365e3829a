import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Outbox } from '@outrider/edge-agent/outbox/outbox';
import type { LaneName } from '@outrider/edge-agent/outbox/records';
import { outrider } from '@outrider/shared/messages';
import { type Campaign, must, runTrials } from './campaign.ts';
import { Random } from './random.ts';
import { copyDatabase, newFolder, noiseLayout, noiseSample, openOutbox, readLane, removeFolder } from './sim-edge.ts';
import { VirtualClock } from './virtual-clock.ts';

const { BODY_GAP } = outrider.v1.BodyKind;
const LANES: readonly LaneName[] = ['event', 'state', 'telemetry'];
const SIZE_MAX_BYTES = 32 * 1024 * 1024;
const FRAME_HEADER_BYTES = 32;

const hashOf = (body: Uint8Array): string => createHash('sha256').update(body).digest('hex').slice(0, 32);

/** What an outbox holds: its records by lane and position. */
function contentOf(outbox: Outbox): Map<string, string> {
  const content = new Map<string, string>();
  for (const lane of LANES)
    for (const { seq, kind, body, bootId } of readLane(outbox, lane))
      if (kind !== BODY_GAP) content.set(`${lane} ${seq}`, `${hashOf(body)} ${bootId}`);
  return content;
}

/** Fills an outbox with commits of random size. */
async function fillOutbox(outbox: Outbox, random: Random, commits: number, from = 0): Promise<void> {
  const layouts = [noiseLayout('a', 3), noiseLayout('b', 12)];
  let n = from;
  for (let commit = 0; commit < commits; commit += 1) {
    for (let i = random.int(1, 60); i > 0; i -= 1) {
      outbox.appendSample(noiseSample(random.pick(layouts), n, random));
      n += 1;
    }
    if (random.chance(0.3)) {
      const event = {
        eventId: `evt_${n}`,
        type: 'edge.started.v1',
        occurredAtMs: n,
        traceId: '',
        payload: { n },
      } as const;
      await outbox.appendEvent(event);
    }
    outbox.appendState('n', n);
    outbox.flush();
  }
}

interface Tally {
  commits: number;
  whole: number;
}

/** Kills an outbox in the middle of a commit: what was fsynced before must be there, and nothing else but what was written. */
async function tornTrial(seed: number, tally: Tally): Promise<void> {
  const random = new Random(seed);
  const [live, image] = [newFolder('torn'), newFolder('torn')];
  const clock = new VirtualClock();
  const outbox = openOutbox(live, clock, SIZE_MAX_BYTES);
  try {
    const commits = random.int(1, 12);
    await fillOutbox(outbox, random, commits);
    tally.commits += commits;
    const fsynced = contentOf(outbox);
    const { epoch } = outbox;
    const journal = join(live, 'outbox.db-wal');
    const before = readFileSync(journal);
    const database = readFileSync(join(live, 'outbox.db'));
    await fillOutbox(outbox, random, random.int(1, 3), 100_000);
    const written = contentOf(outbox);
    const after = readFileSync(journal);
    copyDatabase(live, image);
    const isSameLog =
      after.length > before.length &&
      after.subarray(0, FRAME_HEADER_BYTES).equals(before.subarray(0, FRAME_HEADER_BYTES));
    const hasMoved = !database.equals(readFileSync(join(live, 'outbox.db')));
    // Only what comes after the last fsync may be torn. After a checkpoint nobody knows here where that was.
    const cut = isSameLog && !hasMoved ? random.int(before.length, after.length) : after.length;
    const tail = random.chance(0.6) ? damage(after.subarray(cut, cut + random.int(0, 9000)), random) : Buffer.alloc(0);
    writeFileSync(
      join(image, 'outbox.db-wal'),
      Buffer.concat([after.subarray(0, cut), tail, random.bytes(random.int(0, 500))]),
    );
    const again = openOutbox(image, clock, SIZE_MAX_BYTES);
    try {
      must(again.epoch === epoch, 'the epoch changed');
      const found = contentOf(again);
      for (const [position, hash] of fsynced)
        must(
          found.get(position) === hash,
          `${position} was fsynced and is ${found.has(position) ? 'changed' : 'lost'}`,
        );
      for (const [position, hash] of found)
        must(written.get(position) === hash, `${position} holds what was never written`);
      if (found.size === written.size) tally.whole += 1;
    } finally {
      again.close();
    }
  } finally {
    outbox.close();
    removeFolder(live);
    removeFolder(image);
  }
}

/** Bytes as a power cut leaves them: some right, some not written, some noise. */
function damage(bytes: Buffer, random: Random): Buffer {
  const copy = Buffer.from(bytes);
  for (let i = random.int(1, 4); i > 0 && copy.length > 0; i -= 1) {
    const at = random.int(0, copy.length - 1);
    const end = Math.min(copy.length, at + random.pick([1, 16, 512, 4096]));
    if (random.chance(0.5)) copy.fill(0, at, end);
    else random.bytes(end - at).copy(copy, at);
  }
  return copy;
}

export const tornJournals: Campaign = {
  id: 'C5a',
  title: 'write-ahead log torn in the middle of a commit, with garbage behind',
  counts: { full: 2000, short: 100 },
  skip: false,
  async run(plan) {
    const tally: Tally = { commits: 0, whole: 0 };
    const done = await runTrials(plan, (seed) => tornTrial(seed, tally));
    return { ...done, figures: `${tally.commits} fsynced commits; in ${tally.whole} trials the last commit was whole` };
  },
};

interface FlipTally {
  unnoticed: number;
  repaired: number;
  salvaged: number;
  lost: number;
}

/** Flips bits in the files of a robot that was killed: what comes out is what went in, or a gap. */
async function flipTrial(seed: number, tally: FlipTally): Promise<void> {
  const random = new Random(seed);
  const [live, image] = [newFolder('flip'), newFolder('flip')];
  const clock = new VirtualClock();
  const outbox = openOutbox(live, clock, SIZE_MAX_BYTES);
  try {
    await fillOutbox(outbox, random, random.int(2, 12));
    const written = contentOf(outbox);
    const bodies = new Map([...written].map(([position, hash]) => [`${position.split(' ')[0]} ${hash}`, position]));
    const { epoch } = outbox;
    copyDatabase(live, image);
    // A clean stop puts everything into one file, a kill leaves most of it in the journal.
    const isClean = random.chance(0.5);
    if (isClean) openOutbox(image, clock, SIZE_MAX_BYTES).close();
    const names = ['outbox.db', 'outbox.db-wal'].filter((name) => existsSync(join(image, name)));
    const path = join(image, random.pick(names));
    const bytes = readFileSync(path);
    for (let flips = random.pick([1, 1, 1, 2, 8]); flips > 0 && bytes.length > 0; flips -= 1) {
      const at = random.int(0, bytes.length - 1);
      bytes[at] = (bytes[at] as number) ^ (1 << random.int(0, 7));
    }
    writeFileSync(path, bytes);
    const again = openOutbox(image, clock, SIZE_MAX_BYTES);
    try {
      must(/^[0-9a-f]{16}$/.test(again.epoch), `the epoch is ${again.epoch}`);
      const found = contentOf(again);
      const seen = new Set<string>();
      for (const [position, hash] of found) {
        const key = `${position.split(' ')[0]} ${hash}`;
        must(bodies.has(key), `${position} holds what was never written`);
        must(!seen.has(key), `${position} is there twice`);
        if (again.epoch === epoch) must(written.get(position) === hash, `${position} holds what belongs elsewhere`);
        seen.add(key);
      }
      const lost = written.size - found.size;
      // A journal that is cut short at the damage looks like one that ended there: no gap can tell of that.
      const gaps = LANES.flatMap((lane) => readLane(again, lane).filter(({ kind }) => kind === BODY_GAP));
      if (lost > 0 && path.endsWith('.db'))
        must(gaps.length > 0, `${lost} records are lost without a gap: ${whatIsLeft(again)}`);
      tally.lost += lost;
      if (again.epoch !== epoch) tally.salvaged += 1;
      else if (lost > 0) tally.repaired += 1;
      else tally.unnoticed += 1;
      await fillOutbox(again, random, 2, 200_000);
      must(contentOf(again).size >= found.size + 2, 'nothing can be written afterwards');
    } finally {
      again.close();
    }
  } finally {
    outbox.close();
    removeFolder(live);
    removeFolder(image);
  }
}

const whatIsLeft = (outbox: Outbox): string =>
  LANES.map((lane) => `${lane} up to ${readLane(outbox, lane).at(-1)?.seq ?? 0} of ${outbox.maxSeq(lane)}`).join(', ');

export const flippedBits: Campaign = {
  id: 'C5b',
  title: 'bits flipped in the outbox and its journal',
  counts: { full: 500, short: 60 },
  skip: false,
  async run(plan) {
    const tally: FlipTally = { unnoticed: 0, repaired: 0, salvaged: 0, lost: 0 };
    const done = await runTrials(plan, (seed) => flipTrial(seed, tally));
    const { unnoticed, repaired, salvaged, lost } = tally;
    const figures = `${lost} records lost to damage; ${salvaged} files set aside and salvaged, ${repaired} repaired in place, ${unnoticed} not touched by the flip`;
    return { ...done, figures };
  },
};
