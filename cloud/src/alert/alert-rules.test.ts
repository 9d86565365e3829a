import { decodeBlock, encodeBlock } from '@outrider/shared/protocol/block';
import type { Sample, StreamKind } from '@outrider/shared/telemetry';
import type { EpochMs } from '@outrider/shared/time';
import t from 'tap';
import { blockSpan } from '../telemetry/recorded-time.ts';
import { DEFAULT_RULES } from './default-rules.ts';
import { judgeEvent } from './event-judge.ts';
import type { Finding } from './finding.ts';
import { Ledger } from './ledger.ts';
import type { EventPast, PendingEvent } from './ports.ts';
import { type Condition, FLAP_DEFAULT, type FlapControl, type Rule } from './rule.ts';
import { SignalMachine, signalSpecOf } from './signal-machine.ts';
import { TelemetryWatch } from './telemetry-watch.ts';

const T0 = Date.UTC(2026, 5, 1);
const HOT = {
  signal: { kind: 'temperature', field: 'temperature' },
  operator: '>',
  value: 85,
  clearValue: 80,
} as const;
const ROBOT = { robotPk: 1, tenantId: 'default', robotId: 'RB-1' };
const ruleOf = (condition: Condition, flap: Partial<FlapControl> = {}, ruleId = 'r'): Rule => ({
  ruleId,
  name: ruleId,
  severity: 'warning',
  enabled: true,
  condition,
  flap: { ...FLAP_DEFAULT, ...flap },
});

/** Feeds `[second, value]` pairs and writes down what happens: `raise@5`. */
function timeline(rule: Rule, values: readonly (readonly [number, number])[]): string[] {
  const spec = signalSpecOf(rule.condition, rule.flap);
  if (!spec) throw new Error('not a rule of a signal');
  const machine = new SignalMachine(spec);
  return values.flatMap(([s, value]) => {
    const step = machine.step(T0 + s * 1000, value);
    if (!step) return [];
    const flapping = step.change === 'raise' && step.isFlapping ? ' flapping' : '';
    return [`${step.change}@${(step.atMs - T0) / 1000}${flapping}`];
  });
}
const every = (fromS: number, toS: number, value: number): (readonly [number, number])[] =>
  Array.from({ length: toS - fromS + 1 }, (_, i) => [fromS + i, value] as const);

t.test('a threshold raises at once, and clears past the hysteresis after the hold', async (t) => {
  const rule = ruleOf({ kind: 'threshold', ...HOT }, { clearForS: 3 });
  t.same(
    timeline(rule, [
      [0, 84],
      [1, 85],
      [2, 86],
      [3, 90],
    ]),
    ['raise@2'],
    'the limit itself is not past it',
  );
  t.same(timeline(rule, [[0, 90], ...every(1, 20, 83)]), ['raise@0'], 'between the limits nothing clears');
  t.same(timeline(rule, [[0, 90], ...every(1, 9, 79)]), ['raise@0', 'clear@1'], 'cleared as of when it was gone');
  t.same(
    timeline(rule, [[0, 90], [1, 79], [2, 79], [3, 82], ...every(4, 9, 79)]),
    ['raise@0', 'clear@4'],
    'the hold begins anew when it was not gone after all',
  );
  t.same(timeline(rule, [[0, Number.NaN], [1, 90], ...every(2, 9, Number.NaN)]), ['raise@1'], 'unknown is not nominal');
  t.same(timeline(rule, [[0, Number.POSITIVE_INFINITY]]), ['raise@0']);
});

t.test('each operator has its own side and its own edge', async (t) => {
  const at = (operator: '>' | '>=' | '<' | '<=', values: number[]): string[] =>
    timeline(
      ruleOf({ kind: 'threshold', signal: HOT.signal, operator, value: 5 }, { clearForS: 0 }),
      values.map((value, s) => [s, value]),
    );
  t.same(at('>', [5, 6, 5]), ['raise@1', 'clear@2']);
  t.same(at('>=', [4, 5, 5, 4]), ['raise@1', 'clear@3']);
  t.same(at('<', [5, 4, 5]), ['raise@1', 'clear@2']);
  t.same(at('<=', [6, 5, 5, 6]), ['raise@1', 'clear@3']);
});

