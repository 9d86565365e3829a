import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Command } from 'commander';
import { evaluate } from './eval/evaluate.ts';
import { page } from './eval/report.ts';
import { rolling } from './eval/rolling.ts';
import { allTasks } from './eval/tasks.ts';

/** The repository, seen from the compiled file. */
const ROOT = fileURLToPath(new URL('../../../', import.meta.url));

const program = new Command('eval:anomaly')
  .description('Measure anomaly detection on real labelled data against two baselines, and write docs/anomaly.md')
  .option('--data <dir>', 'folder with fault/ and battery/', resolve(ROOT, '../shared/data'))
  .option('--out <file>', 'where to write the page', resolve(ROOT, 'docs/anomaly.md'))
  .parse();
const { data, out } = program.opts<{ data: string; out: string }>();

if (!existsSync(data)) {
  process.stderr.write(`${data} is not there; give the folder that has fault/ and battery/ with --data\n`);
  process.exit(1);
}
const { tasks, missing } = allTasks(data);
const evaluations = tasks.map((task) => {
  const evaluation = evaluate(task);
  for (const { method, auroc, f1 } of evaluation.results)
    process.stdout.write(
      `${task.name.padEnd(60)} ${method.padEnd(18)} AUROC ${auroc.toFixed(3)} F1 ${f1.toFixed(3)}\n`,
    );
  return evaluation;
});
mkdirSync(dirname(out), { recursive: true });
writeFileSync(out, page(evaluations, rolling(tasks), missing));
process.stdout.write(`written: ${out}\n`);
