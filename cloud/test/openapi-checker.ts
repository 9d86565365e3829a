import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import { fitsPattern } from './conformance.ts';

type Json = Record<string, unknown>;

export interface DocumentedOperation {
  readonly operationId: string;
  readonly method: string;
  /** With `{names}`. */
  readonly path: string;
  readonly security: readonly Record<string, string[]>[];
  readonly hasBody: boolean;
  readonly statuses: readonly number[];
}

/** An answer as it came over the wire. */
export interface SeenAnswer {
  readonly method: string;
  readonly path: string;
  readonly status: number;
  readonly contentType: string;
  /** Of a JSON body; else undefined. */
  readonly body: unknown;
}

/**
 * Holds answers to an OpenAPI document, and notes what was seen. A member that the document does not name is a fault:
 * every object that names its members is closed.
 */
export class OpenApiChecker {
  readonly operations: readonly DocumentedOperation[];
  /** `operationId status` of everything that was seen. */
  readonly seen = new Set<string>();
  /** What was not as documented, once each. */
  readonly problems = new Set<string>();
  readonly #ajv = new Ajv2020({ strict: false, validateFormats: false, allErrors: true });
  readonly #validators = new Map<string, ValidateFunction>();
  readonly #paths: Record<string, Record<string, { responses: Record<string, { content?: Json }> }>>;

  constructor(document: unknown) {
    const closed = close(document, document) as { paths: Record<string, Record<string, Json>> };
    this.#ajv.addSchema(closed, 'api');
    this.#paths = closed.paths as never;
    this.operations = Object.entries(closed.paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, operation]) => ({
        operationId: String(operation['operationId']),
        method: method.toUpperCase(),
        path,
        security: (operation['security'] ?? []) as Record<string, string[]>[],
        hasBody: operation['requestBody'] !== undefined,
        statuses: Object.keys(operation['responses'] as Json).map(Number),
      })),
    );
  }

  /** The operation that a request is for; literal paths win over patterns. */
  operationOf(method: string, path: string): DocumentedOperation | undefined {
    const bare = path.split('?')[0] ?? '';
    const found = this.operations.filter((each) => each.method === method && fitsPattern(each.path, decode(bare)));
    return found.find((each) => each.path === bare) ?? found[0];
  }

  /** @returns What is wrong with the answer; nothing when the route is not documented at all. */
  check({ method, path, status, contentType, body }: SeenAnswer): string[] {
    const operation = this.operationOf(method, path);
    if (!operation) return [];
    const { operationId } = operation;
    this.seen.add(`${operationId} ${status}`);
    const found = this.#faults(operation, status, contentType, body).map(
      (fault) => `${operationId} ${status}: ${fault}`,
    );
    for (const fault of found) this.problems.add(fault);
    return found;
  }

  #faults(operation: DocumentedOperation, status: number, contentType: string, body: unknown): string[] {
    if (!operation.statuses.includes(status)) return ['the status is not documented'];
    const method = operation.method.toLowerCase();
    const content = this.#paths[operation.path]?.[method]?.responses[status]?.content;
    const type = contentType.split(';')[0]?.trim() ?? '';
    if (!content) return type === '' ? [] : [`a body of ${type} is not documented`];
    if (content[type] === undefined && content['application/octet-stream'] === undefined)
      return [`${type || 'no body'} is not documented, but ${Object.keys(content).join(', ')}`];
    if (type !== 'application/json') return [];
    const validate = this.#validator([
      'paths',
      operation.path,
      method,
      'responses',
      String(status),
      'content',
      type,
      'schema',
    ]);
    if (validate(body)) return [];
    return (validate.errors ?? []).map(
      ({ instancePath, message, params }) => `${instancePath || 'the body'} ${message} ${JSON.stringify(params)}`,
    );
  }

  #validator(pointer: readonly string[]): ValidateFunction {
    const text = pointer.map((part) => encodeURIComponent(part.replaceAll('~', '~0').replaceAll('/', '~1'))).join('/');
    const known = this.#validators.get(text) ?? this.#ajv.compile({ $ref: `api#/${text}` });
    this.#validators.set(text, known);
    return known;
  }
}

function decode(path: string): string {
  try {
    return decodeURIComponent(path);
  } catch {
    return path;
  }
}

/** The document with every object closed that names its members and does not say otherwise. */
function close(value: unknown, document: unknown): unknown {
  if (Array.isArray(value)) return value.map((item) => close(item, document));
  if (typeof value !== 'object' || value === null) return value;
  const merged = 'allOf' in value && Array.isArray(value.allOf) ? mergeAll(value.allOf as Json[], document) : value;
  const copy = Object.fromEntries(Object.entries(merged).map(([key, item]) => [key, close(item, document)]));
  const isOpen =
    copy['type'] === 'object' && typeof copy['properties'] === 'object' && !('additionalProperties' in copy);
  return isOpen ? { ...copy, additionalProperties: false } : copy;
}

/** The parts of an `allOf` as one object: closed one by one, each would refuse the members of the others. */
function mergeAll(parts: readonly Json[], document: unknown): Json {
  const whole = parts.map((part) => {
    const ref = part['$ref'];
    if (typeof ref !== 'string') return part;
    return ref
      .slice(2)
      .split('/')
      .reduce<unknown>((found, key) => (found as Json)[key], document) as Json;
  });
  return {
    type: 'object',
    properties: Object.assign({}, ...whole.map((part) => part['properties'])) as Json,
    required: whole.flatMap((part) => (part['required'] ?? []) as string[]),
  };
}
