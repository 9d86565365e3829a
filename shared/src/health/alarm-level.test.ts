import t from 'tap';
import { AlarmLevel, alarmBasis, hoursOf, hoursToShow } from './alarm-level.ts';

const WINDOW_MS = 1000;
const HOUR = 3600;

/** A repeatable generator of uniform numbers. */
function uniformOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return (state + 0.5) / 2 ** 32;
  };
}

/** Scores as normal windows give them: exponential, and alike for a while as overlapping windows are. */
function normalScores(seed: number, count: number, stays = 1): number[] {
  const uniform = uniformOf(seed);
  let score = 1;
  return Array.from({ length: count }, (_, i) => {
    if (i % stays === 0) score = 1 - 0.4 * Math.log(uniform());
    return score;
  });
}

const raisedBy = (level: AlarmLevel, scores: readonly number[]): number =>
  scores.filter((score) => level.observe(score) === 'raised').length;

t.test(
  'short learning data leads to no more alarms than were set, windows that resemble each other included',
  async (t) => {
    for (const stays of [1, 5, 30]) {
      let alarms = 0;
      const perHour = 1;
      for (let seed = 1; seed <= 60; seed += 1) {
        const basis = alarmBasis(normalScores(seed, 600, stays), WINDOW_MS, perHour);
        alarms += raisedBy(new AlarmLevel(basis, WINDOW_MS, perHour), normalScores(seed + 1000, HOUR, stays));
      }
      t.ok(alarms <= 60 * 1.25, `${alarms} in 60 h with runs of ${stays}`);
    }
  },
);

t.test('peaks that all come from one part of the work count as fewer', async (t) => {
  const alike = normalScores(3, 1000);
  const apart = alike.map((score, i) => (i < 800 ? score : score + 1));
  const independent = [alike, apart].map((scores) => {
    const { peaks, clumping } = alarmBasis(scores, WINDOW_MS, 1);
    return peaks / clumping;
  });
  t.ok((independent[1] ?? 99) < 0.5 * (independent[0] ?? 0), independent.join());
  const basis = alarmBasis(alike, WINDOW_MS, 1);
  const [sure, unsure] = [1, 8].map((clumping) => new AlarmLevel({ ...basis, clumping }, WINDOW_MS, 1).rule.raiseAt);
  t.ok((sure ?? 9) < (unsure ?? 0), 'and fewer make a higher level');
});

t.test('the rate is a setting: it moves the level without learning anew', async (t) => {
  const basis = alarmBasis(normalScores(4, 1000), WINDOW_MS, 1);
  const levels = [0.01, 1, 10].map((perHour) => new AlarmLevel(basis, WINDOW_MS, perHour).rule.raiseAt);
  t.same(
    levels,
    levels.toSorted((a, b) => b - a),
  );
});

t.test('many normal hours sharpen the level, a slow change of normal work moves it', async (t) => {
  const basis = alarmBasis(normalScores(5, 300), WINDOW_MS, 1);
  const level = new AlarmLevel(basis, WINDOW_MS, 1);
  raisedBy(level, normalScores(6, 10 * HOUR));
  t.ok(hoursOf(level.basis, WINDOW_MS) > 9.9);
  t.ok(level.rule.raiseAt < new AlarmLevel(basis, WINDOW_MS, 1).rule.raiseAt, 'little data was careful');
  t.ok(hoursToShow(1) === 3 && hoursToShow(0.1) > 29);
  const shifted = normalScores(7, 20 * HOUR).map((score, i) => score + (0.4 * i) / (20 * HOUR));
  const alarms = raisedBy(level, shifted);
  t.ok(alarms <= 20 * 1.25, `${alarms} alarms in 20 h that drift by a scale`);
});

t.test('a fault teaches nothing while its alarm stands, and wear, however slow, ends in an alarm', async (t) => {
  const basis = alarmBasis(normalScores(8, 600), WINDOW_MS, 1);
  const level = new AlarmLevel(basis, WINDOW_MS, 1);
  raisedBy(level, normalScores(9, 600));
  const before = level.basis;
  t.equal(raisedBy(level, Array(10 * HOUR).fill(7)), 1);
  t.same(level.basis, before, 'ten hours of a fault');
  t.ok(level.isActive);
  raisedBy(level, Array(20).fill(0.5));
  t.notOk(level.isActive);

  const worn = new AlarmLevel(basis, WINDOW_MS, 1);
  let raisedAt = -1;
  const wear = normalScores(10, 200 * HOUR).map((score, i) => score + (7 * i) / (200 * HOUR));
  wear.forEach((score, i) => {
    worn.observe(score);
    if (raisedAt < 0 && worn.isActive && i > 100 * HOUR) raisedAt = i;
  });
  t.ok(raisedAt > 0);
  t.ok(worn.isActive, 'it stands at the end');
  t.ok(worn.basis.edge <= basis.ceiling);
});

t.test('scores that say nothing make a level that holds', async (t) => {
  for (const scores of [[], [0], Array(100).fill(0), [Number.NaN, Number.NaN]]) {
    const level = new AlarmLevel(alarmBasis(scores, WINDOW_MS, 1), WINDOW_MS, 1);
    t.ok(level.rule.raiseAt > 0 && Number.isFinite(level.rule.raiseAt), JSON.stringify(level.basis));
    t.equal(level.observe(Number.NaN), undefined);
    t.ok(Number.isFinite(level.rule.raiseAt));
  }
});
