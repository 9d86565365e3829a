import type { Campaign } from './campaign.ts';
import { latchSlots } from './latches.ts';
import { simulation } from './simulation.ts';
import { flippedBits, tornJournals } from './torn.ts';

/** All campaigns, in the order in which they are run. */
export const CAMPAIGNS: readonly Campaign[] = [tornJournals, flippedBits, latchSlots, simulation];
