import { createPrivateKey, randomBytes, X509Certificate } from 'node:crypto';
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { DomainError, errorMessage } from '@outrider/shared/errors';
import type { EpochMs } from '@outrider/shared/time';

/** Generations kept: the one in use and the one before it. */
const GENERATIONS_KEPT = 2;
const STABLE_NAMES = { 'robot.crt': 'cert.pem', 'robot.key': 'key.pem', 'ca.crt': 'ca.pem' } as const;
const INSTRUCTION_KEYS_FILE = 'instruction-keys';
const FACTS_FILE = 'identity.json';

/** Who the robot is to the cloud. */
export interface Identity {
  /** PEM, PKCS #8. */
  readonly privateKey: string;
  /** PEM. */
  readonly certificate: string;
  /** PEM: who signs the broker's certificate. */
  readonly ca: string;
  readonly mqttUrl: string;
  readonly deviceName: string;
  readonly tenantId: string;
  readonly robotId: string;
}

/** An identity with what its certificate says of its time. */
export interface StoredIdentity extends Identity {
  readonly validFrom: EpochMs;
  readonly validTo: EpochMs;
  readonly serialNumber: string;
}

/**
 * The robot's key and certificates on disk. Each enrolment is a folder of its own, and `current` is a link to the
 * one in use: replacing it is one rename, so that a power cut never leaves a key beside another key's certificate.
 */
export class IdentityStore {
  readonly #directory: string;
  #cached: { readonly target: string; readonly identity: StoredIdentity } | undefined;

  constructor(stateDir: string) {
    this.#directory = join(stateDir, 'identity');
  }

  /** @throws DomainError `bad_state` when the files are there but cannot be used. */
  load(): StoredIdentity | undefined {
    const path = join(this.#directory, 'current');
    if (!existsSync(path)) return undefined;
    try {
      const facts: unknown = JSON.parse(readFileSync(join(path, FACTS_FILE), 'utf8'));
      const certificate = readFileSync(join(path, 'cert.pem'), 'utf8');
      if (this.#cached?.target === certificate) return this.#cached.identity;
      const privateKey = readFileSync(join(path, 'key.pem'), 'utf8');
      const parsed = new X509Certificate(certificate);
      if (!parsed.checkPrivateKey(createPrivateKey(privateKey))) throw new Error('cert.pem is not for key.pem');
      const identity: StoredIdentity = {
        privateKey,
        certificate,
        ca: readFileSync(join(path, 'ca.pem'), 'utf8'),
        mqttUrl: textOf(facts, 'mqtt_url'),
        deviceName: textOf(facts, 'device_name'),
        tenantId: textOf(facts, 'tenant_id'),
        robotId: textOf(facts, 'robot_id'),
        validFrom: Date.parse(parsed.validFrom) as EpochMs,
        validTo: Date.parse(parsed.validTo) as EpochMs,
        serialNumber: parsed.serialNumber,
      };
      this.#cached = { target: certificate, identity };
      return identity;
    } catch (cause) {
      throw new DomainError('bad_state', `${path} cannot be used (${errorMessage(cause)}); run: outrider-edge enroll`, {
        cause,
      });
    }
  }

  /** Makes an identity the current one. */
  save(identity: Identity): void {
    const generation = randomBytes(6).toString('hex');
    const folder = join(this.#directory, generation);
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    const { privateKey, certificate, ca, mqttUrl, deviceName, tenantId, robotId } = identity;
    const facts = { mqtt_url: mqttUrl, device_name: deviceName, tenant_id: tenantId, robot_id: robotId };
    writeDurably(join(folder, 'key.pem'), privateKey);
    writeDurably(join(folder, 'cert.pem'), certificate);
    writeDurably(join(folder, 'ca.pem'), ca);
    writeDurably(join(folder, FACTS_FILE), `${JSON.stringify(facts, null, 2)}\n`);
    syncDirectory(folder);
    const link = join(this.#directory, `current.${generation}`);
    symlinkSync(generation, link);
    renameSync(link, join(this.#directory, 'current'));
    syncDirectory(this.#directory);
    this.#linkForPeople();
    this.#forgetOld(generation);
  }

  /** Stable names for openssl and the like. */
  #linkForPeople(): void {
    for (const [name, target] of Object.entries(STABLE_NAMES)) {
      const path = join(this.#directory, name);
      if (existsSync(path)) continue;
      rmSync(path, { force: true });
      symlinkSync(join('current', target), path);
    }
  }

  /** The robot's API key, with which it asks for the next certificate. */
  loadApiKey(): string | undefined {
    const path = join(this.#directory, 'api-key');
    return existsSync(path) ? readFileSync(path, 'utf8').trim() : undefined;
  }

  saveApiKey(apiKey: string): void {
    mkdirSync(this.#directory, { recursive: true, mode: 0o700 });
    const path = join(this.#directory, 'api-key');
    writeDurably(`${path}.new`, `${apiKey}\n`);
    renameSync(`${path}.new`, path);
    syncDirectory(this.#directory);
  }

  /** The authority pinned on first use by its fingerprint. PEM. */
  loadPinnedCa(): string | undefined {
    const path = join(this.#directory, 'pinned-ca.pem');
    return existsSync(path) ? readFileSync(path, 'utf8') : undefined;
  }

  savePinnedCa(pem: string): void {
    mkdirSync(this.#directory, { recursive: true, mode: 0o700 });
    writeFileSync(join(this.#directory, 'pinned-ca.pem'), pem, { mode: 0o600 });
  }

  /** Which instruction keys are good, as the authority signed it. */
  loadInstructionKeys(): Uint8Array | undefined {
    const path = join(this.#directory, INSTRUCTION_KEYS_FILE);
    return existsSync(path) ? readFileSync(path) : undefined;
  }

  saveInstructionKeys(bytes: Uint8Array): void {
    mkdirSync(this.#directory, { recursive: true, mode: 0o700 });
    const path = join(this.#directory, INSTRUCTION_KEYS_FILE);
    writeDurably(`${path}.new`, bytes);
    renameSync(`${path}.new`, path);
    syncDirectory(this.#directory);
  }

  #forgetOld(current: string): void {
    const generations = readdirSync(this.#directory, { withFileTypes: true })
      .filter((entry) => entry.isDirectory() && entry.name !== current)
      .map((entry) => ({ name: entry.name, at: madeAt(join(this.#directory, entry.name)) }))
      .sort((a, b) => b.at - a.at);
    for (const { name } of generations.slice(GENERATIONS_KEPT - 1))
      rmSync(join(this.#directory, name), { recursive: true, force: true });
  }
}

function madeAt(folder: string): number {
  try {
    return Date.parse(new X509Certificate(readFileSync(join(folder, 'cert.pem'))).validFrom);
  } catch {
    return 0;
  }
}

function textOf(facts: unknown, key: string): string {
  const value = typeof facts === 'object' && facts !== null ? new Map(Object.entries(facts)).get(key) : undefined;
  if (typeof value !== 'string' || value === '') throw new Error(`${FACTS_FILE} lacks ${key}`);
  return value;
}

function writeDurably(path: string, content: string | Uint8Array): void {
  const file = openSync(path, 'w', 0o600);
  try {
    writeSync(file, typeof content === 'string' ? Buffer.from(content) : content);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

function syncDirectory(path: string): void {
  const directory = openSync(path, 'r');
  try {
    fsyncSync(directory);
  } finally {
    closeSync(directory);
  }
}
