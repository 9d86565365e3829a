import { DomainError } from '@outrider/shared/errors';
import { outrider } from '@outrider/shared/protocol/api-messages';
import type { Core } from '../api/core.ts';
import { TelemetryEnvelope } from '../api/sigma/schemas.ts';
import { ingestEvents } from '../api/sigma/telemetry.ts';
import { validate } from '../api/validation.ts';
import type { Calls, Methods } from './calls.ts';
import { said } from './said.ts';

const { TelemetryFrame, TelemetryAck } = outrider.api.v1;
type Event = outrider.api.v1.TelemetryEvent.$Properties;

/** outrider.api.v1.TelemetryService */
export const telemetryService = (core: Core, calls: Calls): Methods => ({
  StreamTelemetry: calls.duplex(
    {
      request: TelemetryFrame,
      reply: TelemetryAck,
      access: ['telemetry:write', 'robot:write', 'command:write'],
      throttle: 'never',
    },
    async (frames, context, send) => {
      for await (const frame of frames) {
        const { events } = validate(TelemetryEnvelope, { events: frame.events.map(wireEvent) }, 'frame');
        const receipts = await ingestEvents(core, await context.principal(), events, context.requestId, false);
        const newest = receipts.at(-1);
        if (!newest) throw new DomainError('invalid', 'events is required');
        await send({
          sequence: frame.sequence,
          event_ids: receipts.map((receipt) => receipt.eventId),
          ingested_at: new Date(newest.ingestedAt).toISOString(),
        });
      }
    },
  ),
});

/** The event as JSON has it, so that both doors check the same: what was not said is absent. */
function wireEvent(event: Event): Record<string, unknown> {
  const { thermal: given, ...rest } = event;
  const thermal = given ?? [];
  return {
    ...(said(rest) as Record<string, unknown>),
    ...(thermal.length > 0
      ? { thermal: Object.fromEntries(thermal.map(({ name, celsius }) => [`${name ?? ''}_c`, celsius ?? 0])) }
      : {}),
  };
}
