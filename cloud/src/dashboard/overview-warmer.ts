import type { Logger } from '@outrider/shared/log';
import { pause, type Service } from '@outrider/shared/service';
import type { FleetOverview } from './overview.ts';

/** Tenants with fewer robots are summed quickly enough when they ask. */
const ROBOTS_MIN = 500;
/** While no robots are known yet, as at the start, and otherwise. */
const SOON_MS = 500;
const AGAIN_MS = 60_000;

/** Reads what the overviews of large fleets need before anybody asks. */
export class OverviewWarmer implements Service {
  readonly name = 'overview-warmer';
  readonly #overview: Pick<FleetOverview, 'warm'>;
  readonly #fleets: () => ReadonlyMap<string, number>;
  readonly #log: Logger;

  /** @param fleets How many robots each tenant has. */
  constructor(overview: Pick<FleetOverview, 'warm'>, fleets: () => ReadonlyMap<string, number>, log: Logger) {
    this.#overview = overview;
    this.#fleets = fleets;
    this.#log = log;
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const fleets = this.#fleets();
      try {
        for (const [tenantId, robots] of fleets) {
          if (robots >= ROBOTS_MIN) await this.#overview.warm(tenantId, signal);
        }
      } catch (error) {
        // Whoever asks meanwhile waits for the sums, or hears that the database is away.
        this.#log.debug({ err: error }, 'overview.warm_failed');
      }
      await pause(fleets.size === 0 ? SOON_MS : AGAIN_MS, signal);
    }
  }
}
