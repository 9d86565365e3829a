const DEPTH_MAX = 32;

/** Why PostgreSQL could not hold this text as it is; `undefined` when it can. */
export function textProblem(text: string, charactersMax: number): string | undefined {
  if (text === '') return 'is empty';
  if (text.length > charactersMax) return `has more than ${charactersMax} characters`;
  if (text.includes('\0')) return 'holds a NUL character';
  if (!isWellFormed(text)) return 'holds half a surrogate pair';
  return undefined;
}

/**
 * Why PostgreSQL could not hold this JSON text as jsonb; `undefined` when it can. Each of these fails a whole
 * batch there, so they are found here, record by record.
 */
export function jsonProblem(text: string): string | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return 'is not JSON';
  }
  return valueProblem(value, 0);
}

function valueProblem(value: unknown, depth: number): string | undefined {
  if (depth > DEPTH_MAX) return `is nested deeper than ${DEPTH_MAX} levels`;
  if (typeof value === 'string') {
    if (value.includes('\0')) return 'holds a NUL character';
    return isWellFormed(value) ? undefined : 'holds half a surrogate pair';
  }
  // JSON.parse reads 1e400 as Infinity.
  if (typeof value === 'number') return Number.isFinite(value) ? undefined : 'holds a number that is too large';
  if (typeof value !== 'object' || value === null) return undefined;
  for (const [key, child] of Object.entries(value)) {
    const problem = valueProblem(key, depth) ?? valueProblem(child, depth + 1);
    if (problem) return problem;
  }
  return undefined;
}

/** String.prototype.isWellFormed, which this language level does not declare. */
const isWellFormed = (text: string): boolean =>
  !/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/.test(text);
