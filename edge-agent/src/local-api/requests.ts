import { DomainError, type FieldProblem } from '@outrider/shared/errors';
import { COMM_POLICIES } from '@outrider/shared/failsafe/classify-agent';
import { FAILSAFE_MODES, type FailsafeMode } from '@outrider/shared/failsafe/modes';
import type { CommWish } from '../agent/mission.ts';

/**
 * Checks of what the local API is sent, by hand: three small bodies are not worth a schema library in the memory of a
 * process that runs for months.
 */
class Fields {
  readonly #body: ReadonlyMap<string, unknown>;
  readonly #known: readonly string[];
  readonly #problems: FieldProblem[] = [];

  constructor(body: unknown, known: readonly string[]) {
    const isObject = typeof body === 'object' && body !== null && !Array.isArray(body);
    this.#body = new Map(isObject ? Object.entries(body) : []);
    this.#known = known;
    if (!isObject) this.#problems.push({ field: 'body', reason: 'must be a JSON object' });
  }

  text(field: string, charactersMax: number, byDefault?: string): string {
    const value = this.#body.get(field) ?? byDefault;
    if (typeof value === 'string' && value.length <= charactersMax) return value;
    this.#problems.push({ field, reason: `must be a text of at most ${charactersMax} characters` });
    return '';
  }

  oneOf<T extends string>(field: string, words: readonly T[]): T {
    const found = words.find((word) => word === this.#body.get(field));
    if (found === undefined) this.#problems.push({ field, reason: `must be one of ${words.join(', ')}` });
    return found ?? (words[0] as T);
  }

  count(field: string, byDefault?: number): number {
    const value = this.#body.get(field) ?? byDefault;
    if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value;
    this.#problems.push({ field, reason: 'must be a whole number from 0' });
    return 0;
  }

  /** @throws DomainError `invalid` with every problem. */
  check(): void {
    for (const field of this.#body.keys())
      if (!this.#known.includes(field))
        this.#problems.push({ field, reason: `is not one of ${this.#known.join(', ')}` });
    const problems = this.#problems;
    if (problems.length === 0) return;
    const words = problems.map(({ field, reason }) => `${field}: ${reason}`).join('; ');
    throw new DomainError('invalid', words, { problems });
  }
}

/** Body of `POST /failsafe/trigger`. @throws DomainError `invalid`. */
export function triggerRequest(body: unknown): { mode: FailsafeMode; reason: string; requestedBy: string } {
  const fields = new Fields(body, ['mode', 'reason', 'requested_by']);
  const mode = fields.oneOf('mode', FAILSAFE_MODES);
  const reason = fields.text('reason', 1024, 'local request');
  const requestedBy = fields.text('requested_by', 256, 'local');
  fields.check();
  return { mode, reason, requestedBy };
}

/** Body of `POST /failsafe/recover`. @throws DomainError `invalid`. */
export function recoverRequest(body: unknown): { latchId: number; nonce: string; requestedBy: string } {
  const fields = new Fields(body, ['latch_id', 'nonce', 'requested_by']);
  const latchId = fields.count('latch_id');
  const nonce = fields.text('nonce', 256);
  const requestedBy = fields.text('requested_by', 256, 'local');
  fields.check();
  return { latchId, nonce, requestedBy };
}

/** Body of `PUT /mission`. @throws DomainError `invalid`. */
export function missionRequest(body: unknown): CommWish {
  const fields = new Fields(body, ['comm_policy', 'comm_max_ms']);
  const policy = fields.oneOf('comm_policy', COMM_POLICIES);
  const maxMs = fields.count('comm_max_ms', 0);
  fields.check();
  return { policy, maxMs };
}

/** `after` of `GET /outbox/telemetry`. @throws DomainError `invalid`. */
export function pageRequest(after: string | undefined): number {
  const value = Number(after ?? '0');
  const fields = new Fields({ after: value }, ['after']);
  fields.count('after');
  fields.check();
  return value;
}
