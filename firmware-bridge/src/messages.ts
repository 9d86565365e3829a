import type { Frame } from './frame.ts';
import {
  ByteReader,
  ByteWriter,
  bool,
  type Codec,
  f32,
  floatList,
  floats,
  oneOf,
  struct,
  text,
  textList,
  u8,
  u16,
  u32,
  u64,
  type ValueOf,
  WireError,
} from './wire.ts';

/** Where the MCU stands. Only ARMED moves. [FB-20] */
export const MCU_STATES = ['DISARMED', 'ARMED', 'HOLD', 'STOPPED'] as const;
export type McuState = (typeof MCU_STATES)[number];

/** Why the MCU is not moving. Stays until the next ARM. [FB-21] */
export const STOP_REASONS = [
  'none',
  'boot',
  'host_stop',
  'lease_expired',
  'gate_closed',
  'epoch_changed',
  'host_changed',
  'estop',
] as const;
export type StopReason = (typeof STOP_REASONS)[number];

/** Why a command was refused. `none` stands in an ACK. [FB-17] */
export const NACK_REASONS = [
  'none',
  'bad_state',
  'bad_nonce',
  'no_lease',
  'estop_pressed',
  'bad_payload',
  'unknown_type',
  'not_supported',
  'stale_command',
  'bad_epoch',
  'rate_too_high',
  'gate_closed',
  'out_of_range',
  'no_session',
] as const;
export type NackReason = (typeof NACK_REASONS)[number];

/** Telemetry that has a rate of its own, in the order of HELLO's rates. */
export const TELEMETRY_STREAMS = ['joints', 'imu', 'power', 'temperature', 'status'] as const;
export type TelemetryStream = (typeof TELEMETRY_STREAMS)[number];

/** Faults that a build with OUTRIDER_FAULTS can be told to show. [FB-26] */
export const FAULT_KINDS = [
  'clear',
  'overheat',
  'freeze',
  'limit',
  'nan',
  'estop',
  'drop',
  'corrupt',
  'silent',
  'reset',
] as const;
export type FaultKind = (typeof FAULT_KINDS)[number];

/** Bits of the capabilities in HELLO. */
export const CAPABILITIES = { hold: 1, setpoints: 2, setRate: 4, estopInput: 8, faults: 16 } as const;

/** Bits of the flags in STATUS. [FB-22] */
export const MCU_FLAGS = {
  estopPressed: 1 << 0,
  leaseFresh: 1 << 1,
  gateOpen: 1 << 2,
  motionEnabled: 1 << 3,
  /** A fault was injected and is not cleared. */
  faultInjected: 1 << 4,
  motorHot: 1 << 5,
  jointLimit: 1 << 6,
  /** A sensor gives NaN or infinity. */
  sensorInvalid: 1 << 7,
  /** A telemetry frame was dropped since boot because the line was full. */
  txOverrun: 1 << 8,
  sessionOpen: 1 << 9,
} as const;
export type McuFlag = keyof typeof MCU_FLAGS;

/** Names of the set bits, in the order of their values. */
export const mcuFlagNames = (flags: number): McuFlag[] =>
  (Object.keys(MCU_FLAGS) as McuFlag[]).filter((name) => (flags & MCU_FLAGS[name]) !== 0);

interface Joints {
  readonly mcuUs: number;
  readonly positionRad: Float64Array;
  readonly velocityRadps: Float64Array;
  readonly torqueNm: Float64Array;
  readonly temperatureC: Float64Array;
}

/** MCU time and count, then four columns of `count` values. [FB-11] */
const joints: Codec<Joints> = {
  read: (r) => {
    const mcuUs = u64.read(r);
    const column = floats(u8.read(r));
    return {
      mcuUs,
      positionRad: column.read(r),
      velocityRadps: column.read(r),
      torqueNm: column.read(r),
      temperatureC: column.read(r),
    };
  },
  write: (w, value) => {
    u64.write(w, value.mcuUs);
    u8.write(w, value.positionRad.length);
    const column = floats(value.positionRad.length);
    for (const values of [value.positionRad, value.velocityRadps, value.torqueNm, value.temperatureC]) {
      column.write(w, values);
    }
  },
};

const state = oneOf(MCU_STATES);
const answer = struct({
  mcuUs: u64,
  commandId: u32,
  /** Type number of the command that is answered. */
  commandType: u8,
  /** The state after it. */
  state,
  reason: oneOf(NACK_REASONS),
});

/**
 * Every message: its type number and its payload. The order of the fields is their order on the line; PROTOCOL.md
 * says the same in words. Host to MCU is below 0x80, MCU to host above.
 */
