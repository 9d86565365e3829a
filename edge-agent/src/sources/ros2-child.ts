/**
 * The process that holds rclnodejs. It lives apart because the library may abort its process, and because ROS's
 * shared libraries are only found when the environment was right from the start. `ros2.ts` forks it.
 */
import { createRequire } from 'node:module';
import { errorMessage } from '@outrider/shared/errors';
import { systemClock } from '@outrider/shared/time';
import { checkRos2, Ros2Unusable } from './ros2-preflight.ts';
import {
  ROS2_CHILD_EXITS,
  type Ros2ChildFailure,
  type Ros2ChildGate,
  type Ros2ChildReport,
  type Ros2ChildStart,
  type Ros2ChildStop,
  type Ros2Publishers,
  type Ros2RawMessage,
} from './ros2-protocol.ts';
import { mismatch, RMW, type RmwEndpoint, rmwQos } from './ros2-qos.ts';
import { receptionNow } from './source.ts';

/** Bytes of messages under way to the parent. When it does not keep up, newer ones are dropped and counted. */
const PENDING_BYTES_MAX = 4 * 1024 * 1024;
const MESSAGES_PER_FRAME_MAX = 64;
const MESSAGE_OVERHEAD_BYTES = 128;
const PUBLISHERS_EVERY_MS = 2_000;
/** How long the last words may take on a full channel. */
const LAST_WORDS_MS = 1_000;

/** The part of rclnodejs 2.2 that we use. Its own types are only there where it could be built. */
interface Rclnodejs {
  init(): Promise<void>;
  removeSignalHandlers(): void;
  createNode(name: string): RosNode;
  readonly QoS: new (history: number, depth: number, reliability: number, durability: number) => object;
}

interface RosNode {
  createSubscription(
    type: string,
    topic: string,
    options: { readonly isRaw: true; readonly qos: object },
    callback: (payload: Uint8Array) => void,
  ): object;
  createPublisher(type: string, topic: string): { publish(payload: Buffer): void };
  getPublishersInfoByTopic(topic: string): readonly RmwEndpoint[];
  spin(): void;
}

/** Sends raw messages in frames, and never keeps more than PENDING_BYTES_MAX of them. */
class Outlet {
  #queued: Ros2RawMessage[] = [];
  #queuedBytes = 0;
  #sentBytes = 0;
  /** Messages that did not get through so far. */
  dropped = 0;
  #isScheduled = false;

  push(topic: number, payload: Uint8Array): void {
    const size = payload.length + MESSAGE_OVERHEAD_BYTES;
    if (this.#queuedBytes + this.#sentBytes + size > PENDING_BYTES_MAX) {
      this.dropped += 1;
      return;
    }
    // A copy: rclnodejs may use its buffer again.
    this.#queued.push({ topic, ...receptionNow(systemClock), payload: Buffer.from(payload) });
    this.#queuedBytes += size;
    if (this.#queued.length >= MESSAGES_PER_FRAME_MAX) this.#flush();
    else if (!this.#isScheduled) {
      this.#isScheduled = true;
      setImmediate(() => this.#flush());
    }
  }

  #flush(): void {
    this.#isScheduled = false;
    if (this.#queued.length === 0) return;
    const bytes = this.#queuedBytes;
    this.#sentBytes += bytes;
    report({ kind: 'messages', messages: this.#queued, dropped: this.dropped }, () => {
      this.#sentBytes -= bytes;
    });
    this.#queued = [];
    this.#queuedBytes = 0;
  }
}

function report(message: Ros2ChildReport, sent: () => void = () => undefined): void {
  if (process.connected) process.send?.(message, undefined, {}, () => sent());
  else sent();
}

/** Says why, then exits with the code that says it too. */
function giveUp(code: Ros2ChildFailure, message: string): void {
  const exit = (): never => process.exit(ROS2_CHILD_EXITS[code]);
  setTimeout(exit, LAST_WORDS_MS);
  report({ kind: 'failed', code, message }, exit);
}

async function listen(start: Ros2ChildStart): Promise<void> {
  const require = createRequire(start.rclnodejsFrom ?? import.meta.url);
  checkRos2(start, {
    resolvePackage: () => require.resolve('rclnodejs/package.json'),
    loadAddon: (file) => process.dlopen({ exports: {} }, file),
  });
  const rclnodejs = require('rclnodejs') as Rclnodejs;
  rclnodejs.removeSignalHandlers();
  await rclnodejs.init();
  const node = rclnodejs.createNode(start.nodeName);
  const outlet = new Outlet();
  start.topics.forEach(({ topic, type, qos }, index) => {
    const { depth, reliability, durability } = rmwQos(qos);
    const asked = new rclnodejs.QoS(RMW.keepLast, depth, reliability, durability);
    node.createSubscription(type, topic, { isRaw: true, qos: asked }, (payload) => {
      // rclnodejs aborts the process when anything is thrown here.
      try {
        outlet.push(index, payload);
      } catch {
        outlet.dropped += 1;
      }
    });
  });
  if (start.stop) holdStill(node, start.stop);
  node.spin();
  report({ kind: 'ready' });
  const look = (): void => {
    try {
      const publishers = start.topics.map((_, index) => publishersOf(node, start, index));
      report({ kind: 'publishers', publishers, dropped: outlet.dropped });
    } catch (error) {
      giveUp('ros_failed', `looking for publishers: ${errorMessage(error)}`);
    }
  };
  look();
  setInterval(look, PUBLISHERS_EVERY_MS);
}

/** Says stop again and again while the gate is closed, which it is until the parent says otherwise. */
function holdStill(node: RosNode, { everyMs, publishers }: Ros2ChildStop): void {
  const outlets = publishers.map(({ topic, type, closed, opened }) => ({
    publisher: node.createPublisher(type, topic),
    closed: Buffer.from(closed),
    opened: opened && Buffer.from(opened),
  }));
  const sayClosed = (): void => {
    for (const { publisher, closed } of outlets) publisher.publish(closed);
  };
  let timer: NodeJS.Timeout | undefined = setInterval(sayClosed, everyMs);
  sayClosed();
  process.on('message', (message: Ros2ChildGate) => {
    if (message.kind !== 'gate' || message.isOpen === (timer === undefined)) return;
    clearInterval(timer);
    timer = message.isOpen ? undefined : setInterval(sayClosed, everyMs);
    if (!message.isOpen) sayClosed();
    else for (const { publisher, opened } of outlets) if (opened) publisher.publish(opened);
  });
}

function publishersOf(node: RosNode, { topics }: Ros2ChildStart, index: number): Ros2Publishers {
  const { topic = '', type = '', qos = 'sensor_data' } = topics[index] ?? {};
  const publishers = node.getPublishersInfoByTopic(topic);
  const problems = publishers.map((publisher) => mismatch(rmwQos(qos), type, publisher));
  return {
    topic: index,
    count: publishers.length,
    incompatible: problems.filter((problem): problem is string => problem !== undefined),
  };
}

process.on('disconnect', () => process.exit(0)); // The parent is gone: nobody listens any more.
process.on('uncaughtException', (error) => giveUp('ros_failed', errorMessage(error)));
process.on('unhandledRejection', (error) => giveUp('ros_failed', errorMessage(error)));
process.once('message', (start: Ros2ChildStart) => {
  listen(start).catch((error: unknown) => {
    giveUp(error instanceof Ros2Unusable ? error.code : 'ros_failed', errorMessage(error));
  });
});
