import { DomainError } from '@outrider/shared/errors';
import { newSecret, ROBOT_ID_PATTERN } from '@outrider/shared/ids';
import type { RobotDescriptor } from '@outrider/shared/robot';
import type { Clock } from '@outrider/shared/time';
import { type Principal, requireRobot } from '../identity/principal.ts';
import { fingerprint } from '../identity/secrets.ts';
import type { AuditTrail, FleetStore } from './ports.ts';
import type { Robot, RobotFilter, RobotPage, RobotRef } from './robot.ts';
import type { RobotRoster } from './roster.ts';

const REF_CACHE_MS = 30_000;
const CACHE_ENTRIES_MAX = 100_000;
/** How long the database may take to say where a robot is that is known here already. */
const PATIENCE_MS = 1_000;

/** The robots of each tenant: registering and finding them. */
export class RobotRegistry {
  readonly #store: FleetStore;
  readonly #audit: AuditTrail;
  readonly #clock: Clock;
  readonly #roster: RobotRoster;
  readonly #refs = new Map<string, { ref: RobotRef; untilMs: number }>();

  constructor(store: FleetStore, audit: AuditTrail, clock: Clock, roster: RobotRoster) {
    this.#store = store;
    this.#audit = audit;
    this.#clock = clock;
    this.#roster = roster;
  }

  /**
   * Takes a robot into the fleet. Used by: POST /v1/robots.
   *
   * @returns its API key, which cannot be read again.
   */
  async register(
    principal: Principal,
    descriptor: RobotDescriptor,
    requestId: string,
  ): Promise<{ ref: RobotRef; apiKey: string; registeredAtMs: number }> {
    requireRobot(principal, descriptor.robotId);
    const apiKey = newSecret('wia_sk_live_');
    const registeredAtMs = this.#clock.epochMs();
    const ref = await this.#store.addRobot(principal.tenantId, descriptor, fingerprint(apiKey), registeredAtMs);
    if (!ref) {
      throw new DomainError('already_exists', `a robot '${descriptor.robotId}' is registered already`, {
        subject: 'robot',
        details: { robot_id: descriptor.robotId },
      });
    }
    this.#remember(ref);
    await this.#audit.append({
      tenantId: principal.tenantId,
      subject: principal.sub,
      action: 'robot.register',
      outcome: 'done',
      requestId,
      details: { robot_id: descriptor.robotId },
      atMs: registeredAtMs,
    });
    return { ref, apiKey, registeredAtMs };
  }

  /**
   * Finds a robot of the principal's tenant. A robot of another tenant does not exist.
   *
   * When the database fails or is slow, a robot that is known here is still found.
   *
   * @throws DomainError `not_found` (subject `robot`) or `forbidden`; `unavailable` when the database does not answer.
   */
  async find(principal: Principal, robotId: string): Promise<RobotRef> {
    requireRobot(principal, robotId);
    const key = `${principal.tenantId}.${robotId}`;
    const cached = this.#refs.get(key);
    if (cached && cached.untilMs > this.#clock.monotonicMs()) return cached.ref;
    if (!ROBOT_ID_PATTERN.test(robotId)) throw noSuchRobot(robotId);
    const known = this.#roster.find(principal.tenantId, robotId) ?? cached?.ref;
    const asked = this.#store.findRobot(principal.tenantId, robotId);
    let ref: RobotRef | undefined;
    try {
      ref = await (known ? within(asked, PATIENCE_MS) : asked);
    } catch (cause) {
      if (known) return known;
      throw new DomainError('unavailable', 'the database does not answer', { cause, retryAfterS: 1 });
    }
    if (!ref) {
      this.#refs.delete(key);
      this.#roster.forget(principal.tenantId, robotId);
      throw noSuchRobot(robotId);
    }
    this.#remember(ref);
    return ref;
  }

  /**
   * Finds a robot for a stop: in memory when it is known here, however old that knowledge is. A stop waits for no
   * database, and one for a robot that has just left the fleet harms nobody.
   *
   * @throws what `find` throws, for a robot that is not known here.
   */
  async locate(principal: Principal, robotId: string): Promise<RobotRef> {
    requireRobot(principal, robotId);
    const known = this.#roster.find(principal.tenantId, robotId);
    return known ?? this.find(principal, robotId);
  }

  /** @throws DomainError `not_found` or `forbidden` */
  async read(principal: Principal, robotId: string): Promise<Robot> {
    requireRobot(principal, robotId);
    const robot = ROBOT_ID_PATTERN.test(robotId) ? await this.#store.readRobot(principal.tenantId, robotId) : undefined;
    if (!robot) throw noSuchRobot(robotId);
    return robot;
  }

  async list(principal: Principal, filter: Omit<RobotFilter, 'robotIds'>): Promise<RobotPage> {
    return this.#store.listRobots(principal.tenantId, { ...filter, robotIds: principal.robotIds });
  }

  /** Forgets a robot that has left the fleet. Other replicas do within 30 s. */
  forget(ref: RobotRef): void {
    this.#refs.delete(`${ref.tenantId}.${ref.robotId}`);
    this.#roster.forget(ref.tenantId, ref.robotId);
  }

  #remember(ref: RobotRef): void {
    if (this.#refs.size >= CACHE_ENTRIES_MAX) this.#refs.clear();
    this.#refs.set(`${ref.tenantId}.${ref.robotId}`, { ref, untilMs: this.#clock.monotonicMs() + REF_CACHE_MS });
    this.#roster.note(ref);
  }
}

/** What comes in time. @throws when it does not. */
async function within<T>(work: Promise<T>, limitMs: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${limitMs} ms`)), limitMs);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** The same words for a robot that is not there and for one that is another tenant's. */
export const noSuchRobot = (robotId: string): DomainError =>
  new DomainError('not_found', `Robot with ID '${robotId.slice(0, 64)}' not found`, {
    subject: 'robot',
    details: { robot_id: robotId.slice(0, 64) },
  });
