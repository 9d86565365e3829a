import { randomInt } from 'node:crypto';
import { type FileHandle, mkdir, open, readFile, rename } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { crc32 } from 'node:zlib';
import { errorMessage } from '@outrider/shared/errors';
import { FAILSAFE_PHASES, type FailsafePhase } from '@outrider/shared/failsafe/modes';
import { CAUSE_IDS, type CauseId } from '@outrider/shared/failsafe/rules';
import type { DurableState } from '@outrider/shared/failsafe/state';

/** What the guard must find again after a power loss. */
export interface LatchRecord extends DurableState {
  /** The phase it was written in; only for the report of a restart. */
  readonly phase: FailsafePhase;
  /** Highest transition id ever given out. */
  readonly transitionIdMax: number;
  /** Encoded transitions that the agent has not acknowledged, oldest first. */
  readonly transitions: readonly { readonly id: number; readonly bytes: Uint8Array }[];
}

/** What was found at start. */
export interface LatchContent {
  readonly record: LatchRecord;
  /** Why the record cannot be trusted whole; `undefined` when both slots are good. */
  readonly damage: string | undefined;
}

const SLOTS = ['latch-a', 'latch-b'] as const;
type Slot = (typeof SLOTS)[number];
const MAGIC = 'OUTRIDER-LATCH-1';
const FILE_BYTES_MAX = 4 * 1024 * 1024;
/** Where the motion epoch starts anew when the old one is lost: nothing sent before can carry one above it. */
const LOST_EPOCH_SPAN = 2 ** 40;

export const EMPTY_RECORD: LatchRecord = {
  latchId: 0,
  motionEpoch: 0,
  latched: [],
  phase: 'BOOT',
  transitionIdMax: 0,
  transitions: [],
};

interface SlotContent {
  readonly slot: Slot;
  readonly sequence: number;
  readonly record: LatchRecord;
}

/**
 * The latched state on disk, in two slots that are written in turn: a new file is written, fsynced, renamed over
 * the older slot, and the folder fsynced. So a power loss at any point leaves both slots whole, and a slot that
 * is not whole means damage of another kind: what it held is unknown, and the robot must not move on the word of
 * the other one alone.
 */
export class LatchStore {
  readonly #dir: string;
  #sequence: number;
  #next: Slot;

  private constructor(dir: string, sequence: number, next: Slot) {
    this.#dir = dir;
    this.#sequence = sequence;
    this.#next = next;
  }

  /** Reads both slots. Never fails for what it reads: what cannot be read is damage. */
  static async open(dir: string): Promise<{ readonly store: LatchStore; readonly content: LatchContent }> {
    const results = await Promise.all(SLOTS.map((slot) => readSlot(dir, slot)));
    const good = results.filter((result): result is SlotContent => typeof result !== 'string');
    const damage = results.filter((result) => typeof result === 'string').join('; ') || undefined;
    const newest = good.toSorted((a, b) => b.sequence - a.sequence)[0];
    const older = SLOTS.find((slot) => slot !== newest?.slot) ?? SLOTS[0];
    const record = newest?.record ?? EMPTY_RECORD;
    const motionEpoch = damage === undefined ? record.motionEpoch : record.motionEpoch + randomInt(1, LOST_EPOCH_SPAN);
    return {
      store: new LatchStore(dir, newest?.sequence ?? 0, older),
      content: { record: { ...record, motionEpoch }, damage },
    };
  }

