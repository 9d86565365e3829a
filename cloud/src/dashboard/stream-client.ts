import type { EpochMs } from '@outrider/shared/time';
import { toIso } from '@outrider/shared/time';
import { LiveFrame } from './live-frame.ts';
import type { ChannelMember } from './stream-channel.ts';
import type { StreamGrant } from './tickets.ts';

/** Bytes that may wait for one client. Past it the client is dropped: it would only ever see old data. */
const WAITING_BYTES_MAX = 1024 * 1024;
/** Past this telemetry is left out, so that what matters more still finds room. */
const TELEMETRY_BYTES_MAX = 256 * 1024;
/** A client that is behind for so long is dropped too. */
const BEHIND_MS_MAX = 5_000;

/** Why the server ends a stream. */
export const STREAM_ENDS = ['slow', 'unauthenticated', 'shutdown', 'unresponsive'] as const;
export type StreamEnd = (typeof STREAM_ENDS)[number];

/** One client's transport. */
export interface LiveSink {
  send(frame: LiveFrame): void;
  heartbeat(): void;
  /** What was sent and has not left yet. [bytes] */
  waitingBytes(): number;
  /** Whether the client is known to be there. */
  isResponsive(): boolean;
  end(reason: StreamEnd): void;
}

/** One open stream: what its client is sent, and what is left out when it does not keep up. */
export class StreamClient implements ChannelMember {
  readonly sink: LiveSink;
  readonly grant: StreamGrant;
  readonly account: string;
  checkedMs: number;
  readonly #now: () => { readonly epochMs: EpochMs; readonly monotonicMs: number };
  readonly #onSlow: (client: StreamClient) => void;
  readonly #onSkipped: () => void;
  #skipped = 0;
  #behindSinceMs: number | undefined;

  constructor(deps: {
    sink: LiveSink;
    grant: StreamGrant;
    account: string;
    now: () => { readonly epochMs: EpochMs; readonly monotonicMs: number };
    /** Must end it. */
    onSlow: (client: StreamClient) => void;
    onSkipped: () => void;
  }) {
    this.sink = deps.sink;
    this.grant = deps.grant;
    this.account = deps.account;
    this.#now = deps.now;
    this.#onSlow = deps.onSlow;
    this.#onSkipped = deps.onSkipped;
    this.checkedMs = deps.now().monotonicMs;
  }

  deliver(frame: LiveFrame): void {
    const waiting = this.sink.waitingBytes();
    if (waiting <= TELEMETRY_BYTES_MAX) this.#behindSinceMs = undefined;
    else {
      const { monotonicMs } = this.#now();
      this.#behindSinceMs ??= monotonicMs;
      if (waiting > WAITING_BYTES_MAX || monotonicMs - this.#behindSinceMs > BEHIND_MS_MAX) {
        this.#onSlow(this);
        return;
      }
      if (frame.type === 'telemetry') {
        this.#skipped += 1;
        this.#onSkipped();
        return;
      }
    }
    if (this.#skipped > 0 && waiting <= TELEMETRY_BYTES_MAX) {
      const skipped = this.#skipped;
      this.#skipped = 0;
      this.tell('gap', { reason: 'slow', skipped });
    }
    this.sink.send(frame);
  }

  /** Sends a message that is no update. */
  tell(type: string, data: Readonly<Record<string, unknown>>, id?: string): void {
    const timestamp = toIso(this.#now().epochMs);
    this.sink.send(new LiveFrame({ ...(id === undefined ? {} : { id }), type, timestamp, data }));
  }
}
