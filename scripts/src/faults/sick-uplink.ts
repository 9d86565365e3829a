import { setTimeout as sleep } from 'node:timers/promises';
import type { MqttClient } from 'mqtt';
import { Random } from './random.ts';

// Loaded into an agent process before its own program (node --import): its uplink sends messages twice, and some again
// much later, as a network does that delivers at least once.

const TWICE = 0.2;
const LATE = 0.1;
const LATE_MS_MAX = 3000;

// The guard inherits the environment and has no uplink.
if (process.argv.includes('run')) {
  const { MqttClient: Client } = await import('mqtt');
  const random = new Random(Number(process.env['OUTRIDER_FAULT_SEED']) + process.pid);
  const { publish } = Client.prototype;
  let newest: MqttClient | undefined;
  const again = async (topic: string, message: Buffer, delayMs: number): Promise<void> => {
    await sleep(delayMs);
    if (newest?.connected) publish.call(newest, topic, message, { qos: 1 });
  };
  Client.prototype.publish = function doubled(this: MqttClient, ...args: unknown[]): MqttClient {
    newest = this;
    const [topic, message] = args as [string, Buffer];
    if (topic.includes('/up/')) {
      const copy = Buffer.from(message);
      if (random.chance(TWICE)) void again(topic, copy, 0);
      if (random.chance(LATE)) void again(topic, copy, random.int(50, LATE_MS_MAX));
    }
    return Reflect.apply(publish, this, args) as MqttClient;
  } as typeof publish;
}
