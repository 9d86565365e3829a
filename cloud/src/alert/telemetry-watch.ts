import type { DecodedBlock } from '@outrider/shared/protocol/block';
import { fieldRange, type StreamLayout, sameLayout } from '@outrider/shared/telemetry';
import type { RobotRef } from '../telemetry/ports.ts';
import { rowTimes } from '../telemetry/recorded-time.ts';
import { type Finding, isLate } from './finding.ts';
import { dedupeKeyOf, type Rule } from './rule.ts';
import { isBeyond, SignalMachine, type SignalSpec, signalSpecOf } from './signal-machine.ts';

/** A block whose stamps lie this far before what was looked at is the past, not disorder. */
const PAST_MS = 2_000;
/** Streams without a reason to remember them are forgotten after this long. */
const IDLE_MS = 3_600_000;

/** A stored block of telemetry, as the rules see it. */
export interface WatchedBlock {
  readonly robot: RobotRef;
  readonly block: DecodedBlock;
  readonly firstMs: number;
  readonly lastMs: number;
  readonly ingestedMs: number;
}

/** An alert of a signal rule as the database has it. */
export interface KnownAlert {
  readonly tenantId: string;
  readonly dedupeKey: string;
  readonly stream: string;
  readonly raisedMs: number;
  readonly isOpen: boolean;
  readonly isFlapping: boolean;
  /** Closed by a person. */
  readonly isMuted: boolean;
}

/** One rule on one stream of one robot. */
interface Watch {
  readonly rule: Rule;
  readonly spec: SignalSpec;
  /** Columns of the block that the signal is made of, and what they are called. */
  readonly columns: readonly number[];
  readonly names: readonly string[];
  readonly sign: 1 | -1;
  readonly group: Group;
  readonly machine: SignalMachine;
  past: Past | undefined;
}

/** What a time that was looked at before turned out to hold. */
interface Past {
  readonly machine: SignalMachine;
  raisedMs: number;
  clearedMs: number | undefined;
  value: number;
  name: string;
  count: number;
}

/** A rule on a robot: one alert, however many streams show it. */
interface Group {
  active: number;
  raisedMs: number;
}

interface StreamWatch {
  readonly robot: RobotRef;
  layout: StreamLayout;
  rulesVersion: number;
  watches: Watch[];
  seenMs: number;
}

/** Rules of a tenant, and a number that changes with them. */
export interface RuleSource {
  rulesOf(tenantId: string): { readonly rules: readonly Rule[]; readonly version: number };
}

/** Looks at telemetry with the rules that compare a signal. It holds what is under way and knows neither clock nor store. */
export class TelemetryWatch {
  readonly #source: RuleSource;
  readonly #streams = new Map<string, StreamWatch>();
  readonly #groups = new Map<string, Group>();
  readonly #known = new Map<string, KnownAlert>();
  readonly #raises = new Map<string, readonly number[]>();

  constructor(source: RuleSource) {
    this.#source = source;
  }

  get streamCount(): number {
    return this.#streams.size;
  }

  /** Remembers when alerts were raised before this process began, for the flap control. */
  recall(tenantId: string, dedupeKey: string, raises: readonly number[]): void {
    this.#raises.set(`${tenantId}/${dedupeKey}`, raises);
  }

  /** Takes over what the database says: alerts that other processes, or an earlier life, opened or closed. */
  reconcile(known: readonly KnownAlert[]): void {
    this.#known.clear();
    const byKey = new Map<string, KnownAlert>();
    for (const alert of known) {
      const key = `${alert.tenantId}/${alert.dedupeKey}`;
      if (alert.isOpen) this.#known.set(key, alert);
      byKey.set(key, alert);
    }
    for (const { robot, layout, watches } of this.#streams.values()) {
      for (const watch of watches) {
        const alert = byKey.get(`${robot.tenantId}/${dedupeKeyOf(watch.rule.ruleId, robot.robotId)}`);
        if (alert) settle(watch, alert, layout.stream);
      }
    }
  }

