import type { PlaceSignals } from './classify-signals.ts';
import type { Reading, Verdict } from './state.ts';

/** The area that the robot must not leave. */
export interface Geofence {
  /** `map`: corners are x y [m]. `wgs84`: latitude longitude [deg]. */
  readonly frame: 'map' | 'wgs84';
  readonly corners: readonly (readonly [number, number])[];
  /** How far inside it must be to be let go. [m] */
  readonly marginM: number;
}

/** What the reducer allows now. */
export interface Gate {
  readonly isOpen: boolean;
  /** Armed outside, to move back. */
  readonly isReturning: boolean;
}

const EARTH_RADIUS_M = 6_371_008.8;
/** How far a position may waver while the robot does not move outwards. [m] */
const WAVER_M = 0.05;
/** Further away the flat map of a fence is wrong, and so is the position. [m] */
const DISTANCE_M_MAX = 100_000;
/** Over which the speed of a return is measured, so that wavering is not speed. [ms] */
const SPEED_WINDOW_MS = 500;

type Point = readonly [number, number];

/** Signed distance to the edge of a polygon: positive inside. [m] */
export function insideM(corners: readonly Point[], [x, y]: Point): number {
  let nearestM = Number.POSITIVE_INFINITY;
  let isInside = false;
  corners.forEach(([ax, ay], i) => {
    const [bx, by] = corners[(i + 1) % corners.length] as Point;
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) isInside = !isInside;
    const lengthSquared = (bx - ax) ** 2 + (by - ay) ** 2;
    // A corner that is there twice is an edge without length.
    const along = ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / (lengthSquared || 1);
    const part = Math.max(0, Math.min(1, along));
    nearestM = Math.min(nearestM, Math.hypot(x - ax - part * (bx - ax), y - ay - part * (by - ay)));
  });
  return isInside ? nearestM : -nearestM;
}

/** Metres east of the fence's first corner and north of the equator; good to a millimetre over a kilometre. */
function flatten([latitude, longitude]: Point, [latitude0, longitude0]: Point): Point {
  const turnDeg = longitude - longitude0;
  // The short way round.
  const eastDeg = turnDeg - 360 * Math.round(turnDeg / 360);
  const rad = Math.PI / 180;
  return [eastDeg * rad * EARTH_RADIUS_M * Math.cos(latitude0 * rad), latitude * rad * EARTH_RADIUS_M];
}

/** Where one source of positions has seen the robot. */
export class PlaceHistory {
  /** How far inside it was at its best since it began to move back. [m] */
  #bestM: number | undefined;
  #from: { readonly atMs: number; readonly point: Point } | undefined;

  reading(
    stream: string,
    place: PlaceSignals,
    atMs: number,
    fence: Geofence,
    gate: Gate,
    inwardSpeedMaxMps: number,
  ): Reading {
    const base = { cause: 'geofence_lock', channel: stream } as const;
    const point = pointOf(place, fence);
    if (typeof point === 'string') return { ...base, verdict: 'unknown', detail: point };
    const origin = fence.corners[0] as Point;
    const corners = fence.frame === 'map' ? fence.corners : fence.corners.map((corner) => flatten(corner, origin));
    const distanceM = insideM(corners, point);
    if (distanceM < -DISTANCE_M_MAX)
      return { ...base, verdict: 'unknown', detail: 'the position is far from the fence' };
    const words = distanceM < 0 ? `${(-distanceM).toFixed(2)} m outside` : `${distanceM.toFixed(2)} m inside`;
    const speedMps = this.#speedMps(atMs, point);
    if (!gate.isReturning) this.#bestM = undefined;
    this.#bestM = Math.max(this.#bestM ?? distanceM, distanceM);
    const verdict = verdictOf(distanceM, fence.marginM, gate, this.#bestM, speedMps > inwardSpeedMaxMps * 1.5);
    return { ...base, verdict, detail: verdict === 'severe' ? `${words}, not moving inwards slowly` : words };
  }

  #speedMps(atMs: number, point: Point): number {
    this.#from ??= { atMs, point };
    const spanMs = atMs - this.#from.atMs;
    if (spanMs < SPEED_WINDOW_MS) return 0;
    const { point: from } = this.#from;
    this.#from = { atMs, point };
    return (Math.hypot(point[0] - from[0], point[1] - from[1]) / spanMs) * 1000;
  }
}

function verdictOf(distanceM: number, marginM: number, gate: Gate, bestM: number, isFast: boolean): Verdict {
  if (distanceM >= marginM) return 'clear';
  if (gate.isOpen && gate.isReturning) return isFast || distanceM < bestM - WAVER_M ? 'severe' : 'fair';
  // With the gate closed being outside is known and holds: a recovery may then move inwards.
  return distanceM < 0 && gate.isOpen ? 'bad' : 'fair';
}

/** The point in the plane of the fence, or why there is none. */
function pointOf({ frame, at }: PlaceSignals, fence: Geofence): Point | string {
  if (frame !== fence.frame) return `the position is in '${frame}', the fence in '${fence.frame}'`;
  const [first = Number.NaN, second = Number.NaN] = Array.from(at);
  if (!Number.isFinite(first) || !Number.isFinite(second)) return `position ${first} ${second}`;
  if (fence.frame === 'map') return [first, second];
  // 0 0 is what a receiver without a fix says.
  if (Math.abs(first) > 90 || Math.abs(second) > 180 || (first === 0 && second === 0))
    return `position ${first} ${second}`;
  return flatten([first, second], fence.corners[0] as Point);
}
