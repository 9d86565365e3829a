import { request } from 'node:http';
import { DomainError, errorMessage } from '@outrider/shared/errors';

const TIMEOUT_MS = 10_000;

/** One call to the running agent over its Unix socket. @throws DomainError `unavailable` when it does not run. */
export function callAgent(socketPath: string, method: 'GET' | 'POST', path: string, body?: unknown): Promise<unknown> {
  const payload = body === undefined ? '' : JSON.stringify(body);
  return new Promise((resolve, reject) => {
    const call = request({
      socketPath,
      method,
      path,
      timeout: TIMEOUT_MS,
      headers: { host: 'localhost', 'content-type': 'application/json', 'content-length': Buffer.byteLength(payload) },
    });
    call.once('timeout', () => call.destroy(new Error(`no answer within ${TIMEOUT_MS} ms`)));
    call.once('error', (cause) => reject(notRunning(socketPath, cause)));
    call.once('response', (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.once('error', (cause) => reject(notRunning(socketPath, cause)));
      response.once('end', () => {
        const answer: unknown = JSON.parse(Buffer.concat(chunks).toString('utf8') || 'null');
        if ((response.statusCode ?? 500) < 400) resolve(answer);
        else reject(refusal(answer));
      });
    });
    call.end(payload);
  });
}

function notRunning(socketPath: string, cause: unknown): DomainError {
  return new DomainError(
    'unavailable',
    `the agent does not answer on ${socketPath} (${errorMessage(cause)}); is it running? Start it with: outrider-edge run`,
    { cause },
  );
}

function refusal(answer: unknown): DomainError {
  const { error } = (answer ?? {}) as { error?: { code?: string; message?: string; unmet?: string[] } };
  const unmet = error?.unmet ?? [];
  const words = [error?.message ?? 'the agent refused', ...unmet.map((condition) => `  - ${condition}`)].join('\n');
  return new DomainError(error?.code === 'unavailable' ? 'unavailable' : 'rejected', words);
}
