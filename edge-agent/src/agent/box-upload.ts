import type { Logger } from '@outrider/shared/log';
import { systemClock } from '@outrider/shared/time';
import type { BoxShelf } from '../blackbox/shelf.ts';
import { BoxUploader } from '../blackbox/uploader.ts';
import type { AgentConfig } from '../config.ts';
import { cloudBoxSink } from '../enroll/box-sink.ts';
import { trustedCa } from '../enroll/enroller.ts';
import type { IdentityStore } from '../enroll/identity.ts';

/** Hands black boxes to the cloud; `undefined` when the configuration keeps them here. */
export function openBoxUpload(
  { blackbox, blackboxUpload: { policy, bytesPerS }, device, cloud }: AgentConfig,
  shelf: BoxShelf,
  identities: IdentityStore,
  isOnline: () => boolean,
  log: Logger,
): BoxUploader | undefined {
  if (blackbox === undefined || policy === 'never') return undefined;
  return new BoxUploader({
    shelf,
    policy,
    bytesPerS,
    isOnline,
    clock: systemClock,
    log,
    sink: async () => {
      const apiKey = identities.loadApiKey();
      if (apiKey === undefined) return undefined;
      const ca = await trustedCa({ device, ...cloud }, identities);
      return cloudBoxSink({ httpUrl: cloud.httpUrl, robotId: device.robotId, apiKey, ca, clock: systemClock });
    },
  });
}