t.test('a duration must hold without a break, and silence is a break', async (t) => {
  const rule = ruleOf({ kind: 'duration', ...HOT, forS: 5 });
  t.same(timeline(rule, every(0, 9, 90)), ['raise@5']);
  t.same(timeline(rule, [...every(0, 4, 90), [5, 84], ...every(6, 10, 90)]), [], 'a value within the limit breaks it');
  t.same(
    timeline(rule, [
      [0, 90],
      [60, 90],
    ]),
    [],
    'nobody knows what was in between',
  );
  t.same(timeline(rule, [[0, 90], ...every(60, 66, 90)]), ['raise@65']);
});

t.test('a repetition counts how often a value goes out, within its window', async (t) => {
  const rule = ruleOf({ kind: 'repetition', count: 3, withinS: 60, comparison: HOT }, { clearForS: 5 });
  const spike = (s: number): (readonly [number, number])[] => [
    [s, 70],
    [s + 1, 90],
    [s + 2, 90],
    [s + 3, 70],
  ];
  t.same(timeline(rule, [...spike(0), ...spike(5), ...spike(9)]), ['raise@10']);
  t.same(timeline(rule, [...spike(0), ...spike(9), ...spike(70)]), [], 'the first has left the window');
});

t.test('what comes and goes is kept open, and closes when it was quiet for the window', async (t) => {
  const rule = ruleOf({ kind: 'threshold', ...HOT }, { clearForS: 1, raises: 2, windowS: 60 });
  const toggles = Array.from(
    { length: 8 },
    (_, i) =>
      [
        [i * 4, 90],
        [i * 4 + 1, 70],
        [i * 4 + 2, 70],
      ] as const,
  ).flat();
  t.same(
    timeline(rule, toggles),
    ['raise@0', 'clear@1', 'raise@4', 'clear@5', 'raise@8 flapping'],
    'five more excursions change nothing',
  );
  t.same(timeline(rule, [...toggles, ...every(32, 100, 70)]).slice(5), ['clear@29'], 'quiet since 29 s, said at 89 s');
});

t.test('an alert that a person closed is not raised again before its cause was gone', async (t) => {
  const spec = signalSpecOf({ kind: 'threshold', ...HOT }, FLAP_DEFAULT);
  if (!spec) throw new Error('no spec');
  const machine = new SignalMachine(spec);
  t.match(machine.step(T0, 90), { change: 'raise' });
  machine.release(true);
  t.notOk(machine.step(T0 + 1000, 91), 'still there');
  t.notOk(machine.step(T0 + 2000, 70));
  t.match(machine.step(T0 + 3000, 91), { change: 'raise' }, 'again');
  machine.release(false);
  t.match(machine.step(T0 + 4000, 91), { change: 'raise' }, 'another replica saw it go');
});

/** A block of one field, a row a second. */
function blockOf(startMs: number, values: readonly number[][], kind: StreamKind = 'temperature', stream = 'mcu/temp') {
  const width = values[0]?.length ?? 0;
  const names = Array.from({ length: width }, (_, i) => `m${i}`);
  const samples = values.map(
    (row, i): Sample => ({
      layout: { stream, kind, names, fields: [{ name: 'temperature', width }], tags: {}, declaredRateHz: 1 },
      stampNs: BigInt(startMs + i * 1000) * 1_000_000n,
      receivedNs: BigInt(startMs + i * 1000) * 1_000_000n,
      receivedMonoNs: 0n,
      flags: 0,
      values: Float64Array.from(row),
    }),
  );
  return decodeBlock(encodeBlock(samples));
}

