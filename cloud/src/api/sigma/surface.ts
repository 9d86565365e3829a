import type { StreamHub } from '../../dashboard/stream-hub.ts';
import type { Core } from '../core.ts';
import type { Surface } from '../surface.ts';
import { registerAlerts } from './alerts.ts';
import { registerAuth } from './auth.ts';
import { registerBlackBoxes } from './blackboxes.ts';
import { registerCommands } from './commands.ts';
import { registerDashboard } from './dashboard.ts';
import { renderSigmaError } from './errors.ts';
import { registerOverview } from './overview.ts';
import { registerRobots } from './robots.ts';
import { registerTelemetry } from './telemetry.ts';

/** The SigmaPrompt document's surface. */
export const sigmaSurface = (core: Core, hub: StreamHub): Surface => ({
  name: 'sigma',
  prefixes: ['auth', 'telemetry', 'robots', 'twins', 'swarm', 'alerts', 'dashboard'].map((room) => `/api/v1/${room}`),
  rateLimitHeader: 'X-RateLimit',
  register(router) {
    registerAuth(router, core);
    registerTelemetry(router, core);
    registerRobots(router, core);
    registerCommands(router, core);
    registerBlackBoxes(router, core);
    registerAlerts(router, core);
    registerOverview(router, core);
    registerDashboard(router, core, hub);
  },
  renderError: renderSigmaError,
});