  /** Looks at one block, once. */
  look(entry: WatchedBlock): Finding[] {
    const { robot, block } = entry;
    const streamKey = `${robot.tenantId}\n${robot.robotId}\n${block.layout.stream}`;
    const { rules, version } = this.#source.rulesOf(robot.tenantId);
    let stream = this.#streams.get(streamKey);
    if (!stream || stream.rulesVersion !== version || !sameLayout(stream.layout, block.layout)) {
      stream = this.#plan(robot, block.layout, rules, version, stream);
      this.#streams.set(streamKey, stream);
    }
    stream.seenMs = entry.ingestedMs;
    const findings: Finding[] = [];
    for (const watch of stream.watches) {
      if (entry.firstMs < watch.machine.lastMs - PAST_MS) lookBack(watch, entry, findings);
      else lookOn(watch, entry, findings);
    }
    return findings;
  }

  /** Ends what was found in the past and nobody goes on with, and forgets streams that fell silent. */
  tidy(nowMs: number): Finding[] {
    const findings: Finding[] = [];
    for (const [key, stream] of this.#streams) {
      for (const watch of stream.watches) {
        if (watch.past && nowMs - stream.seenMs > PAST_MS) endPast(watch, stream.robot, findings);
      }
      const isIdle = stream.watches.every((watch) => watch.machine.isIdle);
      if (isIdle && nowMs - stream.seenMs > IDLE_MS) this.#streams.delete(key);
    }
    return findings;
  }

  #plan(
    robot: RobotRef,
    layout: StreamLayout,
    rules: readonly Rule[],
    version: number,
    before: StreamWatch | undefined,
  ): StreamWatch {
    const watches: Watch[] = [];
    for (const rule of rules) {
      if (!rule.enabled || (rule.robotIds && !rule.robotIds.includes(robot.robotId))) continue;
      const spec = signalSpecOf(rule.condition, rule.flap);
      const found = spec && columnsOf(spec, layout);
      if (!spec || !found) continue;
      const key = `${robot.tenantId}/${dedupeKeyOf(rule.ruleId, robot.robotId)}`;
      const group = this.#groups.get(key) ?? { active: 0, raisedMs: 0 };
      this.#groups.set(key, group);
      const old = before?.watches.find((watch) => watch.rule === rule);
      const machine = old?.machine ?? new SignalMachine(spec, this.#raises.get(key));
      const sign = spec.comparison.operator.startsWith('>') ? 1 : -1;
      const watch: Watch = { rule, spec, ...found, sign, group, machine, past: old?.past };
      const known = old ? undefined : this.#known.get(key);
      if (known) settle(watch, known, layout.stream);
      watches.push(watch);
    }
    for (const old of before?.watches ?? [])
      if (old.machine.isActive && !watches.some((watch) => watch.machine === old.machine)) old.group.active -= 1;
    return { robot, layout, rulesVersion: version, watches, seenMs: 0 };
  }
}

/** Which columns a signal is; `undefined` when the stream has none of it. */
function columnsOf(
  { comparison: { signal } }: SignalSpec,
  layout: StreamLayout,
): { columns: number[]; names: string[] } | undefined {
  if (signal.kind !== layout.kind || (signal.stream !== undefined && signal.stream !== layout.stream)) return undefined;
  const range = fieldRange(layout, signal.field);
  if (!range) return undefined;
  const columns: number[] = [];
  const names: string[] = [];
  for (let index = 0; index < range.width; index += 1) {
    const name = layout.names[index] ?? (range.width === 1 ? '' : `#${index}`);
    if (signal.name !== undefined && name !== signal.name) continue;
    columns.push(range.start + index);
    names.push(name);
  }
  return columns.length === 0 ? undefined : { columns, names };
}

function settle(watch: Watch, alert: KnownAlert, stream: string): void {
  const { machine, group } = watch;
  if (alert.isOpen) {
    if (machine.isActive) machine.isFlapping = alert.isFlapping;
    else if (group.active === 0 && (alert.stream === stream || alert.stream === '')) {
      machine.adopt(alert.isFlapping);
      group.active += 1;
      group.raisedMs = alert.raisedMs;
    }
  } else if (machine.isActive && alert.raisedMs >= group.raisedMs) {
    machine.release(alert.isMuted);
    group.active = Math.max(0, group.active - 1);
  }
}

