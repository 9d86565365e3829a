import { readFileSync } from 'node:fs';
import { DomainError, errorMessage, type FieldProblem } from '@outrider/shared/errors';
import { parse } from 'yaml';
import type { z } from 'zod';
import { withPolicyFile } from '../guard/failsafe-layers.ts';
import { failsafeLimits } from '../guard/failsafe-limits.ts';
import { failsafeSchema } from '../guard/failsafe-schema.ts';
import { type CsvMapping, csvMappingSchema } from '../sources/options.ts';
import { openPlayback, type Playback, type PlaybackOptions } from '../sources/playback.ts';
import { WhatIf, type WhatIfPolicy, type WhatIfResult } from './what-if.ts';

/** Intervals looked at per stream to tell its rate. */
const INTERVALS_MAX = 10_000;

/**
 * Reads a policy: a file of failsafe options alone, or an edge.yaml with a `failsafe` section.
 *
 * @throws DomainError `invalid`, whose message and problems name each option by its path.
 */
export function loadPolicy(path: string): WhatIfPolicy {
  const document = readYaml(path);
  const isAgentFile =
    typeof document === 'object' && document !== null && ('failsafe' in document || 'robot' in document);
  const wrapped = isAgentFile ? document : { failsafe: document ?? {} };
  const { failsafe = {} } = withPolicyFile(wrapped, path) as { failsafe?: unknown };
  const settings = check(path, failsafeSchema, failsafe, isAgentFile ? 'failsafe.' : '');
  const limits = failsafeLimits(settings);
  return { ...limits, requiredStreams: settings.required_streams ?? [] };
}

/** Reads which columns of a CSV file are what. */
export const loadColumns = (path: string): CsvMapping => check(path, csvMappingSchema, readYaml(path), '');

/**
 * Runs a policy over a recording. The file is read twice: first for the rates of its streams, because a recording
 * does not say what its sources promised.
 */
export async function runWhatIf(given: WhatIfPolicy, options: PlaybackOptions): Promise<WhatIfResult> {
  const { ratesHz, motorStreams } = await survey(options);
  const thermalStreams = [...given.signals.thermalStreams, ...motorStreams];
  const whatIf = new WhatIf({ ...given, signals: { ...given.signals, thermalStreams } }, ratesHz);
  const playback = await openPlayback(options);
  try {
    for await (const sample of playback.samples()) whatIf.add(sample);
  } finally {
    await playback.close();
  }
  return whatIf.finish();
}

interface Survey {
  readonly ratesHz: ReadonlyMap<string, number>;
  /** The motor temperatures of a joint state, which our own recordings hold beside it. */
  readonly motorStreams: readonly string[];
}

async function survey(options: PlaybackOptions): Promise<Survey> {
  const lastNs = new Map<string, bigint>();
  const intervals = new Map<string, number[]>();
  const declared = new Map<string, number>();
  const joints = new Set<string>();
  const playback: Playback = await openPlayback(options);
  try {
    for await (const { layout, receivedNs } of playback.samples()) {
      const { stream, kind, declaredRateHz } = layout;
      if (kind === 'joint_state') joints.add(stream);
      if (declaredRateHz > 0) declared.set(stream, declaredRateHz);
      const before = lastNs.get(stream);
      lastNs.set(stream, receivedNs);
      const known = intervals.get(stream) ?? [];
      intervals.set(stream, known);
      if (before !== undefined && known.length < INTERVALS_MAX) known.push(Number(receivedNs - before));
    }
  } finally {
    await playback.close();
  }
  const ratesHz = new Map<string, number>();
  for (const [stream, lengths] of intervals) {
    const middle = lengths.toSorted((a, b) => a - b)[lengths.length >> 1] ?? 0;
    const measuredHz = middle > 0 ? 1e9 / middle : 0;
    ratesHz.set(stream, declared.get(stream) ?? Math.round(measuredHz * 100) / 100);
  }
  return { ratesHz, motorStreams: [...joints].map((stream) => `${stream}/temperature`) };
}

function readYaml(path: string): unknown {
  try {
    return parse(readFileSync(path, 'utf8'));
  } catch (cause) {
    throw new DomainError('invalid', `${path}: ${errorMessage(cause)}`, {
      cause,
      problems: [{ field: 'the file', reason: errorMessage(cause) }],
    });
  }
}

function check<T extends z.ZodType>(path: string, schema: T, value: unknown, prefix: string): z.output<T> {
  const result = schema.safeParse(value ?? {});
  if (result.success) return result.data;
  const problems = result.error.issues.map(
    ({ path: at, message }): FieldProblem => ({ field: `${prefix}${at.join('.')}` || 'the file', reason: message }),
  );
  const words = problems.map(({ field, reason }) => `${field}: ${reason}`).join('; ');
  throw new DomainError('invalid', `${path}: ${words}`, { problems });
}
