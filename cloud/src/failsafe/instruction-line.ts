import { type DeviceIdentity, deviceName } from '@outrider/shared/ids';
import type { Logger } from '@outrider/shared/log';
import type { outrider } from '@outrider/shared/messages';
import { signInstruction } from '@outrider/shared/protocol/instruction';
import { downTopic } from '@outrider/shared/protocol/topics';
import { pause, type Service } from '@outrider/shared/service';
import type { Clock } from '@outrider/shared/time';
import type { DeviceBus } from '../broker/bus.ts';
import type { InstructionKeys } from './instruction-keys.ts';
import type { InstructionStore } from './ports.ts';

/** How late a key that another replica made is noticed. */
const REFRESH_MS = 10_000;
const DEVICES_MAX = 100_000;

export interface InstructionLineOptions {
  readonly bus: DeviceBus;
  readonly keys: InstructionKeys;
  readonly store: InstructionStore;
  readonly clock: Clock;
  readonly log: Logger;
}

/** What makes an instruction, besides the robot it is for. */
export type Order = Omit<outrider.v1.Instruction.$Properties, 'tenantId' | 'robotId'>;

/**
 * Signs what robots are ordered to do and sends it, with the list of good keys before the first instruction of a
 * connection, so that a robot that was away while the key changed still understands a stop.
 */
export class InstructionLine implements Service {
  readonly name = 'instruction-line';
  readonly #options: InstructionLineOptions;
  /** Serial of the key list that a robot was sent on its present connection. */
  readonly #listed = new Map<string, number>();
  readonly #reserved = new Map<string, number>();
  readonly #reserving = new Set<string>();
  #hasFailed = false;

  constructor(options: InstructionLineOptions) {
    this.#options = options;
  }

  /** Looks for new keys and keeps a number ready for each robot that appears, until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { bus, keys, log } = this.#options;
    const off = bus.onPresence(({ device, report }) => {
      this.forgetList(device);
      if (report.presence === 'ONLINE') this.#reserve(device);
    });
    while (!signal.aborted) {
      await pause(REFRESH_MS, signal);
      if (signal.aborted) break;
      // What is in memory goes on working; a database that is away comes back.
      await keys.open().catch((error: unknown) => log.warn({ err: error }, 'instruction_key.refresh_failed'));
    }
    off();
  }

  /** @returns An encoded SignedInstruction for this robot and no other. */
  sign({ tenantId, robotId }: DeviceIdentity, order: Order): Uint8Array {
    const { keyId, privateKey } = this.#options.keys.signer;
    return signInstruction({ ...order, tenantId, robotId }, keyId, privateKey);
  }

  /** Sends what `sign` made. @throws DomainError `unavailable` when there is no broker. */
  async publish(device: DeviceIdentity, signed: Uint8Array): Promise<void> {
    const { bus, keys } = this.#options;
    const { serial, bytes } = keys.list;
    const name = deviceName(device);
    const sent: Promise<void>[] = [];
    if (this.#listed.get(name) !== serial) {
      if (this.#listed.size >= DEVICES_MAX) this.#listed.clear();
      this.#listed.set(name, serial);
      sent.push(bus.publish(downTopic(device, 'keys'), bytes));
    }
    // Not waited for in between: a stop goes out in the same turn, and the broker keeps the order.
    sent.push(bus.publish(downTopic(device, 'command'), signed));
    try {
      await Promise.all(sent);
    } catch (error) {
      this.forgetList(device);
      throw error;
    }
  }

  /** The robot gets the key list again with its next instruction. */
  forgetList(device: DeviceIdentity): void {
    this.#listed.delete(deviceName(device));
  }

  /**
   * A number that was got ahead of time, or 0: a stop waits for no database, and a robot refuses no stop for its number.
   */
  reservedCounter(device: DeviceIdentity): number {
    const name = deviceName(device);
    const counter = this.#reserved.get(name) ?? 0;
    this.#reserved.delete(name);
    this.#reserve(device);
    return counter;
  }

  /** The robot's next number. @throws what the database throws. */
  nextCounter(device: DeviceIdentity, above: number): Promise<number> {
    return this.#options.store.nextCounter(device, above);
  }

  #reserve(device: DeviceIdentity): void {
    const name = deviceName(device);
    if (this.#reserved.has(name) || this.#reserving.has(name)) return;
    this.#reserving.add(name);
    this.#options.store.nextCounter(device, 0).then(
      (counter) => {
        this.#reserving.delete(name);
        this.#hasFailed = false;
        if (this.#reserved.size >= DEVICES_MAX) this.#reserved.clear();
        this.#reserved.set(name, counter);
      },
      (error: unknown) => {
        this.#reserving.delete(name);
        // One line for each time that the database is away, not one for each stop.
        if (!this.#hasFailed) this.#options.log.warn({ ...device, err: error }, 'instruction.no_number_reserved');
        this.#hasFailed = true;
      },
    );
  }
}
