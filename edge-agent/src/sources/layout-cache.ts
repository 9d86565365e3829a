import type { StreamKind, StreamLayout } from '@outrider/shared/telemetry';
import type { CdrReader } from './cdr.ts';

/** Shapes of one stream that are remembered. A hostile stream that changes shape each time only loses the shortcut. */
const LAYOUTS_MAX = 16;
const HEADS_MAX = 4;

/**
 * Gives samples of the same shape the same layout object, so that `sameLayout` is one comparison and a block of 100
 * samples holds one layout.
 */
export class LayoutCache {
  readonly stream: string;
  readonly kind: StreamKind;
  readonly declaredRateHz: number;
  /** Most recently used first. */
  readonly #layouts: StreamLayout[] = [];

  constructor(stream: string, kind: StreamKind, declaredRateHz: number) {
    this.stream = stream;
    this.kind = kind;
    this.declaredRateHz = declaredRateHz;
  }

  layout(
    names: readonly string[],
    fieldNames: readonly string[],
    widths: readonly number[],
    tags: Readonly<Record<string, string>>,
  ): StreamLayout {
    const at = this.#layouts.findIndex(
      (known) =>
        sameStrings(known.names, names) &&
        known.fields.length === widths.length &&
        known.fields.every((field, i) => field.width === widths[i] && field.name === fieldNames[i]) &&
        sameTags(known.tags, tags),
    );
    if (at === 0) return this.#layouts[0] as StreamLayout;
    const layout =
      at > 0 ? (this.#layouts.splice(at, 1)[0] as StreamLayout) : this.#create(names, fieldNames, widths, tags);
    this.#layouts.unshift(layout);
    if (this.#layouts.length > LAYOUTS_MAX) this.#layouts.pop();
    return layout;
  }

  #create(
    names: readonly string[],
    fieldNames: readonly string[],
    widths: readonly number[],
    tags: Readonly<Record<string, string>>,
  ): StreamLayout {
    const fields = widths.map((width, i) => ({ name: fieldNames[i] as string, width }));
    return { stream: this.stream, kind: this.kind, names, fields, tags, declaredRateHz: this.declaredRateHz };
  }
}

/** The text at the start of a message: `header.frame_id` and, in a JointState, the joint names. */
export interface MessageHead {
  readonly tags: Readonly<Record<string, string>>;
  readonly names: readonly string[];
}

/**
 * Remembers the bytes of the last heads, because they hardly ever change: comparing them is many times cheaper than
 * decoding thirty joint names. The bytes carry their own lengths, so equal bytes mean equal text.
 */
export class HeadCache {
  readonly #known: { readonly bytes: Buffer; readonly isLittleEndian: boolean; readonly head: MessageHead }[] = [];

  read(cdr: CdrReader, decode: (cdr: CdrReader) => MessageHead): MessageHead {
    const start = cdr.offset;
    for (const { bytes, isLittleEndian, head } of this.#known) {
      const end = start + bytes.length;
      if (isLittleEndian !== cdr.isLittleEndian || end > cdr.bytes.length) continue;
      if (cdr.bytes.compare(bytes, 0, bytes.length, start, end) !== 0) continue;
      cdr.skipTo(end);
      return head;
    }
    const head = decode(cdr);
    this.#known.unshift({
      bytes: Buffer.from(cdr.bytes.subarray(start, cdr.offset)),
      isLittleEndian: cdr.isLittleEndian,
      head,
    });
    if (this.#known.length > HEADS_MAX) this.#known.pop();
    return head;
  }
}

/** Whether two lists hold the same strings in the same order. */
export const sameStrings = (a: readonly string[], b: readonly string[]): boolean =>
  a === b || (a.length === b.length && a.every((text, i) => text === b[i]));

function sameTags(a: Readonly<Record<string, string>>, b: Readonly<Record<string, string>>): boolean {
  if (a === b) return true;
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((key) => a[key] === b[key]);
}
