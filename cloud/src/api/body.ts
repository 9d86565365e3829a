import { DomainError } from '@outrider/shared/errors';
import { parseJson } from './json.ts';
import type { ApiContext } from './surface.ts';

/** Largest request body, unless the route says otherwise. */
export const BODY_BYTES_MAX = 256 * 1024;

/** Reads a JSON body, or a form where the route takes one. @throws DomainError `invalid` or `payload_too_large` */
export async function readBody(c: ApiContext, limitBytes: number, takesForm: boolean): Promise<unknown> {
  if (c.req.header('content-encoding') !== undefined)
    throw refuse('Content-Encoding', 'is not taken: send the body as it is');
  const type = (c.req.header('content-type') ?? 'application/json').split(';')[0]?.trim().toLowerCase();
  if (type === 'application/json' || type?.endsWith('+json') === true) return parseJson(await readBytes(c, limitBytes));
  if (takesForm && type === 'application/x-www-form-urlencoded') {
    return fieldsOf(new URLSearchParams(new TextDecoder().decode(await readBytes(c, limitBytes))));
  }
  throw refuse('Content-Type', `must be application/json${takesForm ? ' or application/x-www-form-urlencoded' : ''}`);
}

/** Names and values, each name once. For forms and for query strings. @throws DomainError `invalid` */
export function fieldsOf(parameters: URLSearchParams): Record<string, string> {
  const fields: Record<string, string> = Object.create(null) as Record<string, string>;
  for (const [name, value] of parameters) {
    if (Object.hasOwn(fields, name)) throw refuse(name.slice(0, 64), 'is there twice');
    if (value.includes('\0') || name.includes('\0')) throw refuse(name.slice(0, 64), 'holds a NUL character');
    fields[name] = value;
  }
  return { ...fields };
}

async function readBytes(c: ApiContext, limitBytes: number): Promise<Uint8Array> {
  const declared = c.req.header('content-length');
  if (declared !== undefined) {
    if (Number(declared) > limitBytes) throw tooLarge(limitBytes);
    return new Uint8Array(await c.req.raw.arrayBuffer());
  }
  const stream = c.req.raw.body;
  if (!stream) return new Uint8Array();
  const chunks: Uint8Array[] = [];
  let total = 0;
  for await (const chunk of stream as unknown as AsyncIterable<Uint8Array>) {
    total += chunk.length;
    if (total > limitBytes) throw tooLarge(limitBytes);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

const tooLarge = (limitBytes: number): DomainError =>
  new DomainError('payload_too_large', `the body is larger than ${limitBytes} bytes`, {
    problems: [{ field: 'body', reason: `must have at most ${limitBytes} bytes` }],
  });

const refuse = (field: string, reason: string): DomainError =>
  new DomainError('invalid', `${field} ${reason}`, { problems: [{ field, reason }] });
