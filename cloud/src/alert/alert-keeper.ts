import type { Logger } from '@outrider/shared/log';
import { Backoff, pause, type Service } from '@outrider/shared/service';
import type { Clock } from '@outrider/shared/time';
import type { LaneOutcome } from '../telemetry/ingest-ports.ts';
import type { LiveUpdate } from '../telemetry/ports.ts';
import type { FreshNews } from './alert.ts';
import type { AlertMetrics } from './alert-metrics.ts';
import { judgeEvent } from './event-judge.ts';
import type { Finding } from './finding.ts';
import type { AlertStore, EventPast, PendingEvent } from './ports.ts';
import type { RuleBook } from './rule-book.ts';
import { TelemetryWatch, type WatchedBlock } from './telemetry-watch.ts';

/** Blocks that may wait for the rules. More are dropped, oldest first, and counted. */
const QUEUE_BLOCKS_MAX = 20_000;
/** Blocks between two turns of the event loop. */
const SLICE_BLOCKS = 200;
const FINDINGS_MAX = 10_000;
const FINDINGS_AT_ONCE = 500;
const EVENTS_AT_ONCE = 500;
/** How often events are looked for that nobody told us of: another replica stored them and died. */
const EVENT_POLL_MS = 1_000;
const TEND_MS = 5_000;
/** Rules that look at every robot's data are no hurry: they count in minutes. */
const SLOW_MS = 15_000;
const ORPHANS_MS = 60_000;
/** How far back alerts that others closed are looked for. */
const CLOSED_MS = 60_000;
const RECALL_MS = 3_600_000;
const RETRY_FIRST_MS = 100;
const RETRY_MAX_MS = 5_000;
const QUICK_KINDS = ['offline', 'repetition'] as const;

export interface AlertKeeperOptions {
  readonly store: AlertStore;
  readonly book: RuleBook;
  readonly metrics: AlertMetrics;
  readonly clock: Clock;
  readonly log: Logger;
  /** Tells live subscribers. */
  readonly announce: (updates: readonly LiveUpdate[]) => void;
  /** Notifications may be in the queue. */
  readonly onQueued: () => void;
  /** Whether the data is refused for what it is, so that trying again is vain. */
  readonly isDataError: (error: unknown) => boolean;
}

/**
 * Looks at what was stored with every rule, and turns what it finds into alerts.
 *
 * Events are looked at exactly once: the mark that one has to be is stored with it, and goes in the transaction that
 * stores the alert. Telemetry is looked at in memory as it comes, which is best effort: blocks that were stored right
 * before a crash are not looked at again, and a hold begins anew.
 */
export class AlertKeeper implements Service {
  readonly name = 'alerts';
  readonly #options: AlertKeeperOptions;
  readonly #watch: TelemetryWatch;
  readonly #backoff = new Backoff(RETRY_FIRST_MS, RETRY_MAX_MS);
  #blocks: WatchedBlock[] = [];
  #findings: Finding[] = [];
  #isLoaded = false;
  #wakeTelemetry: () => void = () => undefined;
  #wakeEvents: () => void = () => undefined;
  #hasEvents = false;

  constructor(options: AlertKeeperOptions) {
    this.#options = options;
    this.#watch = new TelemetryWatch(options.book);
  }

