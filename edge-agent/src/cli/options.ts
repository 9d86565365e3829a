import { systemClock } from '@outrider/shared/time';
import { type Command, InvalidArgumentError, Option } from './commander.ts';

const CONFIG_DEFAULT = '/etc/outrider/edge.yaml';
const SPANS_MS = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

/** Gives a command the option that all have. */
export function withConfig(command: Command): Command {
  return command.addOption(new Option('--config <file>', 'the configuration').default(CONFIG_DEFAULT)).exitOverride();
}

/** The examples at the end of a command's help. */
export const examples = (...lines: readonly string[]): string =>
  `\nExamples:\n${lines.map((line) => `  ${line}`).join('\n')}`;

/** A time as people write it: ISO 8601, or how long ago: `90s`, `15m`, `2h`, `3d`. */
export function pastTime(text: string): bigint {
  const ago = /^(\d+(?:\.\d+)?)([smhd])$/.exec(text.trim());
  if (ago) {
    const spanMs = Number(ago[1]) * SPANS_MS[ago[2] as keyof typeof SPANS_MS];
    return BigInt(Math.round(systemClock.epochMs() - spanMs)) * 1_000_000n;
  }
  const ms = Date.parse(text);
  if (Number.isNaN(ms))
    throw new InvalidArgumentError('It must be a time such as 2026-11-20T08:00:00Z, or how long ago: 15m, 2h, 3d.');
  return BigInt(ms) * 1_000_000n;
}

/** For an option that may come several times. */
export const collected = (value: string, before: readonly string[] = []): readonly string[] => [...before, value];
