import { type IncomingHttpHeaders, request } from 'node:http';
import { DomainError, errorMessage } from '@outrider/shared/errors';

const TIMEOUT_MS = 10_000;

/** One call to the running agent over its Unix socket. @throws DomainError `unavailable` when it does not run. */
export async function callAgent(
  socketPath: string,
  method: 'GET' | 'POST',
  path: string,
  body?: unknown,
): Promise<unknown> {
  const { bytes } = await call(socketPath, method, path, body);
  return JSON.parse(Buffer.from(bytes).toString('utf8') || 'null');
}

/** Bytes of the running agent. @throws DomainError `unavailable` when it does not run. */
export function fetchBytes(socketPath: string, path: string): Promise<Answer> {
  return call(socketPath, 'GET', path, undefined);
}

interface Answer {
  readonly bytes: Uint8Array;
  readonly headers: IncomingHttpHeaders;
}

function call(socketPath: string, method: 'GET' | 'POST', path: string, body: unknown): Promise<Answer> {
  const payload = body === undefined ? '' : JSON.stringify(body);
  return new Promise((resolve, reject) => {
    const sent = request({
      socketPath,
      method,
      path,
      timeout: TIMEOUT_MS,
      headers: { host: 'localhost', 'content-type': 'application/json', 'content-length': Buffer.byteLength(payload) },
    });
    sent.once('timeout', () => sent.destroy(new Error(`no answer within ${TIMEOUT_MS} ms`)));
    sent.once('error', (cause) => reject(notRunning(socketPath, cause)));
    sent.once('response', (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.once('error', (cause) => reject(notRunning(socketPath, cause)));
      response.once('end', () => {
        const bytes = Buffer.concat(chunks);
        if ((response.statusCode ?? 500) < 400) resolve({ bytes, headers: response.headers });
        else reject(refusal(JSON.parse(bytes.toString('utf8') || 'null')));
      });
    });
    sent.end(payload);
  });
}

/** What to say when nobody answers on the socket. */
export function notRunning(socketPath: string, cause: unknown): DomainError {
  return new DomainError(
    'unavailable',
    `the agent does not answer on ${socketPath} (${errorMessage(cause)}); is it running? Start it with: outrider-edge run`,
    { cause },
  );
}

/** What the agent refused, as an error. */
export function refusal(answer: unknown): DomainError {
  const { error } = (answer ?? {}) as { error?: { code?: string; message?: string; unmet?: string[] } };
  const unmet = error?.unmet ?? [];
  const words = [error?.message ?? 'the agent refused', ...unmet.map((condition) => `  - ${condition}`)].join('\n');
  return new DomainError(error?.code === 'unavailable' ? 'unavailable' : 'rejected', words);
}