  /** Hears of what was stored. Cheap: it only queues. */
  onStored(outcomes: readonly LaneOutcome[], ingestedMs: number): void {
    for (const { robot, stored } of outcomes) {
      for (const record of stored) {
        if (record.kind === 'telemetry') {
          const { firstMs, lastMs } = record.span;
          this.#blocks.push({ robot, block: record.block, firstMs, lastMs, ingestedMs });
        } else if (record.kind === 'event') this.#hasEvents = true;
      }
    }
    const excess = this.#blocks.length - QUEUE_BLOCKS_MAX;
    if (excess > 0) {
      this.#blocks.splice(0, excess);
      this.#options.metrics.dropped.inc({ what: 'block' }, excess);
    }
    if (this.#blocks.length > 0) this.#wakeTelemetry();
    if (this.#hasEvents) this.#wakeEvents();
  }

  async run(signal: AbortSignal): Promise<void> {
    await this.#retry('load', signal, () => this.#load());
    await Promise.all([this.#watchTelemetry(signal), this.#judgeEvents(signal), this.#tend(signal)]);
  }

  /** Reads the rules again now, and closes what no rule stands for any more. Called when a person changed one. */
  async refreshRules(): Promise<void> {
    const { book, clock, store } = this.#options;
    for (const tenantId of await book.refresh()) {
      const ruleIds = book.rulesOf(tenantId).rules.flatMap((rule) => (rule.enabled ? [rule.ruleId] : []));
      this.#publish(await store.clearOrphans(tenantId, ruleIds, clock.epochMs()));
    }
  }

  /** Passes on what a person did. */
  publish(news: readonly FreshNews[]): void {
    this.#publish(news);
  }

  async #load(): Promise<void> {
    const { clock, store } = this.#options;
    await this.refreshRules();
    const raises = new Map<string, { tenantId: string; dedupeKey: string; times: number[] }>();
    for (const { tenantId, dedupeKey, raisedMs } of await store.raisesSince(clock.epochMs() - RECALL_MS)) {
      const entry = raises.get(`${tenantId}/${dedupeKey}`) ?? { tenantId, dedupeKey, times: [] };
      entry.times.push(raisedMs);
      raises.set(`${tenantId}/${dedupeKey}`, entry);
    }
    for (const { tenantId, dedupeKey, times } of raises.values()) this.#watch.recall(tenantId, dedupeKey, times);
    this.#watch.reconcile(await store.known(clock.epochMs()));
    this.#isLoaded = true;
  }

  async #watchTelemetry(signal: AbortSignal): Promise<void> {
    // One listener for the whole life: racing a promise that stays open would keep every turn's leftovers.
    signal.addEventListener('abort', () => this.#wakeTelemetry(), { once: true });
    while (!signal.aborted) {
      if (this.#blocks.length === 0 && this.#findings.length === 0) {
        await new Promise<void>((resolve) => {
          this.#wakeTelemetry = resolve;
        });
      }
      this.#lookAtSome();
      if (this.#findings.length > 0) await this.#applyFindings(signal);
      else await new Promise<void>((resolve) => setImmediate(resolve));
    }
  }

  #lookAtSome(): void {
    const { clock, metrics } = this.#options;
    if (!this.#isLoaded || this.#blocks.length === 0) return;
    const begunMs = clock.monotonicMs();
    const slice = this.#blocks.splice(0, SLICE_BLOCKS);
    for (const block of slice) this.#lookAt(block);
    metrics.blocks.inc(slice.length);
    metrics.queuedBlocks.set(this.#blocks.length);
    metrics.evaluateSeconds.inc((clock.monotonicMs() - begunMs) / 1000);
    const excess = this.#findings.length - FINDINGS_MAX;
    if (excess > 0) {
      this.#findings.splice(0, excess);
      metrics.dropped.inc({ what: 'finding' }, excess);
    }
  }

  /** A block that cannot be looked at must not end the control plane. */
  #lookAt(block: WatchedBlock): void {
    try {
      for (const finding of this.#watch.look(block)) this.#findings.push(finding);
    } catch (error) {
      const { robotId, tenantId } = block.robot;
      this.#options.log.error({ err: error, tenantId, robotId }, 'alert.block_refused');
    }
  }

  /** Stores findings. While the database is away they wait, and telemetry goes on being looked at. */
  async #applyFindings(signal: AbortSignal): Promise<void> {
    const { clock, isDataError, log, store } = this.#options;
    const some = this.#findings.splice(0, FINDINGS_AT_ONCE);
    try {
      this.#publish(await store.apply(some, clock.epochMs()));
      this.#backoff.reset();
    } catch (error) {
      if (isDataError(error) && some.length > 1) {
        for (const one of some)
          await store.apply([one], clock.epochMs()).then(
            (news) => this.#publish(news),
            (cause: unknown) => log.error({ err: cause, ruleId: one.rule.ruleId }, 'alert.finding_refused'),
          );
        return;
      }
      log.warn({ err: error, findings: some.length }, 'alert.apply_failed');
      if (!isDataError(error)) this.#findings.unshift(...some);
      await pause(this.#backoff.nextMs(), signal);
    }
  }

  async #judgeEvents(signal: AbortSignal): Promise<void> {
    signal.addEventListener('abort', () => this.#wakeEvents(), { once: true });
    while (!signal.aborted) {
      const judged = await this.#retry('judge', signal, () => this.#judgeSome());
      if (judged === EVENTS_AT_ONCE || this.#hasEvents) continue;
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, EVENT_POLL_MS);
        this.#wakeEvents = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  async #judgeSome(): Promise<number> {
    const { book, clock, store } = this.#options;
    this.#hasEvents = false;
    const judge = async (events: readonly PendingEvent[], past: EventPast): Promise<Finding[]> => {
      const findings: Finding[] = [];
      for (const event of events) {
        const { rules } = book.rulesOf(event.robot.tenantId);
        for (const finding of await judgeEvent(event, rules, past)) findings.push(finding);
      }
      return findings;
    };
    try {
      const { events, news } = await store.judgePending(judge, EVENTS_AT_ONCE, clock.epochMs());
      this.#publish(news);
      return events;
    } catch (error) {
      if (!this.#options.isDataError(error)) throw error;
      await this.#judgeOne(judge);
      return EVENTS_AT_ONCE;
    }
  }

  /** Something in a batch is refused for what it is: one by one, and what stays refused is left out, and said. */
  async #judgeOne(judge: (events: readonly PendingEvent[], past: EventPast) => Promise<Finding[]>): Promise<void> {
    const { clock, isDataError, log, store } = this.#options;
    try {
      const { news } = await store.judgePending(judge, 1, clock.epochMs());
      this.#publish(news);
    } catch (error) {
      if (!isDataError(error)) throw error;
      const leaveOut = async (events: readonly PendingEvent[]): Promise<Finding[]> => {
        for (const { eventId, robot, type } of events)
          log.error(
            { err: error, eventId, type, tenantId: robot.tenantId, robotId: robot.robotId },
            'alert.event_refused',
          );
        return [];
      };
      await store.judgePending(leaveOut, 1, clock.epochMs());
    }
  }

  /** What time alone decides, and what other replicas did. */
  async #tend(signal: AbortSignal): Promise<void> {
    const { book, clock, store } = this.#options;
    let orphansMs: number = clock.monotonicMs();
    let slowMs = 0;
    while (!signal.aborted) {
      await this.#retry('tend', signal, async () => {
        await this.refreshRules();
        this.#watch.reconcile(await store.known(clock.epochMs() - CLOSED_MS));
        for (const finding of this.#watch.tidy(clock.epochMs())) this.#findings.push(finding);
        if (this.#findings.length > 0) this.#wakeTelemetry();
        const isSlowTurn = clock.monotonicMs() >= slowMs;
        if (isSlowTurn) slowMs = clock.monotonicMs() + SLOW_MS;
        const rules = book.sweepRules(isSlowTurn ? ['no_data', 'anomaly', ...QUICK_KINDS] : QUICK_KINDS);
        this.#publish(await store.sweep(rules, clock.epochMs()));
        if (clock.monotonicMs() < orphansMs) return;
        orphansMs = clock.monotonicMs() + ORPHANS_MS;
        for (const tenantId of book.tenantIds) {
          const ruleIds = book.rulesOf(tenantId).rules.flatMap((rule) => (rule.enabled ? [rule.ruleId] : []));
          this.#publish(await store.clearOrphans(tenantId, ruleIds, clock.epochMs()));
        }
      });
      await pause(TEND_MS, signal);
    }
  }

  async #retry<T>(step: string, signal: AbortSignal, work: () => Promise<T>): Promise<T | undefined> {
    const backoff = new Backoff(RETRY_FIRST_MS, RETRY_MAX_MS);
    while (!signal.aborted) {
      try {
        return await work();
      } catch (error) {
        if (!signal.aborted) this.#options.log.warn({ err: error, step }, 'alert.step_failed');
        await pause(backoff.nextMs(), signal);
      }
    }
    return undefined;
  }

  #publish(news: readonly FreshNews[]): void {
    if (news.length === 0) return;
    const { announce, clock, log, metrics, onQueued } = this.#options;
    const ingestedAt = clock.epochMs();
    // Of a robot's past only what became of each alert: the steps in between are in its history.
    const lastLate = new Map(news.filter((one) => one.isLate).map((one) => [one.alert.alertId, one]));
    const told = news.filter((one) => !one.isLate || lastLate.get(one.alert.alertId) === one);
    announce(
      told.map(({ change, at, actor, alert }) => ({
        type: 'alert',
        tenantId: alert.tenantId,
        robotId: alert.robotId,
        ingestedAt,
        news: { change, at, actor, alert },
      })),
    );
    onQueued();
    const publishedMs = clock.epochMs();
    for (const { change, alert, evidence, isLate } of news) {
      const { alertId, kind, robotId, ruleId, severity, tenantId } = alert;
      metrics.changes.inc({ change, severity, kind });
      log.info({ alertId, tenantId, robotId, ruleId, severity, late: isLate }, `alert.${change}`);
      if (!evidence || isLate || change === 'cleared') continue;
      metrics.decisionSeconds.observe({ since: 'recorded' }, Math.max(0, publishedMs - evidence.recordedMs) / 1000);
      metrics.decisionSeconds.observe({ since: 'ingested' }, Math.max(0, publishedMs - evidence.ingestedMs) / 1000);
    }
  }
}
