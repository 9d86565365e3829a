import { errorMessage } from '@outrider/shared/errors';

/** How a check came out. `warn`: works, or may be meant so; look at it. */
export type FindingState = 'ok' | 'warn' | 'fail';

/** One line of the doctor. */
export interface Finding {
  readonly area: string;
  readonly state: FindingState;
  /** What was found, with the figures. */
  readonly what: string;
  /** How to mend it; absent when there is nothing to mend. */
  readonly mend?: string;
}

/** One check; gives at least one finding. */
export interface Check {
  readonly area: string;
  run(): Promise<readonly Omit<Finding, 'area'>[]> | readonly Omit<Finding, 'area'>[];
}

/** Longest that a check may take; its own limits are shorter. */
const CHECK_TIMEOUT_MS = 20_000;

export const ok = (what: string): Omit<Finding, 'area'> => ({ state: 'ok', what });
export const warn = (what: string, mend: string): Omit<Finding, 'area'> => ({ state: 'warn', what, mend });
export const fail = (what: string, mend: string): Omit<Finding, 'area'> => ({ state: 'fail', what, mend });

/** Runs checks side by side. One that throws or hangs is a finding too, never the end of the others. */
export async function runChecks(checks: readonly Check[], timeoutMs = CHECK_TIMEOUT_MS): Promise<Finding[]> {
  const findings = await Promise.all(
    checks.map(async (check) => {
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise<readonly Omit<Finding, 'area'>[]>((resolve) => {
        const words = `was not done within ${timeoutMs / 1000} s`;
        timer = setTimeout(
          () => resolve([warn(words, 'run doctor again; something on this machine is very slow')]),
          timeoutMs,
        );
      });
      try {
        const found = await Promise.race([Promise.resolve().then(() => check.run()), late]);
        return found.map((finding) => ({ area: check.area, ...finding }));
      } catch (error) {
        const mend = 'this is unexpected; take a support bundle: outrider-edge support-bundle --out bundle.tar.gz';
        return [{ area: check.area, ...fail(`the check itself failed: ${errorMessage(error)}`, mend) }];
      } finally {
        clearTimeout(timer);
      }
    }),
  );
  return findings.flat();
}

/** The findings for a person, and a last line that sums them up. */
export function formatFindings(findings: readonly Finding[]): string {
  const width = Math.max(...findings.map(({ area }) => area.length), 0) + 2;
  const lines = findings.flatMap(({ area, state, what, mend }) => [
    `${state.padEnd(6)}${area.padEnd(width)}${what}`,
    ...(mend === undefined ? [] : [`${' '.repeat(6 + width)}-> ${mend}`]),
  ]);
  const count = (state: FindingState): number => findings.filter((finding) => finding.state === state).length;
  const [failed, warned] = [count('fail'), count('warn')];
  const sum =
    failed + warned === 0
      ? 'Everything is well.'
      : `${failed === 0 ? 'Nothing failed' : `${failed} failed`}, ${warned} to look at, ${count('ok')} well.`;
  return [...lines, '', sum].join('\n');
}