/** A watch with one rule, and what it finds: `raise@5 late`. */
function watchOf(...rules: Rule[]) {
  const watch = new TelemetryWatch({ rulesOf: () => ({ rules, version: 1 }) });
  const words = (findings: Finding[]): string[] =>
    findings.map(({ action, atMs, isLate }) => `${action}@${(atMs - T0) / 1000}${isLate ? ' late' : ''}`);
  return {
    watch,
    look(startS: number, values: readonly number[][], ingestedS = startS + 1, stream?: string): string[] {
      const block = blockOf(T0 + startS * 1000, values, 'temperature', stream);
      const ingestedMs = T0 + ingestedS * 1000;
      return words(watch.look({ robot: ROBOT, block, ...blockSpan(block, ingestedMs), ingestedMs }));
    },
    tidy: (atS: number): string[] => words(watch.tidy(T0 + atS * 1000)),
  };
}

t.test('a block is looked at by its worst joint, or by the one that the rule names', async (t) => {
  const any = watchOf(ruleOf({ kind: 'threshold', ...HOT }));
  t.same(
    any.look(0, [
      [20, 20],
      [20, 90],
    ]),
    ['raise@1'],
  );
  const named = watchOf(ruleOf({ kind: 'threshold', ...HOT, signal: { ...HOT.signal, name: 'm0' } }));
  t.same(named.look(0, [[20, 90]]), []);
  t.same(named.look(1, [[90, 20]]), ['raise@1']);
  const elsewhere = watchOf(ruleOf({ kind: 'threshold', ...HOT, signal: { ...HOT.signal, stream: 'ros/temp' } }));
  t.same(elsewhere.look(0, [[90]]), []);
  t.same(elsewhere.look(1, [[90]], 2, 'ros/temp'), ['raise@1']);
});

t.test('two streams of one robot are one alert, which clears when both are well', async (t) => {
  const { look } = watchOf(ruleOf({ kind: 'threshold', ...HOT }, { clearForS: 0 }));
  t.same(look(0, [[90]], 1, 'a'), ['raise@0']);
  t.same(look(0, [[90]], 1, 'b'), []);
  t.same(look(2, [[20]], 3, 'a'), []);
  t.same(look(3, [[20]], 4, 'b'), ['clear@3']);
});

t.test('a backlog is judged by its own time, and late', async (t) => {
  const { look } = watchOf(ruleOf({ kind: 'duration', ...HOT, forS: 2 }, { clearForS: 1 }));
  t.same(look(0, [[90], [90], [90], [90], [20], [20], [20]], 3600), ['raise@2 late', 'clear@4 late']);
  t.same(look(3600, [[90], [90], [90]], 3603), ['raise@3602'], 'and what is now is not late');
});

t.test('a time that was looked at before makes one episode, and leaves what is open alone', async (t) => {
  const { look, tidy } = watchOf(ruleOf({ kind: 'threshold', ...HOT }, { clearForS: 0 }));
  t.same(look(1000, [[90]]), ['raise@1000']);
  t.same(look(0, [[90], [20], [90], [20]], 1001), []);
  t.same(look(10, [[90], [20]], 1001), []);
  t.same(tidy(1010), ['episode@0 late']);
  t.same(tidy(1020), [], 'said once');
  t.same(look(1030, [[20]]), ['clear@1030'], 'what was open is still followed');
});

t.test('an alert that the database holds open is taken over, and clears', async (t) => {
  const rig = watchOf(ruleOf({ kind: 'threshold', ...HOT }, { clearForS: 0 }));
  const known = { tenantId: 'default', dedupeKey: 'r/RB-1', stream: 'mcu/temp', raisedMs: T0, isFlapping: false };
  rig.watch.reconcile([{ ...known, isOpen: true, isMuted: false }]);
  t.same(rig.look(5, [[90]]), [], 'not raised twice');
  t.same(rig.look(6, [[20]]), ['clear@6']);
  t.same(rig.look(7, [[90]]), ['raise@7']);
  rig.watch.reconcile([{ ...known, raisedMs: T0 + 7000, isOpen: false, isMuted: true }]);
  t.same(rig.look(8, [[90]]), [], 'a person closed it, and it still holds');
});

