import { existsSync } from 'node:fs';
import { DomainError } from '@outrider/shared/errors';
import { outrider } from '@outrider/shared/messages';
import { decodeBlock, sampleAt } from '@outrider/shared/protocol/block';
import type { Sample } from '@outrider/shared/telemetry';
import Database from 'better-sqlite3';
import { unpackRecords } from '../local-api/record-page.ts';
import { databasePath, StateLock } from '../outbox/database.ts';
import { isSoundRow, type StoredRow } from '../outbox/records.ts';

/** One page of a running agent's outbox. */
export interface OutboxPage {
  readonly epoch: string;
  readonly bytes: Uint8Array;
}

/** What an export met beside samples. */
export interface ExportNotes {
  /** Records that stand for samples which are gone. */
  gaps: number;
  /** Rows whose checksum is wrong; left out. */
  damaged: number;
}

/** The samples that a running agent still has on disk, oldest record first. */
export async function* samplesOfAgent(
  page: (after: number) => Promise<OutboxPage>,
  notes: ExportNotes,
): AsyncGenerator<Sample, void, void> {
  let epoch: string | undefined;
  for (let after = 0; ; ) {
    const { epoch: now, bytes } = await page(after);
    epoch ??= now;
    if (epoch !== now) throw new DomainError('bad_state', 'the outbox started a new epoch meanwhile; run it again');
    const records = unpackRecords(bytes);
    for (const { isGap, body } of records) {
      if (isGap) notes.gaps += 1;
      else yield* samplesOfBlock(body);
    }
    const last = records.at(-1);
    if (!last) return;
    after = last.seqTo;
  }
}

/**
 * The samples on the disk of an agent that does not run.
 *
 * @throws DomainError `already_exists` when it runs after all.
 */
export function* samplesOfDisk(stateDir: string, notes: ExportNotes): Generator<Sample, void, void> {
  const path = databasePath(stateDir);
  if (!existsSync(path))
    throw new DomainError('not_found', `${path} does not exist: no agent has run here, or state_dir is another one`);
  const lock = new StateLock(stateDir);
  try {
    const db = new Database(path, { fileMustExist: true });
    try {
      // EXCLUSIVE needs no shared memory file, so that nothing of ours stays in the folder.
      db.pragma('locking_mode = EXCLUSIVE');
      db.pragma('query_only = ON');
      const rows = db.prepare<[], StoredRow>('SELECT * FROM telemetry ORDER BY seq');
      for (const row of rows.iterate()) {
        if (!isSoundRow(row, 'telemetry')) notes.damaged += 1;
        else if (row.kind === outrider.v1.BodyKind.BODY_GAP) notes.gaps += 1;
        else yield* samplesOfBlock(row.body);
      }
    } finally {
      db.close();
    }
  } finally {
    lock.release();
  }
}

function* samplesOfBlock(body: Uint8Array): Generator<Sample, void, void> {
  const block = decodeBlock(body);
  for (let row = 0; row < block.count; row += 1) yield sampleAt(block, row);
}
