import type { Core } from '../core.ts';
import type { Surface } from '../surface.ts';
import { registerDecommission } from './decommission.ts';
import { renderWiaError } from './errors.ts';
import { registerRobots } from './robots.ts';
import { registerState } from './state.ts';

/** The WIA Robot Interface's surface. */
export const wiaSurface = (core: Core): Surface => ({
  name: 'wia',
  prefixes: ['/v1/robots', '/v1/fleets', '/v1/auth/login'],
  rateLimitHeader: 'X-Rate-Limit',
  register(router) {
    registerRobots(router, core);
    registerState(router, core);
    registerDecommission(router, core);
  },
  renderError: renderWiaError,
});
