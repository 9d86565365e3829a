import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { DomainError, errorMessage } from '@outrider/shared/errors';
import { deviceName } from '@outrider/shared/ids';
import { type Clock, toIso } from '@outrider/shared/time';
import Database from 'better-sqlite3';
import { BoxShelf } from '../blackbox/shelf.ts';
import type { AgentConfig } from '../config.ts';
import { IdentityStore, type StoredIdentity } from '../enroll/identity.ts';
import { LatchStore } from '../guard/latch-store.ts';
import type { AgentStatus } from '../local-api/status.ts';
import { databasePath, StateLock } from '../outbox/database.ts';
import { type Check, type Finding, fail, ok, warn } from './finding.ts';

type Found = Omit<Finding, 'area'>;

const DAY_MS = 86_400_000;
const EXPIRY_WARN_DAYS = 14;
/** A larger file is not read through: that would take minutes on a slow card. */
const CHECK_BYTES_MAX = 1024 * 1024 * 1024;

/** Agent, guard, latches, outbox, black boxes, identity: what lies in the state directory. */
export function stateChecks(config: AgentConfig, status: AgentStatus | undefined, clock: Clock): Check[] {
  return [
    { area: 'agent', run: () => agentFindings(config, status) },
    { area: 'guard', run: () => guardFindings(config, status) },
    { area: 'latches', run: () => latchFindings(config) },
    { area: 'outbox', run: () => outboxFindings(config, status) },
    { area: 'black box', run: () => boxFindings(config) },
    { area: 'identity', run: () => identityFindings(config, clock) },
  ];
}

function agentFindings({ localApi }: AgentConfig, status: AgentStatus | undefined): Found[] {
  if (!status)
    return [
      warn(
        `no agent answers on ${localApi.socketPath}`,
        'start it: systemctl start outrider-edge, or outrider-edge run',
      ),
    ];
  const bad = status.sources.filter(({ state }) => state === 'failed' || state === 'stale');
  return [
    ok(`version ${status.agent.version}, pid ${status.agent.pid}, up ${Math.round(status.agent.uptime_s)} s`),
    ...bad.map(({ source, stream, state, code, message }) =>
      warn(
        `source ${stream ?? source} is ${state}${code ? ` (${code})` : ''}`,
        message ?? 'look at the device or the publisher behind it; outrider-edge status shows the rates',
      ),
    ),
  ];
}

function guardFindings({ guard }: AgentConfig, status: AgentStatus | undefined): Found[] {
  if (!guard.enabled)
    return [warn('guard.enabled is false: nothing here stops the robot', 'set it to true on a robot that moves')];
  if (!status) return [warn('unknown while no agent runs to ask it', 'start the agent, then run doctor again')];
  const { failsafe } = status;
  if (!failsafe)
    return [
      fail(
        `no guard answers on ${guard.config.socketPath}`,
        'systemctl status outrider-guard, or set guard.spawn to true',
      ),
    ];
  const mcu = failsafe.mcu_state ? `, microcontroller ${failsafe.mcu_state}` : '';
  return [ok(`pid ${failsafe.guard_pid}, ${failsafe.phase}${mcu}`)];
}

async function latchFindings({ guard, stateDir }: AgentConfig): Promise<Found[]> {
  if (!guard.enabled && !existsSync(guard.config.latchDir)) return [ok('none is needed without a guard')];
  const { content } = await LatchStore.open(guard.config.latchDir);
  const { record, damage } = content;
  if (damage !== undefined && !existsSync(guard.config.latchDir))
    return [fail(`there is no latch store in ${stateDir}`, 'enrol this robot: outrider-edge enroll')];
  if (damage !== undefined)
    return [
      fail(
        `the latch store is damaged: ${damage}`,
        'the robot stays stopped; look at it, then: outrider-edge failsafe recover',
      ),
    ];
  if (record.latched.length > 0) {
    const causes = record.latched.map(({ cause, detail }) => `${cause}${detail ? ` (${detail})` : ''}`).join(', ');
    return [
      warn(`latch ${record.latchId} is set: ${causes}`, 'look at the robot, then: outrider-edge failsafe recover'),
    ];
  }
  return [ok(`both slots are whole, nothing is latched; last latch ${record.latchId}`)];
}

