import { DomainError, errorMessage } from '@outrider/shared/errors';
import { loadConfig } from './config.ts';
import type { ConfigRequest } from './config-process.ts';
import { loadGuardConfig } from './guard/guard-config.ts';

/** Answers one request of `config-process.ts` on standard output. */
async function answer(): Promise<object> {
  const { part, file, overrides }: ConfigRequest = JSON.parse(process.argv[2] ?? '');
  try {
    return { config: part === 'guard' ? await loadGuardConfig(file) : loadConfig(file, overrides) };
  } catch (error) {
    if (!(error instanceof DomainError)) return { error: { code: 'internal', message: errorMessage(error) } };
    return { error: { code: error.code, message: error.message, problems: error.problems } };
  }
}

process.stdout.write(JSON.stringify(await answer()));
