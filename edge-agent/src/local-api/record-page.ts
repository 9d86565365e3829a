import { DomainError } from '@outrider/shared/errors';
import type { StoredRecord } from '../outbox/records.ts';

const HEAD_BYTES = 24;

/** A telemetry record as a page carries it. */
export interface PagedRecord {
  readonly seq: number;
  /** Last position that it stands for; its own unless it is a gap. */
  readonly seqTo: number;
  readonly isGap: boolean;
  readonly body: Uint8Array;
}

/** Records as bytes: position, last position (0: no gap), length, body. */
export function packRecords(records: readonly StoredRecord[]): Uint8Array<ArrayBuffer> {
  const page = new Uint8Array(records.reduce((sum, { body }) => sum + HEAD_BYTES + body.length, 0));
  const view = new DataView(page.buffer);
  let at = 0;
  for (const { seq, seqTo, body } of records) {
    view.setFloat64(at, seq, true);
    view.setFloat64(at + 8, seqTo, true);
    view.setFloat64(at + 16, body.length, true);
    page.set(body, at + HEAD_BYTES);
    at += HEAD_BYTES + body.length;
  }
  return page;
}

/** @throws DomainError `invalid` when the page is torn. */
export function unpackRecords(page: Uint8Array): PagedRecord[] {
  const view = new DataView(page.buffer, page.byteOffset, page.byteLength);
  const records: PagedRecord[] = [];
  for (let at = 0; at < page.length; ) {
    const length = at + HEAD_BYTES <= page.length ? view.getFloat64(at + 16, true) : Number.NaN;
    const end = at + HEAD_BYTES + length;
    if (!(end <= page.length)) throw new DomainError('invalid', 'the agent sent a torn page of its outbox');
    const seqTo = view.getFloat64(at + 8, true);
    const seq = view.getFloat64(at, true);
    records.push({ seq, seqTo: seqTo || seq, isGap: seqTo !== 0, body: page.subarray(at + HEAD_BYTES, end) });
    at = end;
  }
  return records;
}
