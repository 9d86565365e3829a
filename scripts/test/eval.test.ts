import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { alarmsOf, areaUnderRoc } from '@outrider/shared/health/judging';
import t from 'tap';
import { evaluate } from '../src/eval/evaluate.ts';
import { page } from '../src/eval/report.ts';
import { type Holding, rolling } from '../src/eval/rolling.ts';
import { allTasks } from '../src/eval/tasks.ts';

const DATA = fileURLToPath(new URL('../../../../shared/data', import.meta.url));
const skip = existsSync(DATA) ? false : `no recordings: ${DATA} is not there`;

t.test('the measures count what they say', async (t) => {
  const timesMs = [0, 1000, 2000, 3000, 4000, 5000];
  const isFault = [false, false, true, true, true, false];
  t.equal(areaUnderRoc([{ scores: [1, 2, 3, 4, 5, 0], isFault, timesMs }]), 1);
  t.equal(areaUnderRoc([{ scores: [5, 5, 5, 5, 5, 5], isFault, timesMs }]), 0.5);
  t.ok(Number.isNaN(areaUnderRoc([{ scores: [1], isFault: [false], timesMs: [0] }])));
  const basis = { edge: 4, excess: 0.1, peaks: 1, clumping: 1, windows: 1000, ceiling: 5 };
  const alarms = alarmsOf([{ scores: [0, 9, 0, 9, 9, 0], isFault, timesMs }], basis, 1000, 1);
  t.match(alarms, { falseAlarms: 1, episodes: 1, detected: 1, delayMs: 0, recall: 1 });
});

t.test('on real recordings the analyser beats both baselines where its page says so', { skip }, async (t) => {
  const { tasks, missing } = allTasks(DATA);
  const wanted = tasks.filter(({ name }) => /SKAB valve|NAB|anomaly-free/.test(name));
  const evaluations = wanted.map(evaluate);
  for (const { task, results } of evaluations) {
    const of = (method: string): number => results.find((result) => result.method === method)?.auroc ?? Number.NaN;
    if (Number.isNaN(of('analyser'))) continue;
    const baseline = Math.max(of('fixed limits'), of('robust z-score'));
    t.ok(of('analyser') > baseline, `${task.name}: ${of('analyser')} against ${baseline}`);
  }
  const normal = evaluations.find(({ task }) => /anomaly-free/.test(task.name));
  const ours = normal?.results.find(({ method }) => method === 'analyser');
  if (normal && ours) t.ok(ours.falseAlarms <= 6, `${ours.falseAlarms} false alarms in ${ours.normalHours} h`);
  const holdings = rolling(wanted);
  const sum = (pick: (holding: Holding) => number): number => holdings.reduce((total, one) => total + pick(one), 0);
  const [alarms, expected] = [sum((one) => one.alarms), sum((one) => one.expected)];
  t.ok(alarms <= 1.25 * expected, `${alarms} alarms on normal data, ${expected} allowed`);
  const text = page(evaluations, holdings, missing);
  for (const { task } of evaluations) t.ok(text.includes(task.name));
});

t.test('what is not there is named', async (t) => {
  const { tasks, missing } = allTasks(t.testdir());
  t.same(tasks, []);
  t.ok(missing.includes('NAB machine temperature'));
  t.match(page([], [], missing), /NAB machine temperature: the data was not there/);
});
