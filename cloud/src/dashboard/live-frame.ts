/** One message, framed once for all who get it. */
export class LiveFrame {
  readonly type: string;
  /** Where a client goes on after it; absent for messages that are no place in the stream. */
  readonly id: string | undefined;
  readonly json: string;
  #bytes: Buffer | undefined;
  #event: Uint8Array | undefined;

  constructor(message: { readonly type: string; readonly id?: string; readonly [field: string]: unknown }) {
    this.type = message.type;
    this.id = message.id;
    this.json = JSON.stringify(message);
  }

  /** The JSON in UTF-8. */
  get bytes(): Buffer {
    this.#bytes ??= Buffer.from(this.json);
    return this.#bytes;
  }

  /** The same as a server-sent event. */
  get event(): Uint8Array {
    if (!this.#event) {
      const id = this.id === undefined ? '' : `id: ${this.id}\n`;
      this.#event = Buffer.from(`${id}event: ${this.type}\ndata: ${this.json}\n\n`);
    }
    return this.#event;
  }
}

/** A place in the stream: of a run of a server, with what was held back of telemetry. */
export interface StreamPlace {
  readonly runId: string;
  readonly position: number;
  readonly telemetryPosition: number;
}

export const formatPlace = ({ runId, position, telemetryPosition }: StreamPlace): string =>
  position === telemetryPosition ? `${runId}-${position}` : `${runId}-${position}-${telemetryPosition}`;

/** @returns `undefined` when the text is no place. */
export function parsePlace(text: string): StreamPlace | undefined {
  const match = /^([0-9a-f]{8})-(\d{1,15})(?:-(\d{1,15}))?$/.exec(text);
  if (!match?.[1] || !match[2]) return undefined;
  const position = Number(match[2]);
  return { runId: match[1], position, telemetryPosition: match[3] === undefined ? position : Number(match[3]) };
}