const LAYOUTS = {
  host_hello: { type: 0x01, payload: struct({ session: u32, hostMonoUs: u64, baud: u32, frameBytesMax: u16 }) },
  heartbeat: { type: 0x02, payload: struct({ counter: u32, gateOpen: bool, motionEpoch: u64, hostMonoUs: u64 }) },
  stop: { type: 0x03, payload: struct({ commandId: u32 }) },
  hold: { type: 0x04, payload: struct({ commandId: u32 }) },
  arm: { type: 0x05, payload: struct({ commandId: u32, bootNonce: u32, motionEpoch: u64 }) },
  release: { type: 0x06, payload: struct({ commandId: u32, bootNonce: u32, motionEpoch: u64 }) },
  setpoints: { type: 0x07, payload: struct({ commandId: u32, motionEpoch: u64, positionRad: floatList }) },
  set_rate: { type: 0x08, payload: struct({ commandId: u32, stream: oneOf(TELEMETRY_STREAMS), rateHz: u16 }) },
  fault: { type: 0x0f, payload: struct({ commandId: u32, fault: oneOf(FAULT_KINDS), joint: u8, value: f32 }) },
  mcu_hello: {
    type: 0x81,
    payload: struct({
      mcuUs: u64,
      /** The session that is answered; 0 when the MCU speaks first, at boot. */
      session: u32,
      /** The host's time out of the HELLO that is answered; 0 at boot. */
      hostMonoUs: u64,
      bootNonce: u32,
      state,
      stopReason: oneOf(STOP_REASONS),
      capabilities: u32,
      frameBytesMax: u16,
      leaseMs: u16,
      jointsHz: u16,
      imuHz: u16,
      powerHz: u16,
      temperatureHz: u16,
      statusHz: u16,
      firmware: text,
      jointNames: textList,
      sensorNames: textList,
    }),
  },
  heartbeat_echo: {
    type: 0x82,
    payload: struct({ mcuUs: u64, counter: u32, hostMonoUs: u64, state, fresh: bool }),
  },
  ack: { type: 0x83, payload: answer },
  nack: { type: 0x84, payload: answer },
  joints: { type: 0x90, payload: joints },
  imu: {
    type: 0x91,
    payload: struct({
      mcuUs: u64,
      /** x y z w. */
      orientation: floats(4),
      angularVelocityRadps: floats(3),
      linearAccelerationMps2: floats(3),
    }),
  },
  power: { type: 0x92, payload: struct({ mcuUs: u64, voltageV: f32, currentA: f32, stateOfCharge: f32, drawW: f32 }) },
  temperature: { type: 0x93, payload: struct({ mcuUs: u64, temperatureC: floatList }) },
  status: {
    type: 0x94,
    payload: struct({
      mcuUs: u64,
      uptimeMs: u64,
      bootNonce: u32,
      flags: u32,
      state,
      stopReason: oneOf(STOP_REASONS),
      motionEpoch: u64,
      /** Since the last fresh heartbeat; 2^32 - 1 when there was none. [ms] */
      leaseAgeMs: u32,
      rxFramesOk: u32,
      rxCrcBad: u32,
      rxCobsBad: u32,
      rxOversize: u32,
      rxMalformed: u32,
      rxLost: u32,
      heartbeatsStale: u32,
      txDropped: u32,
    }),
  },
} as const;

export type MessageKind = keyof typeof LAYOUTS;
export type MessageOf<K extends MessageKind> = { readonly kind: K } & ValueOf<(typeof LAYOUTS)[K]['payload']>;
/** Anything that can stand on the line, decoded. */
export type Message = { [K in MessageKind]: MessageOf<K> }[MessageKind];
export type McuHello = MessageOf<'mcu_hello'>;
export type McuStatus = MessageOf<'status'>;
export type HeartbeatEcho = MessageOf<'heartbeat_echo'>;

export const MESSAGE_KINDS = Object.keys(LAYOUTS) as MessageKind[];
/** Type number of a message kind. */
export const typeNumberOf = (kind: MessageKind): number => LAYOUTS[kind].type;

const KIND_BY_TYPE = new Map<number, MessageKind>(MESSAGE_KINDS.map((kind) => [LAYOUTS[kind].type, kind]));
const codecOf = (kind: MessageKind): Codec<object> => LAYOUTS[kind].payload as Codec<object>;

export type DecodeOutcome =
  | { readonly kind: 'message'; readonly message: Message }
  | { readonly kind: 'unknown_type'; readonly type: number }
  | { readonly kind: 'malformed'; readonly type: number; readonly reason: string };

/** Reads a frame's payload. A frame that passed its CRC can still be wrong: a newer or a broken sender. [FB-10] */
export function decodeMessage(frame: Frame): DecodeOutcome {
  const kind = KIND_BY_TYPE.get(frame.type);
  if (kind === undefined) return { kind: 'unknown_type', type: frame.type };
  const reader = new ByteReader(frame.payload);
  try {
    const fields = codecOf(kind).read(reader);
    reader.end();
    return { kind: 'message', message: { kind, ...fields } as Message };
  } catch (error) {
    if (!(error instanceof WireError)) throw error;
    return { kind: 'malformed', type: frame.type, reason: `${kind} ${error.message}` };
  }
}

/** Type number and payload of a message. @throws WireError when a field cannot stand on the line. */
export function encodeMessage(message: Message): { type: number; payload: Uint8Array } {
  const writer = new ByteWriter();
  codecOf(message.kind).write(writer, message);
  return { type: typeNumberOf(message.kind), payload: writer.finish() };
}
