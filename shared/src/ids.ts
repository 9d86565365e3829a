import { randomBytes, randomUUID } from 'node:crypto';
import { ulid } from 'ulid';

/** Robot ids are also one half of a certificate's common name (64 characters at most, RFC 5280 ub-common-name). */
export const ROBOT_ID_PATTERN = /^[A-Za-z0-9_-]{1,43}$/;
export const TENANT_ID_PATTERN = /^[a-z0-9-]{1,20}$/;
const DEVICE_NAME_PATTERN = /^([a-z0-9-]{1,20})\.([A-Za-z0-9_-]{1,43})$/;
const REQUEST_ID_PATTERN = /^[A-Za-z0-9._-]{1,128}$/;

/** A robot seen from outside its tenant. */
export interface DeviceIdentity {
  readonly tenantId: string;
  readonly robotId: string;
}

/**
 * The name a robot has on MQTT: certificate common name, client id and topic level at once.
 * Neither half may hold a dot, so the two can always be told apart.
 */
export const deviceName = (id: DeviceIdentity): string => `${id.tenantId}.${id.robotId}`;

/** Reads a device name back; `undefined` when the text is not one. */
export function parseDeviceName(text: string): DeviceIdentity | undefined {
  const match = DEVICE_NAME_PATTERN.exec(text);
  return match?.[1] && match[2] ? { tenantId: match[1], robotId: match[2] } : undefined;
}

/** Random bytes drawn in bulk: ulid's own source asks the system once per character, which costs 20 µs an id. */
let pool = randomBytes(0);
let poolAt = 0;

/** Each is given once, and no copy of it stays here. */
function takeRandom(count: number): Buffer {
  if (poolAt + count > pool.length) {
    pool = randomBytes(4096);
    poolAt = 0;
  }
  const place = pool.subarray(poolAt, poolAt + count);
  poolAt += count;
  const taken = Buffer.from(place);
  place.fill(0);
  return taken;
}

function nextRandom(): number {
  if (poolAt >= pool.length) return (takeRandom(1)[0] as number) / 256;
  const byte = pool[poolAt] as number;
  poolAt += 1;
  return byte / 256;
}

/** A new id that sorts by time: `evt_01J…`. */
export const newId = (prefix: string): string => `${prefix}_${ulid(undefined, nextRandom)}`;

/** The caller's request id when it is usable, else a new one. It is the trace id of all that follows. */
export const requestIdOr = (given: string | undefined): string =>
  given && REQUEST_ID_PATTERN.test(given) ? given : newId('req');

/** A new random 64-bit epoch of an outbox database, as 16 hexadecimal digits. */
export const newEpoch = (): string => randomBytes(8).toString('hex');

/** A secret for a person or a program to keep: 256 random bits behind a prefix that scanners can find. */
export const newSecret = (prefix: string): string => `${prefix}${takeRandom(32).toString('base64url')}`;

/** A random id where order must not show. */
export const newUuid = (): string => randomUUID();
