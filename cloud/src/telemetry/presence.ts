import type { DeviceIdentity } from '@outrider/shared/ids';
import type { Logger } from '@outrider/shared/log';
import { outrider } from '@outrider/shared/messages';
import { decodeWire } from '@outrider/shared/protocol/codec';
import { PRESENCES } from '@outrider/shared/robot';
import type { Clock, EpochMs } from '@outrider/shared/time';
import type { PresenceStore, RobotDirectory } from './ingest-ports.ts';
import type { LiveUpdate, RobotRef } from './ports.ts';

/** "Last seen" is written at most this often for a robot. */
const TOUCH_MS = 5000;
const TOUCHED_MAX = 100_000;

export interface PresenceOptions {
  readonly store: PresenceStore;
  readonly directory: RobotDirectory;
  readonly clock: Clock;
  readonly log: Logger;
  readonly publish: (updates: readonly LiveUpdate[]) => void;
}

/** Keeps track of which robots are there. */
export class PresenceKeeper {
  readonly #options: PresenceOptions;
  readonly #touched = new Map<number, number>();

  constructor(options: PresenceOptions) {
    this.#options = options;
  }

  /**
   * Stores a birth or a last will.
   *
   * @returns The report when it was stored.
   * @throws DomainError `invalid`, and what the database throws.
   */
  async report(device: DeviceIdentity, payload: Uint8Array): Promise<outrider.v1.PresenceReport | undefined> {
    const { clock, directory, log, publish, store } = this.#options;
    const report = decodeWire(outrider.v1.PresenceReport, payload, 'presence');
    const robot = await directory.findRegistered(device);
    if (!robot || !PRESENCES.some((known) => known === report.presence)) {
      log.warn({ ...device, presence: report.presence.slice(0, 64), known: robot !== undefined }, 'presence.ignored');
      return undefined;
    }
    const now = clock.epochMs();
    await store.report(robot.robotPk, report, now);
    publish([
      {
        type: 'presence',
        tenantId: robot.tenantId,
        robotId: robot.robotId,
        ingestedAt: now,
        presence: report.presence,
      },
    ]);
    log.info({ ...device, presence: report.presence }, 'presence.reported');
    return report;
  }

  /** Notes that these robots were heard. Failures are logged only: the next touch says the same. */
  async touch(robots: readonly RobotRef[], presenceIfNew: 'ONLINE' | 'OFFLINE'): Promise<void> {
    const { clock, log, store } = this.#options;
    const now: EpochMs = clock.epochMs();
    const due = robots.filter((robot) => Math.abs(now - (this.#touched.get(robot.robotPk) ?? 0)) >= TOUCH_MS);
    if (due.length === 0) return;
    if (this.#touched.size > TOUCHED_MAX) this.#touched.clear();
    for (const robot of due) this.#touched.set(robot.robotPk, now);
    const robotPks = due.map((robot) => robot.robotPk);
    await store.touch(robotPks, now, presenceIfNew).catch((error: unknown) => {
      log.warn({ err: error }, 'presence.touch_failed');
    });
  }
}