/** The worst value of a row. Missing values say nothing; a row without any is NaN. */
function worstOf(watch: Watch, block: DecodedBlock, row: number): { value: number; index: number } {
  let value = Number.NaN;
  let index = 0;
  for (let at = 0; at < watch.columns.length; at += 1) {
    const measured = block.cells[(watch.columns[at] as number) * block.count + row] as number;
    if (Number.isNaN(value) || watch.sign * measured > watch.sign * value) {
      value = measured;
      index = at;
    }
  }
  return { value, index };
}

/** Whether any value of the block is beyond the limit: one pass, without times. */
function hasBeyond({ columns, spec }: Watch, block: DecodedBlock): boolean {
  const { cells, count } = block;
  for (const column of columns) {
    for (let at = column * count; at < (column + 1) * count; at += 1)
      if (isBeyond(spec.comparison, cells[at] as number)) return true;
  }
  return false;
}

function lookOn(watch: Watch, { robot, block, lastMs, ingestedMs }: WatchedBlock, findings: Finding[]): void {
  const { machine, group, rule, names } = watch;
  if (machine.isIdle && !hasBeyond(watch, block)) {
    machine.lastMs = Math.max(machine.lastMs, lastMs);
    return;
  }
  const recordedAt = rowTimes(block, ingestedMs);
  for (let row = 0; row < block.count; row += 1) {
    const { value, index } = worstOf(watch, block, row);
    const atMs = recordedAt(row);
    const step = machine.step(atMs, value);
    if (!step) continue;
    const evidence = { recordedMs: atMs, ingestedMs };
    const shared = { robot, rule, evidence, isLate: isLate(atMs, ingestedMs) };
    if (step.change === 'raise') {
      group.active += 1;
      if (group.active > 1) continue;
      group.raisedMs = step.atMs;
      const details = detailsOf(watch, block, names[index] ?? '', value, step.sinceMs);
      findings.push({ ...shared, action: 'raise', atMs: step.atMs, value, isFlapping: step.isFlapping, details });
    } else {
      group.active = Math.max(0, group.active - 1);
      if (group.active === 0) findings.push({ ...shared, action: 'clear', atMs: step.atMs, value, details: {} });
    }
  }
}

/** Telemetry of a time that was looked at before: it makes history and touches nothing that is open. */
function lookBack(watch: Watch, { robot, block, firstMs, ingestedMs }: WatchedBlock, findings: Finding[]): void {
  if (watch.past && firstMs < watch.past.machine.lastMs) endPast(watch, robot, findings);
  if (!watch.past && !hasBeyond(watch, block)) return;
  watch.past ??= {
    machine: new SignalMachine(watch.spec),
    raisedMs: 0,
    clearedMs: undefined,
    value: 0,
    name: '',
    count: 0,
  };
  const { past } = watch;
  const recordedAt = rowTimes(block, ingestedMs);
  for (let row = 0; row < block.count; row += 1) {
    const { value, index } = worstOf(watch, block, row);
    const step = past.machine.step(recordedAt(row), value);
    past.clearedMs = step?.change === 'clear' ? step.atMs : step ? undefined : past.clearedMs;
    if (step?.change !== 'raise') continue;
    past.count += 1;
    if (past.count > 1) continue;
    Object.assign(past, { raisedMs: step.atMs, value, name: watch.names[index] ?? '' });
  }
}

/** One episode for all that the past showed. */
function endPast(watch: Watch, robot: RobotRef, findings: Finding[]): void {
  const { past } = watch;
  watch.past = undefined;
  if (!past || past.count === 0) return;
  const { signal } = watch.spec.comparison;
  findings.push({
    robot,
    rule: watch.rule,
    action: 'episode',
    atMs: past.raisedMs,
    clearedAtMs: past.clearedMs ?? past.machine.lastMs,
    occurrences: past.count,
    value: past.value,
    isLate: true,
    details: { signal: `${signal.kind}.${signal.field}`, name: past.name },
  });
}

function detailsOf(
  { spec }: Watch,
  { layout }: DecodedBlock,
  name: string,
  value: number,
  sinceMs: number,
): Record<string, unknown> {
  const { signal, operator, value: limit } = spec.comparison;
  return {
    signal: `${signal.kind}.${signal.field}`,
    stream: layout.stream,
    ...(name === '' ? {} : { name }),
    operator,
    limit,
    value,
    since: new Date(sinceMs).toISOString(),
  };
}
