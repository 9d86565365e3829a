import { createHash, X509Certificate } from 'node:crypto';
import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { isIP } from 'node:net';
import { connect, type DetailedPeerCertificate } from 'node:tls';
import { DomainError, errorMessage } from '@outrider/shared/errors';
import type { Clock, EpochMs } from '@outrider/shared/time';
import type { GrantedCertificate, Refusal } from './cloud-answers.ts';
import { tlsTrouble } from './tls-trouble.ts';

const TIMEOUT_MS = 15_000;
const ANSWER_BYTES_MAX = 256 * 1024;
const CHAIN_LENGTH_MAX = 10;
const LOOPBACK = /^(localhost|127(\.\d+){3}|\[?::1\]?)$/;

/** SHA-256 of a certificate as it is printed by `openssl x509 -fingerprint`, without colons, in lower case. */
export const fingerprintOf = (certificatePem: string): string =>
  createHash('sha256').update(new X509Certificate(certificatePem).raw).digest('hex');

/** Brings `AA:BB:…` and `aabb…` into one form. */
export const plainFingerprint = (text: string): string => text.replaceAll(':', '').toLowerCase();

/**
 * Sends a signing request to `POST /v1/robots/{robot_id}/certificates`.
 *
 * @param ca PEM of the only authority that may have signed the cloud's certificate.
 * @throws DomainError that says whether the network, the pin, the key or the request is at fault.
 */
export async function requestCertificate(options: {
  readonly httpUrl: string;
  readonly robotId: string;
  readonly apiKey: string;
  readonly csr: string;
  readonly ca: string | undefined;
  readonly clock: Clock;
}): Promise<GrantedCertificate> {
  const url = new URL(`/v1/robots/${encodeURIComponent(options.robotId)}/certificates`, options.httpUrl);
  const { status, body } = await exchange(url, {
    ...options,
    method: 'POST',
    payload: JSON.stringify({ csr: options.csr }),
  });
  // Loaded when needed: a schema library, for one answer in months.
  const { grantedSchema, refusalSchema } = await import('./cloud-answers.ts');
  if (status !== 201 && status !== 200)
    throw refusal(status, body, refusalSchema.safeParse(parseJson(body)).data?.error, url);
  const granted = grantedSchema.safeParse(parseJson(body));
  if (!granted.success)
    throw new DomainError(
      'unavailable',
      `${url.origin} answered ${status} without a certificate; is this the cloud's address?`,
    );
  return granted.data.data;
}

/**
 * Fetches the authority that the server presents and compares it with a fingerprint known from elsewhere. Nothing
 * is sent over this connection.
 *
 * @throws DomainError `unauthenticated` when no certificate of the chain has that fingerprint.
 */
export function fetchPinnedCa(httpUrl: string, sha256: string): Promise<string> {
  const { hostname, port, origin } = new URL(httpUrl);
  const wanted = plainFingerprint(sha256);
  return new Promise((resolve, reject) => {
    const socket = connect({
      host: hostname.replace(/^\[|\]$/g, ''),
      port: Number(port || 443),
      // The chain is judged by its fingerprint right below; a secret is only sent over a verified connection.
      rejectUnauthorized: false,
      ...(isIP(hostname) === 0 ? { servername: hostname } : {}),
    });
    const fail = (error: DomainError): void => {
      socket.destroy();
      reject(error);
    };
    socket.setTimeout(TIMEOUT_MS, () => fail(new DomainError('timeout', `${origin} did not answer`)));
    socket.once('error', (cause) =>
      fail(new DomainError('unavailable', `${origin}: ${errorMessage(cause)}`, { cause })),
    );
    socket.once('secureConnect', () => {
      const chain = chainOf(socket.getPeerCertificate(true));
      const found = chain.find((raw) => createHash('sha256').update(raw).digest('hex') === wanted);
      if (!found) {
        const seen = chain.map((raw) => createHash('sha256').update(raw).digest('hex')).join(', ');
        return fail(
          new DomainError('unauthenticated', `${origin} shows no certificate with SHA-256 ${wanted}; it shows ${seen}`),
        );
      }
      socket.destroy();
      resolve(new X509Certificate(found).toString());
    });
  });
}

