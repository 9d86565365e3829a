import { execFile } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { closeSync, existsSync, fstatSync, openSync, readdirSync, readFileSync, readSync, statSync } from 'node:fs';
import { arch, cpus, loadavg, release, totalmem, type, uptime, userInfo } from 'node:os';
import { join, relative } from 'node:path';
import { DomainError, errorMessage } from '@outrider/shared/errors';
import { outrider } from '@outrider/shared/messages';
import { PROTOCOL_VERSION } from '@outrider/shared/protocol/version';
import { type Clock, toIso } from '@outrider/shared/time';
import { parse, stringify } from 'yaml';
import { BoxShelf } from '../blackbox/shelf.ts';
import { type AgentConfig, loadConfig } from '../config.ts';
import { examine } from '../doctor/doctor.ts';
import { formatFindings } from '../doctor/finding.ts';
import { IdentityStore } from '../enroll/identity.ts';
import { LatchStore } from '../guard/latch-store.ts';
import type { AgentStatus } from '../local-api/status.ts';
import { AGENT_VERSION } from '../version.ts';
import { Redactor } from './redact.ts';
import type { TarEntry } from './tar.ts';

/** What a bundle is made of. */
export interface BundlePorts {
  readonly clock: Clock;
  readonly status: (socketPath: string) => Promise<AgentStatus>;
  /** A log file, when the log goes into one. */
  readonly logFile: string | undefined;
  /** Secrets that are known from elsewhere, such as the environment. */
  readonly secrets: readonly string[];
}

const JOURNAL = 'journalctl';
const LOG_BYTES_MAX = 512 * 1024;
const LOG_LINES_MAX = 2000;
const JOURNAL_TIMEOUT_MS = 5000;
const FILES_LISTED_MAX = 1000;

const README = `Support bundle of outrider-edge.

doctor.txt, doctor.json   the examination of the set-up
config.yaml               the configuration, without comments and without secrets
status.json               what the running agent said
latches.json              the stored latches, decoded
blackboxes.json           recordings around stops, their facts alone
certificate.json          whom the certificate is for and how long, nothing of the key
files.txt                 names, sizes and modes in the state directory, no content
log.txt                   the last lines of the log
versions.json             programs and machine

Private keys, API keys, tokens, passwords and the recovery nonce were removed; telemetry is not in here.
`;

/** Collects what somebody needs who helps from afar. Every text goes through the redactor, whatever it is. */
export async function supportBundle(configPath: string, ports: BundlePorts): Promise<TarEntry[]> {
  const config = configOf(configPath);
  const redactor = new Redactor([...ports.secrets, ...(config ? secretsOf(config.stateDir) : [])]);
  const findings = await examine(configPath, ports);
  const files: Record<string, string> = {
    'README.txt': README,
    'versions.json': json(versions(ports.clock)),
    'config.yaml': configText(configPath, redactor),
    'doctor.txt': formatFindings(findings),
    'doctor.json': json(findings),
    'log.txt': await logText(ports.logFile),
  };
  if (config) {
    const status = await ports.status(config.localApi.socketPath).catch((error: unknown) => errorMessage(error));
    files['status.json'] = json(redactor.document(status));
    files['latches.json'] = json(redactor.document(await latches(config)));
    files['blackboxes.json'] = json(new BoxShelf(config.stateDir).list());
    files['certificate.json'] = json(certificate(config.stateDir));
    files['files.txt'] = listing(config.stateDir);
  }
  return Object.entries(files).map(([name, text]) => ({
    name: `outrider-support/${name}`,
    bytes: Buffer.from(redactor.text(text)),
  }));
}

const json = (value: unknown): string => `${JSON.stringify(value, null, 2)}\n`;

function configOf(path: string): AgentConfig | undefined {
  try {
    return loadConfig(path);
  } catch (error) {
    if (error instanceof DomainError) return undefined; // The doctor says what is wrong with it.
    throw error;
  }
}

