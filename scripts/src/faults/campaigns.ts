import type { Campaign } from './campaign.ts';
import { clockTrips, wrongClocks } from './clocks.ts';
import { fullDisks } from './full-disks.ts';
import { hostDeaths, nuisanceStops } from './host-deaths.ts';
import { identities } from './identities.ts';
import { engineFaults, kills } from './kills.ts';
import { latchSlots } from './latches.ts';
import { simulation } from './simulation.ts';
import { flippedBits, tornJournals } from './torn.ts';
import { TRIPS } from './trips.ts';
import { twins } from './twins.ts';

/** All campaigns, in the order in which they are run. */
export const CAMPAIGNS: readonly Campaign[] = [
  hostDeaths,
  nuisanceStops,
  ...TRIPS,
  kills,
  engineFaults,
  tornJournals,
  flippedBits,
  latchSlots,
  fullDisks,
  identities,
  twins,
  wrongClocks,
  clockTrips,
  simulation,
];
