import type { z } from '@hono/zod-openapi';
import { DomainError, type FieldProblem } from '@outrider/shared/errors';

const PROBLEMS_MAX = 20;

/**
 * Checks decoded input against a schema.
 *
 * @param whole What to call the input when it is wrong as a whole: `body`, `query`.
 * @throws DomainError `invalid` that names every wrong field as the caller wrote it: `joint_state[0].position`.
 */
export function validate<S extends z.ZodType>(schema: S, input: unknown, whole: string): z.output<S> {
  const result = schema.safeParse(input);
  if (result.success) return result.data;
  const problems = result.error.issues.flatMap((issue) => problemsOf(issue, input, whole)).slice(0, PROBLEMS_MAX);
  const [first] = problems;
  throw new DomainError('invalid', first ? sentence(first) : `${whole} is not valid`, { problems });
}

const sentence = ({ field, reason }: FieldProblem): string =>
  reason === 'missing' ? `${field} is required` : `${field} ${reason}`;

function problemsOf(issue: z.core.$ZodIssue, input: unknown, whole: string): FieldProblem[] {
  const field = pathText(issue.path) || whole;
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => ({
      field: pathText([...issue.path, key.slice(0, 64)]),
      reason: 'is not a known field',
    }));
  }
  if (valueAt(input, issue.path) === undefined && issue.path.length > 0) return [{ field, reason: 'missing' }];
  return [{ field, reason: reasonOf(issue) }];
}

function reasonOf(issue: z.core.$ZodIssue): string {
  if (issue.code === 'invalid_type') return `must be ${/^[aeiou]/.test(issue.expected) ? 'an' : 'a'} ${issue.expected}`;
  if (issue.code === 'invalid_value') return `must be one of ${issue.values.map(String).join(', ')}`;
  if (issue.code === 'too_big') return `must be at most ${issue.maximum}${unitOf(issue.origin)}`;
  if (issue.code === 'too_small') return `must be at least ${issue.minimum}${unitOf(issue.origin)}`;
  if (issue.code === 'invalid_format' && issue.format === 'regex') return `must match ${issue.pattern}`;
  return issue.message.charAt(0).toLowerCase() + issue.message.slice(1);
}

const unitOf = (origin: string): string =>
  origin === 'string' ? ' characters' : origin === 'array' ? ' items' : origin === 'object' ? ' keys' : '';

function pathText(path: readonly PropertyKey[]): string {
  return path.reduce<string>(
    (text, part) =>
      typeof part === 'number' ? `${text}[${part}]` : text === '' ? String(part) : `${text}.${String(part)}`,
    '',
  );
}

function valueAt(input: unknown, path: readonly PropertyKey[]): unknown {
  let value = input;
  for (const part of path) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, part)) return undefined;
    value = (value as Record<PropertyKey, unknown>)[part];
  }
  return value;
}