const event = (type: string, payload: Record<string, unknown>, atS = 0, ingestedS = atS): PendingEvent => ({
  robot: ROBOT,
  eventId: `evt_${atS}`,
  type,
  occurredMs: T0 + atS * 1000,
  ingestedMs: T0 + ingestedS * 1000,
  traceId: 'trc_1',
  payload,
});
const past = (count = 0, unlatchedS?: number): EventPast => ({
  count: async () => count,
  unlatchedAfter: async () => (unlatchedS === undefined ? undefined : T0 + unlatchedS * 1000),
});
const judge = async (one: PendingEvent, before: EventPast = past()): Promise<string[]> =>
  (await judgeEvent(one, DEFAULT_RULES, before)).map(
    ({ action, rule, isLate }) => `${rule.ruleId} ${action}${isLate ? ' late' : ''}`,
  );

t.test('events are judged by the built-in rules, in any order', async (t) => {
  const stop = { mode: 'thermal_shutdown', action: 'STOP1', latch_id: 7 };
  t.same(await judge(event('failsafe.triggered.v1', stop)), ['failsafe-latched occur']);
  t.same(await judge(event('failsafe.triggered.v1', stop, 0, 600)), ['failsafe-latched occur late']);
  t.same(await judge(event('failsafe.triggered.v1', stop), past(3)), [
    'failsafe-latched occur',
    'failsafe-repeated occur',
  ]);
  t.same(
    await judge(event('failsafe.triggered.v1', stop), past(0, 9)),
    ['failsafe-latched episode'],
    'the end came before the beginning',
  );
  t.same(await judge(event('failsafe.transition.v1', { to_phase: 'ARMED' })), ['failsafe-latched clear']);
  t.same(await judge(event('anomaly.detected.v1', { anomaly_score: 0.9, risk_level: 'critical', signals: [] })), [
    'anomaly occur',
  ]);
  t.same(await judge(event('anomaly.detected.v1', { anomaly_score: 0.2, risk_level: 'low', signals: [] })), [
    'anomaly clear',
  ]);
  t.same(await judge(event('command.unauthentic.v1', { problem: 'x' }), past(1)), ['command-unauthentic occur']);
  t.same(await judge(event('edge.started.v1', {})), []);
});

t.test('the ledger makes one open alert of a rule and a robot, and merges a past that comes in pieces', async (t) => {
  const rule = ruleOf({ kind: 'threshold', ...HOT });
  const base = { robot: ROBOT, rule, isLate: false, details: {} };
  const changes = (ledger: Ledger): string[] => ledger.news.map(({ change }) => change);
  const first = new Ledger([], [], T0);
  first.enter({ ...base, action: 'raise', atMs: T0 });
  first.enter({ ...base, action: 'raise', atMs: T0 + 1 });
  first.enter({ ...base, action: 'occur', atMs: T0 + 2 });
  first.enter({ ...base, action: 'clear', atMs: T0 + 3 });
  first.enter({ ...base, action: 'clear', atMs: T0 + 4 });
  t.same(changes(first), ['raised', 'repeated', 'cleared']);
  t.equal(first.changed.length, 1);
  t.match(first.changed[0]?.alert, { occurrences: 2, clearedAt: T0 + 3, clearedBy: null });

  const late = new Ledger([], [], T0 + 3_600_000);
  for (const s of [0, 10, 20]) {
    late.enter({ ...base, action: 'raise', atMs: T0 + s * 1000, isLate: true });
    late.enter({ ...base, action: 'clear', atMs: T0 + s * 1000 + 5000, isLate: true });
  }
  t.equal(late.changed.length, 1, 'one alert for a backlog');
  t.match(late.changed[0]?.alert, { occurrences: 3, raisedAt: T0, clearedAt: T0 + 25_000, backfilled: true });

  const [open] = new Ledger([], [], T0).changed;
  t.notOk(open);
  const acked = { ...(first.changed[0] as NonNullable<(typeof first.changed)[0]>) };
  const again = new Ledger(
    [{ ...acked, alert: { ...acked.alert, acknowledgedAt: T0 as EpochMs, acknowledgedBy: 'ann' } }],
    [],
    T0 + 9000,
  );
  again.enter({ ...base, action: 'raise', atMs: T0 + 9000, isFlapping: true });
  t.match(again.news[0], { change: 'flapping', alert: { acknowledgedBy: null, flapping: true, clearedAt: null } });
});