function outboxFindings({ stateDir, outbox }: AgentConfig, status: AgentStatus | undefined): Found[] {
  if (status) {
    const { fill, full, lanes, samples_dropped: dropped } = status.outbox;
    const records = Object.values(lanes).reduce((sum, lane) => sum + lane.records, 0);
    const words = `${(fill * 100).toFixed(1)} % full, ${records} records wait for the cloud`;
    if (full) return [fail(`${words}; nothing can be written`, 'free some disk space')];
    if (dropped > 0)
      return [warn(`${words}; ${dropped} samples were dropped`, 'raise outbox.size_max_mb, or bring the link back')];
    return [ok(words)];
  }
  const path = databasePath(stateDir);
  if (!existsSync(path)) return [ok('none yet; the agent makes it when it starts')];
  try {
    return [diskFinding(stateDir, path, outbox.sizeMaxBytes)];
  } catch (error) {
    if (error instanceof DomainError && error.code === 'already_exists')
      return [
        warn('an agent uses it but does not answer', 'it may be starting; run doctor again, else restart the agent'),
      ];
    return [
      fail(
        `${path} cannot be read: ${errorMessage(error)}`,
        'the agent sets a damaged file aside and salvages it when it starts',
      ),
    ];
  }
}

function diskFinding(stateDir: string, path: string, sizeMaxBytes: number): Found {
  const lock = new StateLock(stateDir);
  try {
    const { size } = statSync(path);
    const db = new Database(path, { fileMustExist: true });
    try {
      db.pragma('locking_mode = EXCLUSIVE');
      const { records } = db.prepare<[], { records: number }>('SELECT COUNT(*) AS records FROM telemetry').get() ?? {
        records: 0,
      };
      const words = `${Math.round(size / 1024)} kB of ${Math.round(sizeMaxBytes / 1024)} kB, ${records} telemetry records wait`;
      if (size > CHECK_BYTES_MAX) return ok(`${words}; too large to be read through here`);
      const verdict = db.pragma('quick_check(1)', { simple: true });
      return verdict === 'ok'
        ? ok(`${words}, the file is whole`)
        : fail(`${words}; damaged: ${verdict}`, 'the agent sets it aside and salvages it when it starts');
    } finally {
      db.close();
    }
  } finally {
    lock.release();
  }
}

function boxFindings({ stateDir, blackbox }: AgentConfig): Found[] {
  if (!blackbox) return [warn('blackbox.enabled is false: nothing is kept of a stop', 'set it to true')];
  const boxes = new BoxShelf(stateDir).list();
  const waiting = boxes.filter((box) => box.exported_at === null);
  if (waiting.length >= blackbox.filesMax)
    return [
      warn(
        `${waiting.length} boxes were never exported; the next stop pushes the oldest out`,
        'outrider-edge blackbox list, then blackbox export',
      ),
    ];
  return [ok(`${boxes.length} kept, ${waiting.length} of them not exported yet`)];
}

function identityFindings(config: AgentConfig, clock: Clock): Found[] {
  const enrol = 'enrol this robot: outrider-edge enroll --api-key-file FILE';
  let identity: StoredIdentity | undefined;
  try {
    identity = new IdentityStore(config.stateDir).load();
  } catch (error) {
    return [fail(errorMessage(error), enrol)];
  }
  if (!identity) return [fail('this robot has no certificate', enrol)];
  const expected = deviceName(config.device);
  if (identity.deviceName !== expected)
    return [
      fail(
        `the certificate is of ${identity.deviceName}, the configuration says ${expected}`,
        `set robot.id and robot.tenant, or ${enrol}`,
      ),
    ];
  const keyMode = statSync(join(config.stateDir, 'identity', 'current', 'key.pem')).mode & 0o077;
  if (keyMode !== 0)
    return [fail('others may read the private key', `chmod 600 ${config.stateDir}/identity/*/key.pem`)];
  const days = (identity.validTo - clock.epochMs()) / DAY_MS;
  const words = `${identity.deviceName}, certificate valid until ${toIso(identity.validTo)}`;
  if (days <= 0) return [fail(`${words}: it has expired`, enrol)];
  if (identity.validFrom > clock.epochMs())
    return [fail(`${words}, but only from ${toIso(identity.validFrom)}`, 'set the clock')];
  if (days < EXPIRY_WARN_DAYS)
    return [
      warn(`${words}: ${days.toFixed(1)} days`, 'the agent renews it when it reaches the cloud; bring the link back'),
    ];
  return [ok(`${words} (${Math.floor(days)} days)`)];
}
