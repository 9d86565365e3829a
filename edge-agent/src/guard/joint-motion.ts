import { type CommandJointLimits, JOINT_SPEED_DEFAULT_RADPS, type JointTarget } from '@outrider/shared/command';

/** Samples in a row that must be at the target: one may be noise on the way through it. */
const ARRIVED_SAMPLES = 3;
/** Part of a joint's speed limit that a command uses when it says nothing, and at most. */
const SPEED_SHARE_DEFAULT = 0.5;
const SPEED_SHARE_MAX = 0.9;

/** A motion of some joints from where they were to where they are to be. Pure: time and measurements are given to it. */
export class JointMotion {
  readonly #names: readonly string[];
  readonly #start: Float64Array;
  readonly #goal: Float64Array;
  readonly #speedRadps: Float64Array;
  readonly #setpoint: Float64Array;
  /** Places of the joints that were named. */
  readonly #moved: readonly number[];
  readonly #toleranceRad: number;
  #arrived = 0;
  #measured: Float64Array;

  /**
   * @param from Setpoints or measured positions of all joints; those that no target names stay there.
   * @param measured Where the joints are.
   */
  constructor(
    names: readonly string[],
    from: Float64Array,
    measured: Float64Array,
    targets: readonly JointTarget[],
    limitsOf: (name: string) => CommandJointLimits | undefined,
    toleranceRad: number,
  ) {
    this.#names = names;
    this.#toleranceRad = toleranceRad;
    this.#goal = Float64Array.from(from);
    this.#setpoint = Float64Array.from(from);
    this.#speedRadps = new Float64Array(names.length);
    this.#moved = targets.map(({ name }) => names.indexOf(name));
    for (const [i, { name, positionRad, velocityMaxRadps }] of targets.entries()) {
      const place = this.#moved[i] ?? 0;
      const limit = limitsOf(name)?.velocityMaxRadps ?? Number.POSITIVE_INFINITY;
      this.#goal[place] = positionRad;
      // From where it is: a setpoint that it never followed would make it jump.
      this.#setpoint[place] = measured[place] ?? 0;
      this.#speedRadps[place] = Math.min(
        velocityMaxRadps ?? Math.min(JOINT_SPEED_DEFAULT_RADPS, SPEED_SHARE_DEFAULT * limit),
        SPEED_SHARE_MAX * limit,
      );
    }
    this.#start = Float64Array.from(this.#setpoint);
    this.#measured = measured;
  }

  /** What to tell the microcontroller after some time more. @param speedFactor What of its speed the robot may use. */
  step(elapsedS: number, speedFactor: number): Float64Array {
    for (const place of this.#moved) {
      const now = this.#setpoint[place] ?? 0;
      const left = (this.#goal[place] ?? 0) - now;
      const reach = (this.#speedRadps[place] ?? 0) * speedFactor * elapsedS;
      this.#setpoint[place] = now + Math.min(reach, Math.max(-reach, left));
    }
    return Float64Array.from(this.#setpoint);
  }

  /** Whether the last setpoint is the goal. */
  get isCommanded(): boolean {
    return this.#moved.every((place) => this.#setpoint[place] === this.#goal[place]);
  }

  /** Takes a measurement. @returns Whether the joints are where they should be, and have been for a moment. */
  measure(positionRad: Float64Array): boolean {
    this.#measured = positionRad;
    this.#arrived = this.isCommanded && this.#errorRad() <= this.#toleranceRad ? this.#arrived + 1 : 0;
    return this.#arrived >= ARRIVED_SAMPLES;
  }

  /** How much of the longest way is done, 0 to 1, as measured. */
  get progress(): number {
    let whole = 0;
    let left = 0;
    for (const place of this.#moved) {
      whole = Math.max(whole, Math.abs((this.#goal[place] ?? 0) - (this.#start[place] ?? 0)));
      left = Math.max(left, this.#errorAt(place));
    }
    return whole === 0 ? 1 : Math.min(1, Math.max(0, 1 - left / whole));
  }

  /** The joint that is furthest from its target, for a person. */
  get furthest(): string {
    const place = this.#moved.reduce((worst, next) => (this.#errorAt(next) > this.#errorAt(worst) ? next : worst));
    return `${this.#names[place]} is ${this.#errorAt(place).toFixed(3)} rad from its target`;
  }

  #errorRad(): number {
    return Math.max(...this.#moved.map((place) => this.#errorAt(place)));
  }

  /** NaN measures as infinitely far. */
  #errorAt(place: number): number {
    const error = Math.abs((this.#measured[place] ?? Number.NaN) - (this.#goal[place] ?? 0));
    return Number.isNaN(error) ? Number.POSITIVE_INFINITY : error;
  }
}