/** Everything under identity/ that must not leave this robot. */
function secretsOf(stateDir: string): string[] {
  const root = join(stateDir, 'identity');
  return filesUnder(root)
    .filter((path) => /(key\.pem|api-key)$/.test(path))
    .map((path) => readFileSync(path, 'utf8'));
}

function configText(path: string, redactor: Redactor): string {
  try {
    return stringify(redactor.document(parse(readFileSync(path, 'utf8'))));
  } catch (error) {
    // Its text may hold anything: what cannot be parsed cannot be cleaned by name.
    return `# ${path} cannot be read: ${errorMessage(error).split('\n')[0]}\n`;
  }
}

function versions(clock: Clock): object {
  return {
    agent: AGENT_VERSION,
    protocol: PROTOCOL_VERSION,
    ...process.versions,
    os: `${type()} ${release()} ${arch()}`,
    distribution: existsSync('/etc/os-release')
      ? /^PRETTY_NAME="?(.*?)"?$/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1]
      : undefined,
    cpus: cpus().length,
    memory_mb: Math.round(totalmem() / 1e6),
    load: loadavg(),
    uptime_s: Math.round(uptime()),
    user: userInfo().username,
    at: toIso(clock.epochMs()),
  };
}

async function latches({ guard }: AgentConfig): Promise<object> {
  const { record, damage } = (await LatchStore.open(guard.config.latchDir)).content;
  const transitions = record.transitions.map(({ id, bytes }) => {
    try {
      return { ...outrider.v1.Transition.decode(bytes) };
    } catch (error) {
      return { id, undecodable: errorMessage(error) };
    }
  });
  return { damage: damage ?? null, ...record, transitions };
}

function certificate(stateDir: string): object {
  try {
    const identity = new IdentityStore(stateDir).load();
    if (!identity) return { enrolled: false };
    const { subject, issuer, validFrom, validTo, serialNumber, fingerprint256 } = new X509Certificate(
      identity.certificate,
    );
    return {
      enrolled: true,
      mqtt_url: identity.mqttUrl,
      subject,
      issuer,
      validFrom,
      validTo,
      serialNumber,
      fingerprint256,
    };
  } catch (error) {
    return { unusable: errorMessage(error) };
  }
}

function listing(stateDir: string): string {
  const lines = filesUnder(stateDir)
    .slice(0, FILES_LISTED_MAX)
    .map((path) => {
      const { size, mode, mtime } = statSync(path);
      return `${(mode & 0o777).toString(8)} ${String(size).padStart(12)} ${mtime.toISOString()} ${relative(stateDir, path)}`;
    });
  return `${stateDir}\n${lines.join('\n')}\n`;
}

function filesUnder(root: string): string[] {
  if (!existsSync(root)) return [];
  return readdirSync(root, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
}

/** The end of the log file, or what the journal has of both units. */
async function logText(file: string | undefined): Promise<string> {
  if (file !== undefined) return lastLines(file);
  const args = ['-u', 'outrider-edge', '-u', 'outrider-guard', '-n', String(LOG_LINES_MAX), '--no-pager', '-o', 'cat'];
  return new Promise((resolve) => {
    execFile(JOURNAL, args, { timeout: JOURNAL_TIMEOUT_MS, maxBuffer: 16 * LOG_BYTES_MAX }, (error, stdout) =>
      resolve(error ? `no journal here (${error.message.split('\n')[0]}); name a log file with --log\n` : stdout),
    );
  });
}

function lastLines(path: string): string {
  let file: number | undefined;
  try {
    file = openSync(path, 'r');
    const { size } = fstatSync(file);
    const buffer = Buffer.alloc(Math.min(size, LOG_BYTES_MAX));
    readSync(file, buffer, 0, buffer.length, size - buffer.length);
    return buffer.toString('utf8').split('\n').slice(-LOG_LINES_MAX).join('\n');
  } catch (error) {
    return `${path} cannot be read: ${errorMessage(error)}\n`;
  } finally {
    if (file !== undefined) closeSync(file);
  }
}
