/** One example of a seed document. */
export interface Example {
  readonly name: string;
  readonly request: {
    readonly method: string;
    readonly path: string;
    /** `seed`: a token with the scopes that SigmaPrompt's own example asks for. */
    readonly auth: 'none' | 'seed' | 'admin';
    readonly headers?: Readonly<Record<string, string>>;
    readonly body?: Readonly<Record<string, unknown>>;
  };
  readonly response: {
    readonly status: number;
    /** No member beyond the example's. */
    readonly exact?: boolean;
    readonly body: unknown;
    /** Paths whose values must be the example's, not only of its type. */
    readonly equal?: readonly string[];
    readonly match?: Readonly<Record<string, string>>;
    /** Paths that may be null here, and why. */
    readonly nullable?: Readonly<Record<string, string>>;
  };
}

/** What at a path of a JSON value. */
export function at(value: unknown, path: string): unknown {
  return path.split('.').reduce<unknown>((found, key) => (found as Record<string, unknown> | undefined)?.[key], value);
}

/** How an answer differs from the example: missing members, other types, and members too many when it is exact. */
export function differences({ response }: Example, answer: unknown): string[] {
  const found: string[] = [];
  const compare = (wanted: unknown, got: unknown, path: string): void => {
    const name = path === '' ? 'the body' : path;
    if (got === null && response.nullable?.[path] !== undefined) return;
    if (Array.isArray(wanted)) {
      if (!Array.isArray(got)) found.push(`${name} is no list`);
      else if (wanted.length > 0 && got.length > 0) compare(wanted[0], got[0], path === '' ? '0' : `${path}.0`);
      return;
    }
    if (typeof wanted === 'object' && wanted !== null) {
      if (typeof got !== 'object' || got === null || Array.isArray(got)) {
        found.push(`${name} is no object`);
        return;
      }
      const given = got as Record<string, unknown>;
      for (const [key, value] of Object.entries(wanted))
        compare(value, given[key], path === '' ? key : `${path}.${key}`);
      if (response.exact)
        for (const key of Object.keys(given)) if (!Object.hasOwn(wanted, key)) found.push(`${name} has ${key} too`);
      return;
    }
    if (typeof wanted !== typeof got)
      found.push(`${name} is ${got === null ? 'null' : typeof got}, not ${typeof wanted}`);
  };
  compare(response.body, answer, '');
  for (const path of response.equal ?? []) {
    const [wanted, got] = [JSON.stringify(at(response.body, path)), JSON.stringify(at(answer, path))];
    if (wanted !== got) found.push(`${path} is ${got}, not ${wanted}`);
  }
  for (const [path, pattern] of Object.entries(response.match ?? {}))
    if (!new RegExp(pattern).test(String(at(answer, path)))) found.push(`${path} does not match ${pattern}`);
  return found;
}