  /** Writes over the older slot. Resolves when it is on disk. Calls must not overlap. */
  async write(record: LatchRecord): Promise<void> {
    const sequence = this.#sequence + 1;
    const slot = this.#next;
    await mkdir(this.#dir, { recursive: true, mode: 0o700 });
    const path = join(this.#dir, slot);
    await withFile(`${path}.new`, 'w', async (file) => {
      await file.writeFile(encodeSlot(sequence, record));
      await file.sync();
    });
    await rename(`${path}.new`, path);
    await withFile(this.#dir, 'r', (folder) => folder.sync());
    // Only now: after a failure the other slot must stay the newest whole one.
    this.#sequence = sequence;
    this.#next = slot === SLOTS[0] ? SLOTS[1] : SLOTS[0];
  }
}

/**
 * Makes the latch store of a robot that never had one. Only enrolment may call this: a guard that finds none has
 * lost its memory and latches `unknown_state`.
 *
 * @returns False when there is one already, which is left alone.
 */
export async function commissionLatchStore(dir: string): Promise<boolean> {
  const found = await Promise.all(SLOTS.map((slot) => readFile(join(dir, slot)).catch(() => undefined)));
  if (found.some((content) => content !== undefined)) return false;
  const { store } = await LatchStore.open(dir);
  for (const _ of SLOTS) await store.write(EMPTY_RECORD);
  await withFile(dirname(dir), 'r', (folder) => folder.sync());
  return true;
}

function encodeSlot(sequence: number, record: LatchRecord): Buffer {
  const transitions = record.transitions.map(({ id, bytes }) => ({ id, bytes: Buffer.from(bytes).toString('base64') }));
  const body = JSON.stringify({ ...record, sequence, transitions });
  return Buffer.from(`${MAGIC} ${crcText(body)}\n${body}`);
}

const crcText = (body: string): string => (crc32(body) >>> 0).toString(16).padStart(8, '0');

/** The slot's content, or a sentence that says what is wrong with it. */
async function readSlot(dir: string, slot: Slot): Promise<SlotContent | string> {
  let bytes: Buffer;
  try {
    bytes = await readFile(join(dir, slot));
  } catch (error) {
    const isMissing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    return isMissing ? `${slot} is missing` : `${slot} cannot be read: ${errorMessage(error)}`;
  }
  if (bytes.length > FILE_BYTES_MAX) return `${slot} is too large`;
  const text = bytes.toString('latin1');
  const end = text.indexOf('\n');
  // Bytes against bytes, so that no flipped bit hides behind an equal decoding of both.
  const body = bytes.subarray(end + 1);
  const header = `${MAGIC} ${(crc32(body) >>> 0).toString(16).padStart(8, '0')}`;
  if (end < 0 || text.slice(0, end) !== header) return `${slot} has a wrong checksum`;
  try {
    const parsed = parseSlot(JSON.parse(body.toString('utf8')));
    return parsed ? { slot, ...parsed } : `${slot} does not hold a latch record`;
  } catch (error) {
    return `${slot} does not hold a latch record: ${errorMessage(error)}`;
  }
}

function parseSlot(value: unknown): { readonly sequence: number; readonly record: LatchRecord } | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const { sequence, latchId, motionEpoch, transitionIdMax, phase, latched, transitions } = value as Record<
    string,
    unknown
  >;
  const isCount = (n: unknown): n is number => Number.isSafeInteger(n) && (n as number) >= 0;
  if (!isCount(sequence) || !isCount(latchId) || !isCount(motionEpoch) || !isCount(transitionIdMax)) return undefined;
  if (!Array.isArray(latched) || !Array.isArray(transitions)) return undefined;
  return {
    sequence,
    record: {
      latchId,
      motionEpoch,
      transitionIdMax,
      phase: FAILSAFE_PHASES.find((known) => known === phase) ?? 'BOOT',
      // A cause of another version is kept as it is: the reducer decides what an unknown one means.
      latched: latched.map((held: { cause?: unknown; detail?: unknown }) => ({
        cause: (CAUSE_IDS.find((known) => known === held.cause) ?? String(held.cause)) as CauseId,
        detail: String(held.detail ?? ''),
      })),
      transitions: transitions.map((entry: { id?: unknown; bytes?: unknown }) => ({
        id: Number(entry.id),
        bytes: Buffer.from(String(entry.bytes), 'base64'),
      })),
    },
  };
}

async function withFile(path: string, flags: string, use: (file: FileHandle) => Promise<unknown>): Promise<void> {
  const file = await open(path, flags, 0o600);
  try {
    await use(file);
  } finally {
    await file.close();
  }
}
