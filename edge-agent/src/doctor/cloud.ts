import { readFileSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { isIP } from 'node:net';
import { connect } from 'node:tls';
import { errorMessage } from '@outrider/shared/errors';
import type { Clock } from '@outrider/shared/time';
import type { AgentConfig } from '../config.ts';
import { IdentityStore, type StoredIdentity } from '../enroll/identity.ts';
import type { AgentStatus } from '../local-api/status.ts';
import { type Check, type Finding, fail, ok, warn } from './finding.ts';

type Found = Omit<Finding, 'area'>;

const TIMEOUT_MS = 5000;
/** TLS 1.3 lets the server refuse our certificate only after the handshake. */
const REFUSAL_WAIT_MS = 300;
const SKEW_WARN_MS = 60_000;
const OFFLINE_MEND =
  'fine while the robot is offline: it keeps everything. Else look at the network and at cloud in edge.yaml';
/** Errors that mean a wall and not a dead line. */
const DISTRUST = /certificate|CERT|self-signed|SELF_SIGNED|alert|altnames|unable to verify|issuer/i;

/** Real connections to the cloud, each bounded in time. Without a network they warn: a robot must work without one. */
export function cloudChecks(config: AgentConfig, status: AgentStatus | undefined, clock: Clock): Check[] {
  return [
    { area: 'cloud https', run: () => httpFindings(config, clock) },
    { area: 'cloud mqtt', run: () => mqttFindings(config, status, clock) },
  ];
}

async function httpFindings(config: AgentConfig, clock: Clock): Promise<Found[]> {
  const { httpUrl } = config.cloud;
  const url = new URL('/health', httpUrl);
  try {
    const { status, date, ms } = await get(url, authorityOf(config), clock);
    const skewMs = date === undefined ? 0 : clock.epochMs() - Date.parse(date);
    const found =
      status < 500
        ? ok(`${url.origin} answers ${status} in ${ms} ms`)
        : warn(`${url.origin} answers ${status}`, 'the cloud is unwell; the robot goes on by itself');
    const plain =
      url.protocol === 'http:'
        ? [warn(`${url.origin} is not encrypted`, 'use an https:// address outside this machine')]
        : [];
    const isSkewed = Math.abs(skewMs) > SKEW_WARN_MS;
    const skew = isSkewed
      ? [
          warn(
            `this clock is ${Math.round(skewMs / 1000)} s ${skewMs > 0 ? 'ahead of' : 'behind'} the cloud's`,
            'turn on NTP: timedatectl set-ntp true',
          ),
        ]
      : [];
    return [found, ...plain.filter(() => !isLoopback(url.hostname)), ...skew];
  } catch (error) {
    return [
      connectionFinding(url.origin, error, 'set cloud.ca_file to the authority that signed it, or cloud.ca_sha256'),
    ];
  }
}

async function mqttFindings(config: AgentConfig, status: AgentStatus | undefined, clock: Clock): Promise<Found[]> {
  const identity = identityOf(config);
  const address = config.cloud.mqttUrl ?? identity?.mqttUrl;
  if (!identity || address === undefined)
    return [warn('not tried: this robot is not enrolled', 'outrider-edge enroll')];
  const { hostname, port } = new URL(address);
  const link = status
    ? `; the agent's link is ${status.link.state}${status.link.reason ? ` (${status.link.reason})` : ''}`
    : '';
  try {
    const ms = await shakeHands(hostname.replace(/^\[|\]$/g, ''), Number(port || 8883), identity, clock);
    const words = `${address}: TLS with this robot's certificate in ${ms} ms${link}`;
    const isDown = status !== undefined && status.link.state !== 'connected' && status.link.state !== 'online';
    return [
      isDown && status.link.reason
        ? warn(words, 'look at the reason; outrider-edge status shows when it changes')
        : ok(words),
    ];
  } catch (error) {
    return [connectionFinding(address, error, 'the certificate is not (or no longer) accepted: outrider-edge enroll')];
  }
}

function connectionFinding(where: string, error: unknown, distrusted: string): Found {
  const words = errorMessage(error) || String((error as NodeJS.ErrnoException).code ?? 'failed');
  return DISTRUST.test(`${words} ${(error as NodeJS.ErrnoException).code ?? ''}`)
    ? fail(`${where}: ${words}`, distrusted)
    : warn(`${where}: ${words}`, OFFLINE_MEND);
}

function get(
  url: URL,
  ca: string | undefined,
  clock: Clock,
): Promise<{ status: number; date: string | undefined; ms: number }> {
  const started = clock.monotonicMs();
  const send = url.protocol === 'https:' ? httpsRequest : httpRequest;
  return new Promise((resolve, reject) => {
    const call = send(url, { agent: false, ...(ca === undefined ? {} : { ca }) });
    const timer = setTimeout(() => call.destroy(new Error(`no answer within ${TIMEOUT_MS} ms`)), TIMEOUT_MS);
    call.once('error', (error) => {
      clearTimeout(timer);
      reject(error);
    });
    call.once('response', (response) => {
      clearTimeout(timer);
      response.resume();
      resolve({
        status: response.statusCode ?? 0,
        date: response.headers.date,
        ms: Math.round(clock.monotonicMs() - started),
      });
      call.destroy();
    });
    call.end();
  });
}

/** TLS only: an MQTT session with this name would throw out the agent's own. */
function shakeHands(host: string, port: number, identity: StoredIdentity, clock: Clock): Promise<number> {
  const started = clock.monotonicMs();
  return new Promise((resolve, reject) => {
    const { privateKey: key, certificate: cert, ca } = identity;
    const socket = connect({ host, port, key, cert, ca, ...(isIP(host) === 0 ? { servername: host } : {}) });
    const settle = (then: () => void): void => {
      clearTimeout(timer);
      socket.destroy();
      then();
    };
    const timer = setTimeout(() => settle(() => reject(new Error(`no answer within ${TIMEOUT_MS} ms`))), TIMEOUT_MS);
    socket.once('error', (error) => settle(() => reject(error)));
    socket.once('secureConnect', () => {
      const ms = Math.round(clock.monotonicMs() - started);
      socket.once('close', () =>
        settle(() => reject(new Error('the broker closed the connection: certificate refused'))),
      );
      setTimeout(() => settle(() => resolve(ms)), REFUSAL_WAIT_MS);
    });
  });
}

function authorityOf(config: AgentConfig): string | undefined {
  if (config.cloud.caFile !== undefined) return readFileSync(config.cloud.caFile, 'utf8');
  return (
    new IdentityStore(config.stateDir).loadPinnedCa() ??
    (config.cloud.caSha256 === undefined ? undefined : identityOf(config)?.ca)
  );
}

function identityOf(config: AgentConfig): StoredIdentity | undefined {
  try {
    return new IdentityStore(config.stateDir).load();
  } catch {
    return undefined; // The check of the identity says why.
  }
}

const isLoopback = (host: string): boolean => /^(localhost|127(\.\d+){3}|\[?::1\]?)$/.test(host);
