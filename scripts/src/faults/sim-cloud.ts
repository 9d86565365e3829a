import { acksOf } from '@outrider/cloud/telemetry/acks';
import { answerHello } from '@outrider/cloud/telemetry/hello';
import type { RobotDirectory } from '@outrider/cloud/telemetry/ingest-ports';
import type { RobotRef } from '@outrider/cloud/telemetry/ports';
import { LANE_OF_CHANNEL, readBatch } from '@outrider/cloud/telemetry/uplink';
import type { Logger } from '@outrider/shared/log';
import { downTopic, parseTopic } from '@outrider/shared/protocol/topics';
import type { Clock } from '@outrider/shared/time';
import { MemoryStore } from './memory-store.ts';

const ROBOT: RobotRef = { robotPk: 1, tenantId: 'default', robotId: 'SIM-1' };

/** The cloud's end of the wire: the real reading, positions and hello; storage in memory, time from outside. */
export class SimCloud {
  readonly store = new MemoryStore();
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #publish: (topic: string, payload: Uint8Array) => void;
  readonly #directory: RobotDirectory = {
    find: async () => ROBOT,
    findRegistered: async () => ROBOT,
    forget: () => undefined,
  };

  constructor(clock: Clock, log: Logger, publish: (topic: string, payload: Uint8Array) => void) {
    this.#clock = clock;
    this.#log = log;
    this.#publish = publish;
  }

  /** @param dieBeforeAck The process ends after the commit and before the acknowledgement. */
  async receive(topic: string, payload: Uint8Array, dieBeforeAck: boolean): Promise<void> {
    const parsed = parseTopic(topic);
    if (parsed?.direction !== 'up') return;
    if (parsed.channel === 'hello') {
      const publish = async (to: string, bytes: Uint8Array): Promise<void> => this.#publish(to, bytes);
      const ports = { store: this.store, directory: this.#directory, clock: this.#clock, log: this.#log, publish };
      await answerHello(ports, parsed.device, payload);
      return;
    }
    const lane = LANE_OF_CHANNEL[parsed.channel];
    if (lane === undefined) return;
    const { epoch, records, batchId } = readBatch(payload, lane, this.#clock.epochMs());
    const work = [{ robot: ROBOT, epoch, lane, records, batchIds: [batchId] }];
    const outcomes = await this.store.commit(work);
    if (dieBeforeAck) return;
    for (const ack of acksOf(work, outcomes)) this.#publish(downTopic(ROBOT, 'ack'), ack.payload);
  }
}
