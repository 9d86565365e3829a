import type { Message } from '../src/messages.ts';

const F32 = (...values: number[]): Float64Array => Float64Array.from(values, Math.fround);

/** Boot nonce of the core on the C tests' bench. */
export const BENCH_BOOT_NONCE = (42 * 1664525 + 1013904223) % 2 ** 32;

/** Every kind at least once, with values at the borders of their types. */
export const ALL_MESSAGES: readonly Message[] = [
  { kind: 'host_hello', session: 0xdeadbeef, hostMonoUs: 123_456_789_012, baud: 921_600, frameBytesMax: 2060 },
  { kind: 'heartbeat', counter: 0, gateOpen: false, motionEpoch: 0, hostMonoUs: 0 },
  {
    kind: 'heartbeat',
    counter: 0xffffffff,
    gateOpen: true,
    motionEpoch: Number.MAX_SAFE_INTEGER,
    hostMonoUs: 2 ** 32 + 1,
  },
  { kind: 'stop', commandId: 1 },
  { kind: 'hold', commandId: 0xffffffff },
  { kind: 'arm', commandId: 3, bootNonce: 0x89abcdef, motionEpoch: 4 },
  { kind: 'release', commandId: 4, bootNonce: 0x89abcdef, motionEpoch: 2 ** 40 },
  { kind: 'setpoints', commandId: 5, motionEpoch: 4, positionRad: F32(0.5, -0.5, 0, 1.999) },
  { kind: 'setpoints', commandId: 6, motionEpoch: 4, positionRad: F32() },
  { kind: 'set_rate', commandId: 7, stream: 'status', rateHz: 65_535 },
  { kind: 'fault', commandId: 8, fault: 'corrupt', joint: 255, value: Math.fround(0.001) },
  {
    kind: 'mcu_hello',
    mcuUs: 987_654_321,
    session: 0xdeadbeef,
    hostMonoUs: 123_456_789_012,
    bootNonce: 0x89abcdef,
    state: 'DISARMED',
    stopReason: 'boot',
    capabilities: 31,
    frameBytesMax: 2060,
    leaseMs: 300,
    jointsHz: 50,
    imuHz: 200,
    powerHz: 10,
    temperatureHz: 5,
    statusHz: 10,
    firmware: 'arm-board 2.0.1',
    jointNames: ['shoulder', 'elbow', 'wrist'],
    sensorNames: ['battery', 'board', 'ambient'],
  },
  { kind: 'heartbeat_echo', mcuUs: 987_654_400, counter: 7, hostMonoUs: 123_456_800_000, state: 'HOLD', fresh: false },
  { kind: 'ack', mcuUs: 1, commandId: 3, commandType: 0x05, state: 'ARMED', reason: 'none' },
  { kind: 'nack', mcuUs: 2, commandId: 4, commandType: 0x06, state: 'STOPPED', reason: 'no_session' },
  {
    kind: 'joints',
    mcuUs: 1_000_000,
    positionRad: F32(0.1, -3.5e-7, 1.5),
    velocityRadps: F32(-0, 1e-40, 12),
    torqueNm: F32(3.4028234663852886e38, -20.25, 0),
    temperatureC: F32(41.5, Number.NaN, Number.NEGATIVE_INFINITY),
  },
  { kind: 'joints', mcuUs: 0, positionRad: F32(), velocityRadps: F32(), torqueNm: F32(), temperatureC: F32() },
  {
    kind: 'joints',
    mcuUs: Number.MAX_SAFE_INTEGER,
    positionRad: Float64Array.from({ length: 64 }, (_, i) => Math.fround(i / 7)),
    velocityRadps: Float64Array.from({ length: 64 }, (_, i) => Math.fround(-i / 3)),
    torqueNm: new Float64Array(64),
    temperatureC: Float64Array.from({ length: 64 }, (_, i) => 30 + i / 4),
  },
  {
    kind: 'imu',
    mcuUs: 5,
    orientation: F32(0, 0, Math.SQRT1_2, Math.SQRT1_2),
    angularVelocityRadps: F32(0.01, -0.02, 3),
    linearAccelerationMps2: F32(0, 0, 9.80665),
  },
  {
    kind: 'power',
    mcuUs: 6,
    voltageV: Math.fround(51.8),
    currentA: Math.fround(-2.5),
    stateOfCharge: 0.5,
    drawW: Math.fround(-129.5),
  },
  { kind: 'temperature', mcuUs: 7, temperatureC: F32(31.25, Number.POSITIVE_INFINITY, -40) },
  {
    kind: 'status',
    mcuUs: 8_000_000,
    uptimeMs: 8000,
    bootNonce: 0x89abcdef,
    flags: 0x3ff,
    state: 'STOPPED',
    stopReason: 'estop',
    motionEpoch: 12,
    leaseAgeMs: 0xffffffff,
    rxFramesOk: 1,
    rxCrcBad: 2,
    rxCobsBad: 3,
    rxOversize: 4,
    rxMalformed: 5,
    rxLost: 6,
    heartbeatsStale: 7,
    txDropped: 8,
  },
];

