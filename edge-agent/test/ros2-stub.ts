import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

/** What the stand-in for rclnodejs does in the child. It behaves as rclnodejs 2.2 was seen to. */
export interface StubScenario {
  /** Sent on the n-th subscription, in base64, each once it spins; 'not a buffer' stands for a wrong payload. */
  readonly payloads?: readonly (readonly string[])[];
  /** Repeat the payloads this often. [ms] */
  readonly everyMs?: number;
  /** One large burst in a single turn: how many, and how many bytes each. */
  readonly burst?: { readonly count: number; readonly bytes: number };
  readonly publishers?: readonly object[];
  readonly failInit?: string;
  /** A program that puts what is published on the wire: it gets the domain, and a line for each message. */
  readonly relay?: string;
}

/** Parts to leave out or break. */
export interface StubFaults {
  readonly noAddon?: boolean;
  readonly brokenAddon?: boolean;
  readonly otherPrebuild?: string;
  readonly noMessages?: boolean;
}

const SOURCE = `
const { readFileSync, appendFileSync } = require('node:fs');
const { join } = require('node:path');
const scenario = JSON.parse(readFileSync(join(__dirname, 'scenario.json'), 'utf8'));
appendFileSync(join(__dirname, 'pids'), process.pid + '\\n');
const onSigint = () => {};
process.on('SIGINT', onSigint);
const subscriptions = [];
const relay = scenario.relay && require('node:child_process')
  .spawn(scenario.relay, ['relay', process.env.ROS_DOMAIN_ID], { stdio: ['pipe', 'ignore', 'inherit'] });
class Node {
  createSubscription(type, topic, options, callback) {
    if (options.isRaw !== true || typeof options.qos !== 'object') throw new TypeError('options');
    // rclnodejs: a throw in a callback aborts the process.
    subscriptions.push((payload) => { try { callback(payload); } catch { process.abort(); } });
    return {};
  }
  createPublisher(type, topic) {
    return { publish: (payload) => {
      if (!Buffer.isBuffer(payload)) throw new TypeError('raw messages only');
      const line = [topic, type, payload.toString('hex')].join(' ') + '\\n';
      appendFileSync(join(__dirname, 'published'), line);
      relay?.stdin.write(line);
    } };
  }
  getPublishersInfoByTopic() { return scenario.publishers ?? []; }
  spin() {
    const give = () => (scenario.payloads ?? []).forEach((list, i) => list.forEach((text) =>
      subscriptions[i](text === 'not a buffer' ? undefined : Buffer.from(text, 'base64'))));
    setImmediate(() => {
      give();
      for (let i = 0; i < (scenario.burst?.count ?? 0); i += 1) subscriptions[0](Buffer.alloc(scenario.burst.bytes));
    });
    if (scenario.everyMs) setInterval(give, scenario.everyMs);
  }
}
module.exports = {
  init: async () => { if (scenario.failInit) throw new Error(scenario.failInit); },
  removeSignalHandlers: () => process.removeListener('SIGINT', onSigint),
  createNode: () => new Node(),
  QoS: class QoS { constructor(...policies) { this.policies = policies; } },
};
`;

/** Writes a package named rclnodejs that the real child takes for it: a loadable addon, messages, a module. */
export function writeStub(folder: string, scenario: StubScenario = {}, faults: StubFaults = {}): string {
  const root = join(folder, 'node_modules', 'rclnodejs');
  mkdirSync(root, { recursive: true });
  writeFileSync(join(root, 'package.json'), JSON.stringify({ name: 'rclnodejs', version: '2.2.0', main: 'index.js' }));
  writeFileSync(join(root, 'index.js'), SOURCE);
  writeFileSync(join(root, 'scenario.json'), JSON.stringify(scenario));
  if (!faults.noAddon) {
    const addon = join(root, 'build', 'Release', 'rclnodejs.node');
    mkdirSync(join(root, 'build', 'Release'), { recursive: true });
    // Any addon that loads will do: the child only asks the linker.
    if (faults.brokenAddon) writeFileSync(addon, 'not an addon');
    else
      copyFileSync(createRequire(import.meta.url).resolve('better-sqlite3/build/Release/better_sqlite3.node'), addon);
  }
  if (faults.otherPrebuild !== undefined) {
    const prebuilds = join(root, 'prebuilds', `${process.platform}-${process.arch}`);
    mkdirSync(prebuilds, { recursive: true });
    writeFileSync(join(prebuilds, `${faults.otherPrebuild}-${process.arch}-node-rclnodejs.node`), '');
  }
  for (const [packageName, name] of [
    ['sensor_msgs', 'JointState'],
    ['sensor_msgs', 'Imu'],
    ['sensor_msgs', 'NavSatFix'],
    ['nav_msgs', 'Odometry'],
    ['control_msgs', 'JointTrajectoryControllerState'],
    ['geometry_msgs', 'Twist'],
    ['std_msgs', 'Bool'],
  ] as const) {
    if (faults.noMessages) continue;
    mkdirSync(join(root, 'generated', packageName), { recursive: true });
    writeFileSync(join(root, 'generated', packageName, `${packageName}__msg__${name}.js`), '');
  }
  return root;
}
