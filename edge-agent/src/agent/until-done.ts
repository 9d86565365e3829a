import { aborted, pause, type Service } from '@outrider/shared/service';
import type { Outbox } from '../outbox/outbox.ts';
import type { SourceStage } from './source-stage.ts';

const DRAINED_CHECK_MS = 100;

/** Ends, and with it the agent, when the recordings are over and the cloud has everything. */
export function untilDone(sources: SourceStage, outbox: Outbox): Service {
  return {
    name: 'until-done',
    run: async (signal) => {
      await Promise.race([sources.finished, aborted(signal)]);
      while (!signal.aborted && !outbox.isDrained()) await pause(DRAINED_CHECK_MS, signal);
    },
  };
}
