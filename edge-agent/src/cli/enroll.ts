import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { DomainError, errorMessage } from '@outrider/shared/errors';
import { toIso } from '@outrider/shared/time';
import { loadConfig } from '../config.ts';
import { enrol } from '../enroll/enroller.ts';
import { IdentityStore } from '../enroll/identity.ts';
import { commissionLatchStore } from '../guard/latch-store.ts';

export interface EnrolArguments {
  readonly config: string;
  readonly apiKey?: string;
  readonly apiKeyFile?: string;
  readonly caSha256?: string;
  readonly json?: boolean;
}

/** `outrider-edge enroll`. */
export async function enrolCommand(given: EnrolArguments): Promise<void> {
  process.umask(0o077);
  const config = loadConfig(given.config);
  const store = new IdentityStore(config.stateDir);
  const givenKey = keyFrom(given);
  becomeOwnerOf(config.stateDir);
  const apiKey = givenKey ?? store.loadApiKey();
  if (!apiKey) throw new DomainError('rejected', 'an API key is needed: --api-key, --api-key-file or OUTRIDER_API_KEY');
  const settings = { device: config.device, ...config.cloud, caSha256: given.caSha256 ?? config.cloud.caSha256 };
  const identity = await enrol(settings, store, apiKey);
  // A robot that is enrolled for the first time has no latches yet; a guard without a latch store refuses to move.
  const isFirst = await commissionLatchStore(join(config.stateDir, 'latches'));
  if (given.json) {
    const { deviceName: name, mqttUrl } = identity;
    const granted = {
      device: name,
      valid_until: toIso(identity.validTo),
      mqtt_url: mqttUrl,
      latch_store_made: isFirst,
    };
    console.log(JSON.stringify(granted));
    return;
  }
  console.log(`enrolled ${identity.deviceName}, certificate valid until ${toIso(identity.validTo)}`);
  if (isFirst) console.log(`latch store made in ${join(config.stateDir, 'latches')}`);
}

/** Root must write nothing here that the agent's own user cannot read: from now on this process is that user. */
function becomeOwnerOf(stateDir: string): void {
  if (process.getuid?.() !== 0 || !existsSync(stateDir)) return;
  const { uid, gid } = statSync(stateDir);
  if (uid === 0) return;
  process.setgroups?.([gid]);
  process.setgid?.(gid);
  process.setuid?.(uid);
}

function keyFrom({ apiKey, apiKeyFile }: EnrolArguments): string | undefined {
  if (apiKeyFile === undefined) return apiKey ?? process.env['OUTRIDER_API_KEY'];
  try {
    return readFileSync(apiKeyFile, 'utf8').trim();
  } catch (cause) {
    throw new DomainError('rejected', `--api-key-file: ${errorMessage(cause)}`, { cause });
  }
}
