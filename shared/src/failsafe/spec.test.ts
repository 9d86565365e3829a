import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { CAUSE_RULES } from './rules.ts';

const ROOT = join(import.meta.dirname, '../../../..');
const HERE = join(ROOT, 'shared/src/failsafe');
const SPEC = readFileSync(join(HERE, 'SPEC.md'), 'utf8');

/** The rows of the table under a heading, without its head. */
function rowsOf(heading: string): string[][] {
  const section = SPEC.split(/^## /m).find((part) => part.startsWith(`${heading}\n`)) ?? '';
  const lines = section.split('\n').filter((line) => line.startsWith('|'));
  return lines.slice(2).map((line) =>
    line
      .slice(1, -1)
      .split('|')
      .map((cell) => cell.trim()),
  );
}

/** The files in which a check or a test of SPEC.md lives, by the word that names it there. */
const CHECKS: Readonly<Record<string, readonly string[]>> = {
  ...Object.fromEntries(
    ['combiner', 'vectors', 'sequences', 'recovery', 'timelines'].map((name) => [name, ['testing/checks.ts']]),
  ),
  explore: ['testing/explore.ts', 'testing/invariants.ts'],
};

/** `[I1, I3–I5]` names I4 too. */
function mentions(text: string, number: number): boolean {
  for (const [, from, to] of text.matchAll(/\bI(\d+)(?:–I(\d+))?\b/g))
    if (Number(from) <= number && number <= Number(to ?? from)) return true;
  return false;
}

t.test('every invariant names checks and tests that exist and that name it', async (t) => {
  const rows = rowsOf('Invariants').filter(([name = '']) => /^I\d+$/.test(name));
  t.same(
    rows.map(([name]) => name),
    rows.map((_, i) => `I${i + 1}`),
  );
  t.ok(rows.length >= 25);
  for (const [i, [name = '', , held = '']] of rows.entries()) {
    t.not(held, '', `${name} is held by something`);
    for (const holder of held.split(/[,;] /)) {
      const rule = /^import rule `(.*)`$/.exec(holder)?.[1];
      if (rule !== undefined) {
        t.match(readFileSync(join(ROOT, '.dependency-cruiser.cjs'), 'utf8'), `name: '${rule}'`);
        continue;
      }
      const files = CHECKS[holder]?.map((file) => join(HERE, file)) ?? [
        holder.includes('/') ? join(ROOT, holder) : join(HERE, holder),
      ];
      t.ok(files.every(existsSync), `${name}: ${holder} exists`);
      const texts = files.filter(existsSync).map((file) => readFileSync(file, 'utf8'));
      const check = `check${holder.slice(0, 1).toUpperCase()}${holder.slice(1)}`;
      const own = texts.map((text) => (CHECKS[holder]?.length === 1 ? bodyOf(text, check) : text));
      t.ok(
        own.some((text) => mentions(text, i + 1)),
        `${name} is named by ${holder}`,
      );
    }
  }
});

/** An exported function with what is said before and after it, up to the next exported one. */
function bodyOf(text: string, name: string): string {
  const parts = text.split(/^(?=\/\*\*)/m);
  const start = parts.findIndex((part) => part.includes(`export function ${name}(`));
  const end = parts.findIndex((part, i) => i > start && part.includes('\nexport function '));
  return start < 0 ? '' : parts.slice(start, end < 0 ? undefined : end).join('');
}

t.test('the table of causes is the one of the program', async (t) => {
  const CLEARING = { local: 'recovery at the robot', recover: 'any recovery', auto: 'by itself' } as const;
  const said = rowsOf('Causes').map(([cause = '', mode, action, letGo = '', measured]) => ({
    cause: cause.replaceAll('`', ''),
    mode,
    action,
    letGo: letGo.replace(/, .*/, ''),
    measured,
  }));
  const real = CAUSE_RULES.map(({ cause, mode, action, clearing, monitored, optional }) => ({
    cause,
    mode,
    action,
    letGo: CLEARING[clearing],
    measured: monitored ? (optional ? 'if there' : 'yes') : 'no',
  }));
  t.same(said, real);
});

t.test('the table of transitions knows every phase and every event', async (t) => {
  const rows = rowsOf('Transitions');
  const phases = rows.flatMap(([from = '', , , to = '']) => [from, to]).join(' ');
  for (const phase of ['BOOT', 'LATCHED', 'RECOVERING', 'ARMED']) t.ok(phases.includes(phase), phase);
  const state = readFileSync(join(HERE, 'state.ts'), 'utf8');
  const union = /export type FailsafeEvent =([\s\S]*?)^export /m.exec(state)?.[1] ?? '';
  const events = [...union.matchAll(/kind: '(\w+)'/g)].map(([, kind]) => kind);
  t.ok(events.length >= 8, events.join());
  for (const kind of events) t.ok(SPEC.includes(`\`${kind}\``), `the event ${kind}`);
});
