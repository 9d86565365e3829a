import { createRequire } from 'node:module';
import type * as commander from 'commander';

/** What a daemon needs of commander; the reason for `createRequire` is in shared/src/log.ts. */
export const { Command, CommanderError, InvalidArgumentError, Option } = createRequire(import.meta.url)(
  'commander',
) as typeof commander;
export type Command = commander.Command;
