import type { Evaluation, Result } from './evaluate.ts';

/** Data that is there and not used, and why. */
const NOT_USED = [
  'RAD UR3e speeds: each speed is one pass over the path, so that there is nothing to learn and then judge.',
  'RAD UR3e full records: 28 and 64 samples.',
  'DFKI energy shaping: it has no desired course to compare with.',
];

/** The page that the command writes. */
export function page(evaluations: readonly Evaluation[], missing: readonly string[]): string {
  const labelled = evaluations.filter(({ results }) => results.some(({ auroc }) => !Number.isNaN(auroc)));
  const better = labelled.filter((evaluation) => bestOurs(evaluation) > bestBaseline(evaluation));
  const worse = labelled.filter((evaluation) => !better.includes(evaluation));
  const tight = evaluations.filter(({ task, results }) => {
    const ours = results.find(({ method }) => method === 'analyser');
    return ours !== undefined && rate(ours) > task.perHour * 1.5 && ours.falseAlarms > 1;
  });
  return `# Anomaly detection, measured

Written by \`npm run eval:anomaly\`; do not edit. The analyser is the one that runs on the robot and in the control plane
(\`shared/src/health\`). Every method learns, sets its alarm level and is judged on the same parts, which follow each
other in time. The alarm level is set on normal data only, for the false alarms in the column *set*. A window counts as
faulty when a sample of its newest hop is labelled. The delay is the median over the detected episodes.

${table(evaluations)}

## What it says

- The analyser, with labels where there are any to learn from, has the higher AUROC than both baselines on
  ${better.length} of ${labelled.length} tasks with faults.${worse.length > 0 ? `\n- It has not on: ${worse.map(({ task }) => task.name).join('; ')}.` : ''}
- ${
    tight.length === 0
      ? 'Its false alarms on normal data stay within one and a half times the setting everywhere.'
      : `Its false alarms are more than one and a half times the setting on: ${tight.map(({ task }) => task.name).join('; ')}. What was learnt there is minutes to hours long, and normal data later is not what it was.`
  }
- An AUROC that is high beside an F1 that is low, as on the protective stops, means: the faults rank above normal windows,
  but at so few false alarms most of them are still missed.
- The method's constants were chosen with these data sets in view. The splits keep the future out of what is learnt, but
  expect less on data that nobody has looked at yet.
- Tasks called *injected* put faults into real normal data (\`scripts/src/eval/inject.ts\`): a reading that is stuck, off
  by half of its spread, or of 70 % of its size.

## How the data was split

${evaluations.map(({ task, counts }) => `- ${task.name}: ${task.split}; ${counts.join(' / ')} windows.`).join('\n')}

## Not used, or not there

${[...NOT_USED, ...missing.map((name) => `${name}: the data was not there.`)].map((line) => `- ${line}`).join('\n')}
`;
}

function table(evaluations: readonly Evaluation[]): string {
  const head = [
    '| data set | method | AUROC | F1 | false alarms/h (set) | detected | delay |',
    '|---|---|---:|---:|---:|---:|---:|',
  ];
  const rows = evaluations.flatMap(({ task, results }) =>
    results.map((result, i) =>
      [
        '',
        i === 0 ? task.name : '',
        result.method,
        number(result.auroc, 3),
        result.episodes === 0 ? '–' : number(result.f1, 3),
        `${number(rate(result), 2)} (${number(task.perHour, 2)})`,
        result.episodes === 0 ? '–' : `${result.detected}/${result.episodes}`,
        duration(result.delayMs),
        '',
      ]
        .join(' | ')
        .trim(),
    ),
  );
  return [...head, ...rows].join('\n');
}

const rate = ({ falseAlarms, normalHours }: Result): number => falseAlarms / Math.max(1e-9, normalHours);

const isOurs = ({ method }: Result): boolean => method.startsWith('analyser');
const bestOurs = ({ results }: Evaluation): number => Math.max(...results.filter(isOurs).map(({ auroc }) => auroc));
const bestBaseline = ({ results }: Evaluation): number =>
  Math.max(...results.filter((result) => !isOurs(result)).map(({ auroc }) => auroc));

const number = (value: number, digits: number): string => (Number.isNaN(value) ? '–' : value.toFixed(digits));

function duration(ms: number): string {
  if (Number.isNaN(ms)) return '–';
  if (ms < 120_000) return `${(ms / 1000).toFixed(1)} s`;
  return ms < 7_200_000 ? `${(ms / 60_000).toFixed(0)} min` : `${(ms / 3_600_000).toFixed(1)} h`;
}
