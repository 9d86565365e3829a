import { resolve } from 'node:path';
import type { Command } from 'commander';
import { isoOfNs } from '../export/sample-json.ts';
import type { WhatIfResult } from '../whatif/what-if.ts';
import { examples } from './options.ts';

interface ReplayArguments {
  readonly whatIf: string;
  readonly columns?: string;
  readonly json?: boolean;
  readonly failOnStop?: boolean;
}

/** What each action does to the robot, for people. */
const ACTION_WORDS: Readonly<Record<string, string>> = {
  NONE: 'nothing is done',
  WARN: 'it is only said',
  DERATE: 'it is slowed down',
  HOLD: 'it holds where it is',
  STOP1: 'it stops under control, then its drives go off',
  STOP0: 'its drives go off at once',
};
/** Exit code for a policy that would have stopped the robot, where that was asked to be told. */
const WOULD_STOP = 3;

/** `outrider-edge replay --what-if`: what a policy would have done to a recorded run. Touches no robot. */
export function addReplay(program: Command): void {
  program
    .command('replay')
    .argument('<file>', 'a recording: .mcap, rosbag2 .db3, PX4 .ulg, or .csv with --columns')
    .description('Run a failsafe policy over a recording, in recorded time, and say what it would have stopped.')
    .requiredOption('--what-if <policy>', 'a policy file, or an edge.yaml with a failsafe section')
    .option('--columns <mapping>', 'for a .csv: a YAML that says which column is what (as `columns` in edge.yaml)')
    .option('--fail-on-stop', `exit with ${WOULD_STOP} when it would have stopped the robot`)
    .option('--json', 'as JSON')
    .exitOverride()
    .addHelpText(
      'after',
      `${examples(
        'outrider-edge replay --what-if policy.yaml drive.mcap',
        'outrider-edge replay --what-if stricter.yaml flight.ulg --json',
        'outrider-edge replay --what-if policy.yaml --columns columns.yaml run.csv --fail-on-stop',
      )}

To feed a recording through the agent instead: outrider-edge run --replay FILE`,
    )
    .action(async (file: string, given: ReplayArguments) => {
      const { loadColumns, loadPolicy, runWhatIf } = await import('../whatif/run.ts');
      const columns = given.columns === undefined ? undefined : loadColumns(resolve(given.columns));
      const options = { file: resolve(file), ...(columns && { columns }) };
      const result = await runWhatIf(loadPolicy(resolve(given.whatIf)), options);
      console.log(given.json ? JSON.stringify(jsonOf(result), null, 2) : formatWhatIf(result));
      if (given.failOnStop && result.stoppedAtS !== undefined) process.exitCode = WOULD_STOP;
    });
}

/** A result as JSON, whose numbers cannot hold ns. */
function jsonOf({ timeline, samples, durationS, stoppedAtS, readings, ratesHz }: WhatIfResult): object {
  return {
    samples,
    duration_s: durationS,
    stopped_at_s: stoppedAtS ?? null,
    timeline: timeline.map(({ atS, atNs, isStop, ...entry }) => ({
      at_s: atS,
      at: isoOfNs(atNs),
      ...entry,
      stops_the_robot: isStop,
    })),
    readings,
    rates_hz: ratesHz,
  };
}

/** A result for a person. */
export function formatWhatIf({ timeline, samples, durationS, stoppedAtS, readings, ratesHz }: WhatIfResult): string {
  const streams = Object.entries(ratesHz).map(([stream, rateHz]) => `${stream} ${rateHz} Hz`);
  const lines = timeline.map(({ atS, kind, cause, action, why, isStop }) => {
    const what = kind === 'latched' ? `${cause}: ${action}, ${ACTION_WORDS[action] ?? ''}` : `${cause} let go`;
    return `${isStop ? '=>' : '  '} ${atS.toFixed(3).padStart(10)} s  ${what}\n${' '.repeat(17)}${why}`;
  });
  const counts = Object.entries(readings).map(
    ([cause, verdicts]) =>
      `  ${cause}: ${Object.entries(verdicts)
        .map(([verdict, n]) => `${n} ${verdict}`)
        .join(', ')}`,
  );
  const verdict =
    stoppedAtS === undefined
      ? `This policy would not have stopped the robot in these ${durationS.toFixed(1)} s.`
      : `This policy would have stopped the robot ${stoppedAtS.toFixed(3)} s into the recording, ${(durationS - stoppedAtS).toFixed(1)} s before its end.`;
  return [
    `${samples} samples in ${durationS.toFixed(1)} s: ${streams.join(', ')}`,
    ...(lines.length > 0 ? ['', ...lines] : []),
    ...(counts.length > 0 ? ['', 'readings that were not clear:', ...counts] : []),
    '',
    verdict,
    'Left out, because no recording has them: the microcontroller, emergency-stop lines, agent and link.',
  ].join('\n');
}