type Step =
  | { readonly atUs: number; readonly message: Message }
  | { readonly atUs: number; readonly estop: 'on' | 'off' };

export interface Dialogue {
  readonly name: string;
  readonly description: string;
  /** The bench boots at 1,000,000 µs. */
  readonly steps: readonly Step[];
}

const hello: Message = { kind: 'host_hello', session: 77, hostMonoUs: 500, baud: 0, frameBytesMax: 2060 };
const beat = (counter: number, gateOpen: boolean, motionEpoch: number): Message => ({
  kind: 'heartbeat',
  counter,
  gateOpen,
  motionEpoch,
  hostMonoUs: 1000 + counter,
});
const arm = (commandId: number, motionEpoch: number, bootNonce = BENCH_BOOT_NONCE): Message => ({
  kind: 'arm',
  commandId,
  bootNonce,
  motionEpoch,
});

/** Conversations whose host lines are written here and whose answers the core gives. */
export const DIALOGUES: readonly Dialogue[] = [
  {
    name: 'lease',
    description: 'handshake, arm, silence beyond the lease, heartbeats that do not re-arm, arm again',
    steps: [
      { atUs: 1_000_100, message: hello },
      { atUs: 1_000_200, message: arm(1, 5) },
      { atUs: 1_000_300, message: beat(1, true, 5) },
      { atUs: 1_000_400, message: arm(2, 5, 1) },
      { atUs: 1_000_500, message: arm(3, 5) },
      { atUs: 1_020_000, message: beat(2, true, 5) },
      { atUs: 1_320_000, message: beat(3, true, 5) },
      { atUs: 1_340_000, message: beat(4, true, 5) },
      { atUs: 1_360_000, message: arm(3, 5) },
      { atUs: 1_380_000, message: arm(4, 6) },
      { atUs: 1_400_000, message: beat(5, true, 6) },
    ],
  },
  {
    name: 'commands',
    description: 'hold, release, setpoints, rates, faults, stop, and a late double of an arm',
    steps: [
      { atUs: 1_000_100, message: hello },
      { atUs: 1_000_200, message: beat(1, true, 5) },
      { atUs: 1_000_300, message: arm(1, 5) },
      {
        atUs: 1_000_400,
        message: { kind: 'setpoints', commandId: 2, motionEpoch: 5, positionRad: F32(0.5, -0.5, 0.25) },
      },
      { atUs: 1_000_500, message: { kind: 'setpoints', commandId: 3, motionEpoch: 5, positionRad: F32(9, 0, 0) } },
      { atUs: 1_000_600, message: { kind: 'hold', commandId: 4 } },
      { atUs: 1_000_700, message: { kind: 'release', commandId: 5, bootNonce: BENCH_BOOT_NONCE, motionEpoch: 6 } },
      { atUs: 1_000_800, message: { kind: 'set_rate', commandId: 6, stream: 'imu', rateHz: 100 } },
      { atUs: 1_000_900, message: { kind: 'set_rate', commandId: 7, stream: 'imu', rateHz: 2000 } },
      { atUs: 1_001_000, message: { kind: 'fault', commandId: 8, fault: 'overheat', joint: 0, value: 0 } },
      { atUs: 1_001_100, message: { kind: 'stop', commandId: 10 } },
      { atUs: 1_001_200, message: arm(9, 6) },
    ],
  },
  {
    name: 'estop',
    description: 'the emergency stop while moving, and arming while it is pressed',
    steps: [
      { atUs: 1_000_100, message: hello },
      { atUs: 1_000_200, message: beat(1, true, 5) },
      { atUs: 1_000_300, message: arm(1, 5) },
      { atUs: 1_010_000, estop: 'on' },
      { atUs: 1_010_100, message: arm(2, 6) },
      { atUs: 1_020_000, estop: 'off' },
      { atUs: 1_120_000, message: beat(2, false, 5) },
      { atUs: 1_120_100, message: arm(3, 6) },
    ],
  },
];
