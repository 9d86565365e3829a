import { DomainError } from '@outrider/shared/errors';

/** Deepest nesting that any of our bodies may have. */
export const JSON_DEPTH_MAX = 32;
const KEYS_PER_OBJECT_MAX = 1_000;
const KEY_CHARACTERS_MAX = 256;
/** Keys that could reach an object's prototype in a careless copy. */
const FORBIDDEN_KEYS = new Set(['__proto__', 'constructor', 'prototype']);
const LONE_SURROGATE = /\p{Surrogate}/u;
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/**
 * Reads a JSON body that may be hostile. `JSON.parse` alone takes `1e400` for infinity, the last of two equal keys,
 * and any depth; this refuses them and names the field.
 *
 * @throws DomainError `invalid`
 */
export function parseJson(bytes: Uint8Array): unknown {
  let text: string;
  try {
    text = decoder.decode(bytes);
  } catch {
    throw refuse('body', 'is not UTF-8');
  }
  if (text.trim() === '') throw refuse('body', 'is empty: a JSON document is needed');
  checkTokens(text);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw refuse('body', 'is not valid JSON');
  }
  const found = findBad(value);
  if (found) throw refuse(found.path || 'body', found.reason);
  return value;
}

/** Depth and equal keys, before anything is built. What is not JSON at all is left to JSON.parse. */
function checkTokens(text: string): void {
  const keysOfDepth: (Set<string> | undefined)[] = [];
  let at = 0;
  while (at < text.length) {
    const code = text.charCodeAt(at);
    if (code === 0x22) {
      const end = endOfString(text, at + 1);
      const keys = keysOfDepth.at(-1);
      if (keys && nextIsColon(text, end + 1)) addKey(keys, text.slice(at, end + 1));
      at = end + 1;
      continue;
    }
    if (code === 0x7b || code === 0x5b) {
      if (keysOfDepth.length >= JSON_DEPTH_MAX) throw refuse('body', `is nested deeper than ${JSON_DEPTH_MAX} levels`);
      keysOfDepth.push(code === 0x7b ? new Set() : undefined);
    } else if (code === 0x7d || code === 0x5d) {
      keysOfDepth.pop();
    }
    at += 1;
  }
}

function endOfString(text: string, from: number): number {
  let at = from;
  while (at < text.length) {
    const code = text.charCodeAt(at);
    if (code === 0x22) return at;
    at += code === 0x5c ? 2 : 1;
  }
  return text.length;
}

function nextIsColon(text: string, from: number): boolean {
  let at = from;
  while (at < text.length) {
    const code = text.charCodeAt(at);
    if (code === 0x3a) return true;
    if (code !== 0x20 && code !== 0x09 && code !== 0x0a && code !== 0x0d) return false;
    at += 1;
  }
  return false;
}

function addKey(keys: Set<string>, quoted: string): void {
  let key = quoted.slice(1, -1);
  if (key.includes('\\')) {
    try {
      key = String(JSON.parse(quoted));
    } catch {
      throw refuse('body', 'is not valid JSON');
    }
  }
  const shown = key.slice(0, 64);
  if (key.length > KEY_CHARACTERS_MAX) throw refuse(shown, `is a key of more than ${KEY_CHARACTERS_MAX} characters`);
  if (FORBIDDEN_KEYS.has(key)) throw refuse(key, 'is not allowed as a key');
  if (keys.has(key)) throw refuse(shown, 'is there twice');
  if (keys.size >= KEYS_PER_OBJECT_MAX) throw refuse('body', `has an object of more than ${KEYS_PER_OBJECT_MAX} keys`);
  keys.add(key);
}

interface Finding {
  readonly path: string;
  readonly reason: string;
}

/** Numbers that JSON cannot hold and text that PostgreSQL cannot store. The depth is bounded by now. */
function findBad(value: unknown): Finding | undefined {
  if (typeof value === 'number')
    return Number.isFinite(value) ? undefined : { path: '', reason: 'is too large for a 64-bit number' };
  if (typeof value === 'string') return findBadText(value);
  if (Array.isArray(value)) {
    for (let index = 0; index < value.length; index += 1) {
      const found = findBad(value[index]);
      if (found) return { ...found, path: joinPath(`[${index}]`, found.path) };
    }
  } else if (typeof value === 'object' && value !== null) {
    for (const [key, item] of Object.entries(value)) {
      const found = findBadText(key) ?? findBad(item);
      if (found) return { ...found, path: joinPath(key, found.path) };
    }
  }
  return undefined;
}

function findBadText(text: string): Finding | undefined {
  if (text.includes('\0')) return { path: '', reason: 'holds a NUL character' };
  if (LONE_SURROGATE.test(text)) return { path: '', reason: 'holds half of a surrogate pair' };
  return undefined;
}

const joinPath = (head: string, tail: string): string =>
  tail === '' || tail.startsWith('[') ? `${head}${tail}` : `${head}.${tail}`;

const refuse = (field: string, reason: string): DomainError =>
  new DomainError('invalid', `${field} ${reason}`, { problems: [{ field, reason }] });
