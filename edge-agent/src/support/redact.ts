/** What stands where a secret was. */
export const REDACTED = '[removed]';

const SECRET_NAME = /(^|[_-])(api_?key|key|secret|token|password|passwd|credential|nonce|authorization)s?($|[_-])/i;
/** A name that looks like a secret's and is none. */
const HARMLESS_NAME = /^(ca_sha256|key_file|token_url|public_key)$/i;
const PATTERNS: readonly RegExp[] = [
  /-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----[\s\S]*?(-----END [A-Z0-9 ]*PRIVATE KEY-----|$)/g,
  /\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*/g,
  /(?<=\b(bearer|basic) )[A-Za-z0-9+/=._~-]{8,}/gi,
  /(?<=\/\/)[^\s/@:]+:[^\s/@]+(?=@)/g,
  /(?<=[?&](?:api_key|key|token|secret|password)=)[^&\s"']+/gi,
  /(?<="?\b(?:api_?key|secret|token|password)"?\s*[:=]\s*"?)[^\s",}]{6,}/gi,
];
/** Shorter ones would hit ordinary words. */
const SECRET_CHARACTERS_MIN = 6;

/** Takes secrets out of text: those that are known to this robot, and everything that looks like one. */
export class Redactor {
  readonly #known: readonly string[];

  /** @param known Secrets of this robot, whole; a private key also line by line. */
  constructor(known: readonly string[]) {
    const lines = known.flatMap((secret) => [secret, ...secret.split('\n')]).map((secret) => secret.trim());
    const words = lines.filter((secret) => secret.length >= SECRET_CHARACTERS_MIN && !secret.startsWith('-----'));
    // Longest first, so that no part of one is left over.
    this.#known = [...new Set(words)].sort((a, b) => b.length - a.length);
  }

  text(text: string): string {
    const plain = PATTERNS.reduce((rest, pattern) => rest.replace(pattern, REDACTED), text);
    return this.#known.reduce((rest, secret) => rest.replaceAll(secret, REDACTED), plain);
  }

  /** A document with the values of secret names, and secrets inside other values, taken out. */
  document(value: unknown): unknown {
    if (typeof value === 'string') return this.text(value);
    if (Array.isArray(value)) return value.map((entry) => this.document(entry));
    if (typeof value !== 'object' || value === null) return value;
    return Object.fromEntries(
      Object.entries(value).map(([name, inner]) => {
        const isSecret = SECRET_NAME.test(name) && !HARMLESS_NAME.test(name) && typeof inner !== 'object';
        return [name, isSecret ? REDACTED : this.document(inner)];
      }),
    );
  }
}
