import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import t from 'tap';
import { deviceName, newEpoch, newId, parseDeviceName, requestIdOr } from './ids.ts';
import { createLogger, gatheringDestination } from './log.ts';
import { aborted, Backoff, pause, runStages, type Service } from './service.ts';
import { type EpochMs, systemClock, toIso } from './time.ts';

t.test('a device name can always be taken apart again', async (t) => {
  const id = { tenantId: 'acme-1', robotId: 'RB_1022-x' };
  t.same(parseDeviceName(deviceName(id)), id);
  for (const bad of ['', '.', 'a.', '.b', 'a.b.c', 'A.b', 'a.b/c', 'a.+', 'a.#', `a.${'x'.repeat(44)}`, 'a.b\n'])
    t.equal(parseDeviceName(bad), undefined, JSON.stringify(bad));
});

t.test('ids', async (t) => {
  t.match(newEpoch(), /^[0-9a-f]{16}$/);
  t.match(newId('evt'), /^evt_[0-9A-HJKMNP-TV-Z]{26}$/);
  t.equal(requestIdOr('req-12345678'), 'req-12345678');
  t.match(requestIdOr('bad id\r\nX-Evil: 1'), /^req_/);
  t.match(requestIdOr(undefined), /^req_/);
});

t.test('wall time renders in UTC with milliseconds', async (t) => {
  t.equal(toIso(1_768_108_320_124 as EpochMs), '2026-01-11T05:12:00.124Z');
  const before = systemClock.monotonicMs();
  t.ok(systemClock.monotonicMs() >= before);
});

t.test('stages stop first to last, each only after the one before it has ended', async (t) => {
  const order: string[] = [];
  const stage = (name: string): Service => ({
    name,
    run: async (signal) => {
      await aborted(signal);
      order.push(`${name} told`);
      await new Promise((resolve) => setImmediate(resolve));
      order.push(`${name} ended`);
    },
  });
  const stop = new AbortController();
  const running = runStages(
    [stage('intake'), stage('outbox'), stage('guard')],
    stop.signal,
    createLogger('t', 'silent'),
  );
  stop.abort();
  await running;
  t.same(order, ['intake told', 'intake ended', 'outbox told', 'outbox ended', 'guard told', 'guard ended']);
});

t.test('a stage that fails stops the others, and its failure is what the program sees', async (t) => {
  const stages: Service[] = [
    { name: 'well', run: aborted },
    { name: 'ill', run: async () => Promise.reject(new Error('port taken')) },
  ];
  await t.rejects(runStages(stages, new AbortController().signal, createLogger('t', 'silent')), {
    message: 'port taken',
  });
});

t.test('a pause ends early when told to stop', async (t) => {
  const stop = new AbortController();
  const paused = pause(3_600_000, stop.signal);
  stop.abort();
  await paused;
  await pause(3_600_000, stop.signal);
  t.pass('both returned');
});

t.test('backoff doubles up to its limit, with jitter of at most a half', async (t) => {
  const backoff = new Backoff(100, 1000, () => 0.5);
  t.same(
    [1, 2, 3, 4, 5].map(() => backoff.nextMs()),
    [75, 150, 300, 600, 750],
  );
  backoff.reset();
  t.equal(backoff.nextMs(), 75);
});

t.test('no secret reaches a log line', async (t) => {
  let out = '';
  const sink = new Writable({
    write(chunk, _encoding, done) {
      out += chunk;
      done();
    },
  });
  const log = createLogger('t', 'info', sink);
  log.info({ client_secret: 'canary', req: { authorization: 'canary', headers: { authorization: 'canary' } } }, 'x');
  t.notMatch(out, /canary/);
  t.match(out, /redacted/);
});

t.test(
  'lines of a busy program are written together, a warning at once, and none is lost or out of order',
  async (t) => {
    const file = join(t.testdir(), 'log');
    const log = createLogger('t', 'info', gatheringDestination(file));
    const messages = (): string[] =>
      readFileSync(file, 'utf8')
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => (JSON.parse(line) as { msg: string }).msg);
    log.info('first');
    log.info('second');
    t.same(messages(), [], 'nothing yet');
    log.warn('third');
    t.same(messages(), ['first', 'second', 'third']);
    log.info('fourth');
    while (messages().length < 4) await new Promise((resolve) => setTimeout(resolve, 10));
    t.same(messages(), ['first', 'second', 'third', 'fourth'], 'by itself, a moment later');
    const lines = Array.from({ length: 500 }, (_, index) => `line ${index}`);
    for (const line of lines) log.info(line);
    log.error('the end');
    t.same(messages().slice(4), [...lines, 'the end']);
  },
);
