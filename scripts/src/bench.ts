import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { format, machine, type Row } from './bench/measure.ts';
import { outboxRows } from './bench/outbox-rows.ts';
import { repositoryRoot } from './stack.ts';

const started = new Date().toISOString().slice(0, 10);
const rows: Row[] = await outboxRows((line) => console.error(`  ${line} …`));

const table = [
  '| what | against | ours | theirs | ratio (lowest – highest) | goal | met |',
  '|---|---|---|---|---|---|---|',
  ...rows.map(
    ({ name, peer, ours, theirs, ratio, goal, met }) =>
      `| ${name} | ${peer} | ${ours} | ${theirs} | **${format(ratio.median)}** (${format(ratio.low)} – ${format(ratio.high)}, ${ratio.runs} pairs) | ${goal} | ${met ? 'yes' : 'no'} |`,
  ),
].join('\n');

const page = `# Benchmarks

Written by \`npm run bench\`. Each row is held against a limit or a peer measured in the same run, alternating; the
ratio is the median of the pairs with the lowest and the highest. Absolute figures are only good for this machine and
this run; the ratios are what to trust.

Machine: ${machine()}. Date: ${started}.

${table}
`;
mkdirSync(join(repositoryRoot, 'docs'), { recursive: true });
writeFileSync(join(repositoryRoot, 'docs', 'benchmarks.md'), page);
console.log(page);
if (rows.length === 0) process.exitCode = 1;
