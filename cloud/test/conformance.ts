/** One example of a seed document. */
export interface Example {
  readonly name: string;
  /** What is missing for it: it must answer 404 in the document's envelope until then. */
  readonly notBuilt?: string;
  readonly request: {
    readonly method: string;
    readonly path: string;
    /** `seed`: a token with the scopes that SigmaPrompt's own example asks for. */
    readonly auth: 'none' | 'seed' | 'admin';
    readonly headers?: Readonly<Record<string, string>>;
    /** The response is the first message over it. */
    readonly transport?: 'websocket';
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

/** What the seed document itself says, as it was extracted from its text. */
export interface SeedDocument {
  readonly routes: readonly {
    readonly section: string;
    readonly method: string;
    readonly path: string;
    readonly request?: unknown;
    readonly responses: readonly { readonly status: number; readonly body: unknown }[];
  }[];
  readonly error: unknown;
  readonly eventTypes: readonly string[];
  readonly eventFields: readonly string[];
}

/** Whether a concrete path is one of a pattern with `{names}`. */
export function fitsPattern(pattern: string, path: string): boolean {
  const [parts, segments] = [pattern.split('/'), (path.split('?')[0] ?? '').split('/')];
  return (
    parts.length === segments.length && parts.every((part, index) => part.startsWith('{') || part === segments[index])
  );
}
