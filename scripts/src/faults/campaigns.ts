import type { Campaign } from './campaign.ts';
import { simulation } from './simulation.ts';

/** All campaigns, in the order in which they are run. */
export const CAMPAIGNS: readonly Campaign[] = [simulation];
