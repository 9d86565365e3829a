import { DomainError, type DomainErrorCode, errorMessage } from '@outrider/shared/errors';
import type { FailsafeMode } from '@outrider/shared/failsafe/modes';
import { newId } from '@outrider/shared/ids';
import { Hono } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import { stream } from 'hono/streaming';
import type { CommWish } from '../agent/mission.ts';
import type { Listener } from '../agent/sample-tap.ts';
import type { BoxView } from '../blackbox/shelf.ts';
import { sampleJson } from '../export/sample-json.ts';
import type { AgentMetrics } from '../metrics.ts';
import type { StoredRecord } from '../outbox/records.ts';
import { packRecords } from './record-page.ts';
import { missionRequest, pageRequest, recoverRequest, triggerRequest } from './requests.ts';
import type { AgentStatus } from './status.ts';

const BODY_BYTES_MAX = 16 * 1024;
const HTTP_STATUS: Partial<Record<DomainErrorCode, 400 | 404 | 409 | 412 | 413 | 429 | 503 | 504>> = {
  invalid: 400,
  payload_too_large: 413,
  not_found: 404,
  bad_state: 409,
  rejected: 412,
  too_many: 429,
  unavailable: 503,
  offline: 503,
  timeout: 504,
};

/** What one page of the outbox holds; at least one record. */
const PAGE_BYTES = 1024 * 1024;
/** Which epoch the positions of a page belong to. */
export const EPOCH_HEADER = 'x-outrider-epoch';

/** What the guard answers. */
export interface FailsafeAnswer {
  readonly done: boolean;
  readonly detail: string;
  readonly latchId: number;
  readonly unmet: readonly string[];
}

/** What the local API asks of the agent. */
export interface LocalAgent {
  status(): AgentStatus;
  /** Why the agent does not do its work yet; empty when it does. */
  notReady(): string[];
  trigger(request: {
    mode: FailsafeMode;
    reason: string;
    requestedBy: string;
    traceId: string;
  }): Promise<FailsafeAnswer>;
  /** Live samples of one stream or of all; `undefined` when too many listen already. */
  listen(stream: string | undefined): Listener | undefined;
  /** Finished black boxes, oldest first. */
  blackboxes(): BoxView[];
  /** Telemetry that is still on disk, behind a position. */
  telemetryAfter(seq: number, bytesMax: number): { readonly epoch: string; readonly records: readonly StoredRecord[] };
  /** What the running mission asks for when the link is lost; `undefined`: it is over. */
  setMissionComm(comm: CommWish | undefined): void;
  recover(request: { latchId: number; nonce: string; requestedBy: string; traceId: string }): Promise<FailsafeAnswer>;
}

/** Read-only routes: also on the loopback port. */
export function createMetricsApp(agent: LocalAgent, metrics: AgentMetrics): Hono {
  const app = new Hono();
  app.get('/status', (c) => c.json(agent.status()));
  app.get('/metrics', async (c) => c.text(await metrics.render(), 200, { 'content-type': metrics.contentType }));
  app.get('/ready', (c) => {
    const waiting = agent.notReady();
    return c.json({ ready: waiting.length === 0, waiting_for: waiting }, waiting.length === 0 ? 200 : 503);
  });
  app.notFound((c) =>
    c.json({ error: { code: 'not_found', message: `${c.req.method} ${c.req.path} does not exist here` } }, 404),
  );
  app.onError((error, c) => {
    const code = error instanceof DomainError ? error.code : 'internal';
    const details = error instanceof DomainError ? { problems: error.problems, ...error.details } : {};
    return c.json({ error: { code, message: errorMessage(error), ...details } }, HTTP_STATUS[code] ?? 500);
  });
  return app;
}

/** All routes: only on the Unix socket, whose file rights decide who may stop and recover the robot here. */
export function createLocalApp(agent: LocalAgent, metrics: AgentMetrics): Hono {
  const app = createMetricsApp(agent, metrics);
  app.use(
    bodyLimit({
      maxSize: BODY_BYTES_MAX,
      onError: () => {
        throw new DomainError('payload_too_large', `a body has at most ${BODY_BYTES_MAX} bytes`);
      },
    }),
  );
  app.get('/blackbox', (c) => c.json({ boxes: agent.blackboxes() }));
  app.get('/outbox/telemetry', (c) => {
    const after = pageRequest(c.req.query('after'));
    const { epoch, records } = agent.telemetryAfter(after, PAGE_BYTES);
    return c.body(packRecords(records), 200, { 'content-type': 'application/octet-stream', [EPOCH_HEADER]: epoch });
  });
  app.get('/samples', (c) => {
    const listener = agent.listen(c.req.query('stream'));
    if (!listener) throw new DomainError('too_many', 'too many listen already; end another `outrider-edge tail`');
    c.header('content-type', 'application/x-ndjson');
    return stream(c, async (out) => {
      out.onAbort(() => listener.close());
      while (!out.aborted && !out.closed) {
        const { samples, dropped } = await listener.next();
        const lines = samples.map((sample) => JSON.stringify(sampleJson(sample)));
        if (dropped > 0) lines.unshift(JSON.stringify({ dropped }));
        // Waits until the reader has taken it: what comes meanwhile waits in the listener's bounded queue.
        if (lines.length > 0) await out.write(`${lines.join('\n')}\n`);
      }
      listener.close();
    });
  });
  app.post('/failsafe/trigger', async (c) => {
    const request = triggerRequest(await readJson(c.req));
    return c.json(answer(await agent.trigger({ ...request, traceId: newId('req') })));
  });
  app.put('/mission', async (c) => {
    agent.setMissionComm(missionRequest(await readJson(c.req)));
    return c.json({ done: true });
  });
  app.delete('/mission', (c) => {
    agent.setMissionComm(undefined);
    return c.json({ done: true });
  });
  app.post('/failsafe/recover', async (c) => {
    const request = recoverRequest(await readJson(c.req));
    return c.json(answer(await agent.recover({ ...request, traceId: newId('req') })));
  });
  return app;
}

function answer({ done, detail, latchId, unmet }: FailsafeAnswer): { done: boolean; detail: string; latch_id: number } {
  if (!done)
    throw new DomainError('rejected', detail || 'the guard refused', { details: { latch_id: latchId, unmet } });
  return { done, detail, latch_id: latchId };
}

async function readJson(request: { json(): Promise<unknown> }): Promise<unknown> {
  try {
    return await request.json();
  } catch (cause) {
    if (cause instanceof DomainError) throw cause;
    throw new DomainError('invalid', 'the body is not JSON', { cause });
  }
}
