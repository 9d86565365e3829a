import { DomainError } from '@outrider/shared/errors';
import { STREAM_KINDS, type StreamKind } from '@outrider/shared/telemetry';

/** Types of message that a client can choose from. */
export const LIVE_TYPES = ['telemetry', 'event', 'state', 'presence', 'alert'] as const;
export type LiveType = (typeof LIVE_TYPES)[number];

/** Most robots that one stream can name; without naming any it gets all. */
export const ROBOTS_MAX = 100;
/** Telemetry of a stream comes at most this often. */
export const RATE_HZ_MAX = 10;

/** What one stream brings. */
export interface StreamFilter {
  readonly tenantId: string;
  /** Absent: all robots of the tenant. */
  readonly robotIds?: readonly string[];
  /** Kinds of telemetry; absent: all. */
  readonly kinds?: readonly StreamKind[];
  /** Types of message; absent: all. */
  readonly include?: readonly LiveType[];
  /** Telemetry of one stream comes at most this often. Absent: RATE_HZ_MAX. */
  readonly maxRateHz?: number;
}

/** What a client asks for, before anybody looked at it. */
export interface StreamWish {
  readonly robotIds?: readonly string[] | undefined;
  readonly kinds?: readonly string[] | undefined;
  readonly include?: readonly string[] | undefined;
  readonly maxRateHz?: number | undefined;
}

/** Reads a wish. Whether its robots exist is for the caller to see to. @throws DomainError `invalid` */
export function readWish(wish: StreamWish): Omit<StreamFilter, 'tenantId'> {
  const { robotIds, kinds, include, maxRateHz } = wish;
  if (robotIds && robotIds.length > ROBOTS_MAX) throw refuse('robot_id', `must name at most ${ROBOTS_MAX} robots`);
  if (maxRateHz !== undefined && !(maxRateHz > 0 && maxRateHz <= RATE_HZ_MAX))
    throw refuse('max_rate_hz', `must be above 0 and at most ${RATE_HZ_MAX}`);
  return {
    ...(robotIds ? { robotIds: [...new Set(robotIds)].sort() } : {}),
    ...(kinds ? { kinds: among('kind', kinds, STREAM_KINDS) } : {}),
    ...(include ? { include: among('include', include, LIVE_TYPES) } : {}),
    ...(maxRateHz === undefined ? {} : { maxRateHz }),
  };
}

function among<T extends string>(field: string, words: readonly string[], known: readonly T[]): T[] {
  if (words.some((word) => !known.some((each) => each === word)))
    throw refuse(field, `must be among ${known.join(', ')}`);
  return known.filter((each) => words.includes(each));
}

const refuse = (field: string, reason: string): DomainError =>
  new DomainError('invalid', `${field} ${reason}`, { problems: [{ field, reason }] });