function chainOf(leaf: DetailedPeerCertificate): Buffer[] {
  const chain: Buffer[] = [];
  let certificate: DetailedPeerCertificate | undefined = leaf;
  while (certificate?.raw && chain.length < CHAIN_LENGTH_MAX) {
    if (chain.some((raw) => raw.equals(certificate?.raw ?? Buffer.alloc(0)))) break;
    chain.push(certificate.raw);
    certificate = certificate.issuerCertificate;
  }
  return chain;
}

/**
 * What time it is at the cloud, by a connection that the pinned authority vouches for: to the second.
 *
 * @throws DomainError that says why it cannot be known.
 */
export async function fetchCloudTime(httpUrl: string, ca: string | undefined, clock: Clock): Promise<EpochMs> {
  const url = new URL('/health', httpUrl);
  const { date } = await exchange(url, { method: 'GET', payload: undefined, apiKey: undefined, ca, clock });
  if (!Number.isFinite(date)) throw new DomainError('unavailable', `${url.origin} does not say what time it is`);
  return date as EpochMs;
}

interface Exchange {
  readonly method: 'GET' | 'POST';
  readonly payload: string | undefined;
  readonly apiKey: string | undefined;
  readonly ca: string | undefined;
  readonly clock: Clock;
}

/** One request of the robot to its cloud. @throws DomainError that says why there is no answer. */
export function exchange(
  url: URL,
  { method, payload, apiKey, ca, clock }: Exchange,
): Promise<{ status: number; body: string; date: number }> {
  const isTls = url.protocol === 'https:';
  if (!isTls && !LOOPBACK.test(url.hostname))
    throw new DomainError('invalid', `cloud.http_url: ${url.origin} would show the API key to the network; use https`, {
      problems: [{ field: 'cloud.http_url', reason: 'must be https unless it is a loopback address' }],
    });
  return new Promise((resolve, reject) => {
    const request = (isTls ? httpsRequest : httpRequest)(url, {
      method,
      timeout: TIMEOUT_MS,
      agent: false,
      headers: {
        ...(payload === undefined
          ? {}
          : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(payload) }),
        ...(apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` }),
      },
      ...(isTls && ca !== undefined ? { ca } : {}),
    });
    request.once('timeout', () => request.destroy(new Error(`no answer within ${TIMEOUT_MS} ms`)));
    request.once('error', (cause) => reject(connectionError(url, cause, clock)));
    request.once('response', (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        text += chunk;
        if (text.length > ANSWER_BYTES_MAX) request.destroy(new Error('the answer is too long'));
      });
      const date = Date.parse(response.headers.date ?? '');
      response.once('end', () => resolve({ status: response.statusCode ?? 0, body: text, date }));
      response.once('error', (cause) => reject(connectionError(url, cause, clock)));
    });
    request.end(payload);
  });
}

function connectionError(url: URL, cause: unknown, clock: Clock): DomainError {
  const trouble = tlsTrouble(cause, url.origin, clock.epochMs());
  if (trouble?.kind === 'clock') return new DomainError('unauthenticated', trouble.sentence, { cause });
  if (trouble?.kind === 'untrusted')
    return new DomainError(
      'unauthenticated',
      `${url.origin}: its certificate is not signed by the pinned CA (${errorMessage(cause)}); check cloud.ca_file and cloud.ca_sha256`,
      { cause },
    );
  return new DomainError('unavailable', `${url.origin}: ${errorMessage(cause)}`, { cause });
}

function refusal(status: number, body: string, error: Refusal['error'] | undefined, url: URL): DomainError {
  const said = typeof error === 'object' ? `${error.code}: ${error.message}` : (error ?? body.slice(0, 200));
  const code =
    status === 401
      ? 'unauthenticated'
      : status === 403
        ? 'forbidden'
        : status === 404
          ? 'not_found'
          : status >= 500
            ? 'unavailable'
            : 'rejected';
  return new DomainError(code, `${url.origin} refused the certificate (${status} ${said})`);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
