import { encodeVerdict, type HealthVerdict } from '@outrider/shared/health/verdict';
import { outrider } from '@outrider/shared/messages';
import { bodyCrc } from '@outrider/shared/protocol/codec';
import { PROTOCOL_VERSION } from '@outrider/shared/protocol/version';
import { systemClock } from '@outrider/shared/time';

const { BodyKind, Lane, StateRecord, UplinkBatch } = outrider.v1;

/** What it says of its failsafe: commands are for robots that may move. */
export const ARMED = { phase: 'ARMED', mode: '', action: 'NONE', latch_id: 0, motion_epoch: 1, causes: [] };
/** What the edge's own analysis says of a robot that works as it should. */
const WELL: Omit<HealthVerdict, 'updatedAtMs'> = {
  state: 'watching',
  progress: 1,
  anomalyScore: 0.1,
  healthScore: 1,
  riskLevel: 'low',
  signals: [],
  alarmSinceMs: undefined,
  evidence: { normalHours: 40, neededHours: 30 },
};
/** As the edge agent repeats a verdict that stays the same. */
const HEALTH_EVERY_MS = 10_000;

interface KeptState {
  readonly seq: number;
  readonly body: Uint8Array;
}

/** The state lane of a simulated robot: kept until it is acknowledged, sent again on each connection. */
export class SimStates {
  readonly #epoch: string;
  readonly #bootId: string;
  readonly #send: (payload: Uint8Array) => void;
  #kept: KeptState[] = [];
  #nextSeq = 1;
  #judgedMs = Number.NEGATIVE_INFINITY;

  constructor(epoch: string, bootId: string, send: (payload: Uint8Array) => void) {
    this.#epoch = epoch;
    this.#bootId = bootId;
    this.#send = send;
  }

  /** The cloud has answered a hello and has the lane up to here. */
  greeted(upto: number): void {
    this.acknowledged(upto);
    if (this.#nextSeq === 1) this.#say('failsafe', ARMED);
    else this.#sendAll(this.#kept);
  }

  acknowledged(upto: number): void {
    this.#kept = this.#kept.filter(({ seq }) => seq > upto);
  }

  /** Says how the robot is when it is time to; call it about once a second while greeted. */
  tend(nowMs: number): void {
    if (nowMs - this.#judgedMs < HEALTH_EVERY_MS) return;
    this.#judgedMs = nowMs;
    this.#say('health', encodeVerdict({ ...WELL, updatedAtMs: systemClock.epochMs() }));
  }

  #say(key: string, value: unknown): void {
    const state = { key, atMs: systemClock.epochMs(), valueJson: JSON.stringify(value) };
    const kept = { seq: this.#nextSeq, body: StateRecord.encode(state).finish() };
    this.#nextSeq += 1;
    this.#kept.push(kept);
    this.#sendAll([kept]);
  }

  #sendAll(states: readonly KeptState[]): void {
    if (states.length === 0) return;
    const records = states.map(({ seq, body }) => ({
      seq,
      body,
      crc: bodyCrc(body),
      bootId: this.#bootId,
      kind: BodyKind.BODY_STATE,
    }));
    const batch = { protocolVersion: PROTOCOL_VERSION, epoch: this.#epoch, lane: Lane.LANE_STATE, records };
    this.#send(UplinkBatch.encode(batch).finish());
  }
}
