import type { LookupAddress } from 'node:dns';
import { lookup as systemLookup } from 'node:dns/promises';
import { request as httpRequest, type IncomingMessage, type RequestOptions } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { isIP } from 'node:net';
import { DomainError, errorMessage } from '@outrider/shared/errors';
import { isPublicAddress } from './addresses.ts';

/** What is read of an answer; the rest is thrown away. */
const READ_BYTES_MAX = 64 * 1024;
/** An answer that claims or sends more is a failure. */
const ANSWER_BYTES_MAX = 1024 * 1024;
const TIMEOUT_MS = 5_000;
const URL_CHARACTERS_MAX = 2_048;

export interface EgressOptions {
  /** For development only: private addresses and plain http are let through. */
  readonly allowPrivate: boolean;
  /** More certificate authorities to trust, PEM. */
  readonly ca?: string;
  readonly timeoutMs?: number;
  /** How names become addresses. */
  readonly lookup?: (hostname: string) => Promise<readonly LookupAddress[]>;
}

export interface EgressAnswer {
  readonly status: number;
  /** At most 64 KiB of it. */
  readonly body: string;
}

/** Where a caller's URL may not lead, or why it did not answer. The text is fit for the caller. */
export class EgressError extends Error {
  override readonly name = 'EgressError';
  /** Whether trying again is vain until the URL changes. */
  readonly isRefusal: boolean;

  constructor(message: string, isRefusal: boolean, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.isRefusal = isRefusal;
  }
}

/**
 * Sends requests to URLs that callers chose, and to nowhere that they could not reach themselves: https only, names
 * resolved once and the connection made to exactly the address that was checked, no redirects, no proxy, a fresh
 * connection each time, 5 s for everything.
 */
export class Egress {
  readonly #options: EgressOptions;

  constructor(options: EgressOptions) {
    this.#options = options;
  }

  /** What is wrong with a URL by its looks; a name is resolved only when something is sent. @throws DomainError `invalid` */
  checkUrl(text: string, field: string): URL {
    const problem = this.#problemOf(text);
    if (problem) throw new DomainError('invalid', `${field} ${problem}`, { problems: [{ field, reason: problem }] });
    return new URL(text);
  }

  /** Sends one POST. @throws EgressError */
  async post(text: string, headers: Readonly<Record<string, string>>, body: string): Promise<EgressAnswer> {
    const problem = this.#problemOf(text);
    if (problem) throw new EgressError(`the URL ${problem}`, true);
    const url = new URL(text);
    const deadline = AbortSignal.timeout(this.#options.timeoutMs ?? TIMEOUT_MS);
    try {
      const target = await raced(this.#resolve(hostOf(url)), deadline);
      return await this.#send(
        url,
        target,
        { ...headers, 'content-length': `${Buffer.byteLength(body)}` },
        body,
        deadline,
      );
    } catch (error) {
      if (error instanceof EgressError) throw error;
      if (deadline.aborted)
        throw new EgressError(`no answer within ${this.#options.timeoutMs ?? TIMEOUT_MS} ms`, false);
      throw new EgressError(errorMessage(error), false, error);
    }
  }

  #problemOf(text: string): string | undefined {
    if (text.length > URL_CHARACTERS_MAX) return `must have at most ${URL_CHARACTERS_MAX} characters`;
    if (!URL.canParse(text)) return 'must be an absolute URL';
    const url = new URL(text);
    const schemes = this.#options.allowPrivate ? ['https:', 'http:'] : ['https:'];
    if (!schemes.includes(url.protocol)) return 'must begin with https://';
    if (url.username !== '' || url.password !== '') return 'must not hold a user name or a password';
    if (url.hash !== '') return 'must not have a fragment';
    const host = hostOf(url);
    if (isIP(host) !== 0 && !this.#isAllowed(host)) return 'must not lead to a private address';
    const isLocalName = host === 'localhost' || /\.(localhost|local|internal)\.?$/.test(host);
    if (isLocalName && !this.#options.allowPrivate) return 'must not lead to a private address';
    return undefined;
  }

  #isAllowed(address: string): boolean {
    return this.#options.allowPrivate || isPublicAddress(address);
  }

  /** One address. A name that has any private address is refused whole: it would be a matter of luck. */
  async #resolve(host: string): Promise<LookupAddress> {
    const family = isIP(host);
    const lookup = this.#options.lookup ?? ((name: string) => systemLookup(name, { all: true }));
    const addresses = family !== 0 ? [{ address: host, family }] : await lookup(host);
    const [first] = addresses;
    if (!first) throw new EgressError(`${host} has no address`, false);
    if (!addresses.every(({ address }) => this.#isAllowed(address)))
      throw new EgressError(`${host} leads to a private address`, true);
    return first;
  }

  #send(
    url: URL,
    target: LookupAddress,
    headers: Readonly<Record<string, string>>,
    body: string,
    signal: AbortSignal,
  ): Promise<EgressAnswer> {
    const host = hostOf(url);
    const options: RequestOptions & { servername?: string; ca?: string } = {
      method: 'POST',
      // The address that was checked, and not the name: nothing resolves it a second time.
      host: target.address,
      family: target.family,
      port: url.port === '' ? (url.protocol === 'https:' ? 443 : 80) : Number(url.port),
      path: `${url.pathname}${url.search}`,
      headers: { ...headers, host: url.host },
      // No pooled connection: it would outlive the check.
      agent: false,
      signal,
      ...(isIP(host) === 0 ? { servername: host } : {}),
      ...(this.#options.ca === undefined ? {} : { ca: this.#options.ca }),
    };
    return new Promise((resolve, reject) => {
      const request = (url.protocol === 'https:' ? httpsRequest : httpRequest)(options, (answer) => {
        readAnswer(answer)
          .then(resolve, reject)
          .finally(() => request.destroy());
      });
      request.on('error', reject);
      request.end(body);
    });
  }
}

/** IPv6 addresses stand in brackets in a URL. */
const hostOf = (url: URL): string => url.hostname.replace(/^\[|\]$/g, '').replace(/\.$/, '');

async function readAnswer(answer: IncomingMessage): Promise<EgressAnswer> {
  const status = answer.statusCode ?? 0;
  if (Number(answer.headers['content-length'] ?? 0) > ANSWER_BYTES_MAX) throw tooLarge();
  const kept: Buffer[] = [];
  let total = 0;
  for await (const chunk of answer as AsyncIterable<Buffer>) {
    if (total < READ_BYTES_MAX) kept.push(chunk.subarray(0, READ_BYTES_MAX - total));
    total += chunk.length;
    if (total > ANSWER_BYTES_MAX) throw tooLarge();
  }
  return { status, body: Buffer.concat(kept).toString('utf8') };
}

const tooLarge = (): EgressError => new EgressError(`the answer is larger than ${ANSWER_BYTES_MAX} bytes`, false);

function raced<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
    work.then(resolve, reject);
  });
}
