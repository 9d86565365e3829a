/**
 * The process of everybody who talks HTTP to the control plane: askers and readers of the live stream. Told by messages
 * of its parent what to do; ends with it.
 */
import { Asker } from './asker.ts';
import type { ConsolesOrder, ConsolesReport } from './consoles.ts';
import { Listeners } from './listeners.ts';

let asker: Asker | undefined;
let listeners: Listeners | undefined;

function report(): ConsolesReport {
  const { user, system } = process.cpuUsage();
  return {
    asked: asker?.asked ?? [],
    lag: listeners?.lag.toData() ?? { buckets: [], maxMs: 0 },
    messages: listeners?.messages ?? 0,
    openStreams: listeners?.openStreams ?? 0,
    openFrozen: listeners?.openFrozen ?? 0,
    endedStreams: listeners?.endedStreams ?? 0,
    ends: listeners?.ends ?? [],
    cpuMs: (user + system) / 1000,
  };
}

async function obey(order: ConsolesOrder): Promise<unknown> {
  switch (order.do) {
    case 'begin':
      asker = new Asker(order);
      listeners = new Listeners(order);
      return undefined;
    case 'ask':
      asker?.repeat(order.askings);
      return undefined;
    case 'burst':
      return await asker?.burst(order.asking, order.count, order.atOnce);
    case 'listen':
      return await listeners?.open(order.streams, order.frozen, order.robotsEach);
    case 'watch':
      return await listeners?.watch(order.include);
    case 'watched':
      return [...(listeners?.watched ?? [])];
    case 'forget':
      asker?.forget();
      listeners?.forget();
      return undefined;
    case 'report':
      return report();
    case 'end':
      setTimeout(() => process.exit(0), 200);
      return undefined;
  }
}

process.on('disconnect', () => process.exit(0));
process.on('message', (order: ConsolesOrder) => {
  obey(order).then(
    (value) => process.send?.({ answer: order.id, value }),
    (error: unknown) =>
      process.send?.({ answer: order.id, error: error instanceof Error ? error.message : String(error) }),
  );
});
