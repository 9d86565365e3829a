import type { PeerCertificate } from 'node:tls';
import { DomainError } from '@outrider/shared/errors';
import { parseDeviceName } from '@outrider/shared/ids';
import type { Clock } from '@outrider/shared/time';
import { type ClientCertificates, parseClientName } from '../certificates/client-certificates.ts';
import type { CertificateRegistry } from '../certificates/registry.ts';
import type { Authenticator, Credentials } from '../identity/authenticator.ts';
import { coversScope, type Principal } from '../identity/principal.ts';

/** A robot speaks for itself here, and does nothing else. */
const ROBOT_SCOPES = ['telemetry:write'] as const;
/** How long a certificate that was good is taken without asking: also how late a revocation is felt. */
const CACHE_MS = 15_000;
/** While the database is away, whoever was let in before may still call: a stop must not wait for a database. */
const CACHE_AWAY_MS = 24 * 3_600_000;
const CACHE_ENTRIES_MAX = 10_000;

interface Known {
  readonly principal: Principal;
  readonly expiresAtMs: number;
  readonly checkedMs: number;
}

/** Turns a client certificate, and a token on top of it, into a principal. */
export class PeerAuthenticator {
  readonly #certificates: CertificateRegistry;
  readonly #clients: ClientCertificates;
  readonly #authenticator: Authenticator;
  readonly #clock: Clock;
  readonly #known = new Map<string, Known>();

  constructor(deps: {
    certificates: CertificateRegistry;
    clients: ClientCertificates;
    authenticator: Authenticator;
    clock: Clock;
  }) {
    this.#certificates = deps.certificates;
    this.#clients = deps.clients;
    this.#authenticator = deps.authenticator;
    this.#clock = deps.clock;
    this.#certificates.onRevoked(() => this.#known.clear());
  }

  /**
   * Who is calling. A token narrows what the certificate may do and never widens it.
   *
   * @throws DomainError `unauthenticated`, `token_expired` or `forbidden`
   */
  async authenticate(certificate: PeerCertificate | undefined, credentials: Credentials): Promise<Principal> {
    const peer = await this.#peerOf(certificate);
    if (credentials.authorization !== undefined) {
      return narrow(peer, await this.#authenticator.authenticate(credentials));
    }
    if (credentials.tenantId !== undefined && credentials.tenantId !== peer.tenantId)
      throw new DomainError('forbidden', 'x-tenant-id is not the tenant of this certificate', {
        problems: [{ field: 'x-tenant-id', reason: 'must be the tenant of the certificate, or be left out' }],
      });
    return peer;
  }

  async #peerOf(certificate: PeerCertificate | undefined): Promise<Principal> {
    if (!certificate) throw new DomainError('unauthenticated', 'a client certificate is needed');
    const fingerprint = certificate.fingerprint256.replaceAll(':', '').toLowerCase();
    const nowMs = this.#clock.monotonicMs();
    const known = this.#known.get(fingerprint);
    if (known && nowMs - known.checkedMs < CACHE_MS && this.#isCurrent(known)) return known.principal;
    let checked: Omit<Known, 'checkedMs'>;
    try {
      checked = await this.#check(String(certificate.subject.CN), fingerprint);
    } catch (error) {
      const isAway = !(error instanceof DomainError);
      if (isAway && known && nowMs - known.checkedMs < CACHE_AWAY_MS && this.#isCurrent(known)) return known.principal;
      this.#known.delete(fingerprint);
      throw error;
    }
    if (this.#known.size >= CACHE_ENTRIES_MAX) this.#known.clear();
    this.#known.set(fingerprint, { ...checked, checkedMs: nowMs });
    return checked.principal;
  }

  #isCurrent(known: Known): boolean {
    return known.expiresAtMs > this.#clock.epochMs();
  }

  async #check(commonName: string, fingerprint: string): Promise<Omit<Known, 'checkedMs'>> {
    const robot = parseDeviceName(commonName);
    if (robot) {
      const verdict = await this.#certificates.verify(robot, fingerprint);
      if (verdict.kind === 'refused') throw refused(verdict.reason);
      const { tenantId, robotId } = robot;
      const sub = `robot:${robotId}`;
      return {
        principal: { kind: 'robot', sub, tenantId, scopes: ROBOT_SCOPES, robotIds: [robotId] },
        expiresAtMs: verdict.expiresAt,
      };
    }
    const client = parseClientName(commonName);
    if (client?.kind !== 'service') throw refused('certificate is not one of a service or a robot');
    const verdict = await this.#clients.verify(client, fingerprint);
    if (verdict.kind === 'refused') throw refused(verdict.reason);
    const { scopes, robotIds } = verdict;
    const sub = `service:${client.name}`;
    return {
      principal: { kind: 'client', sub, tenantId: client.tenantId, scopes, ...(robotIds ? { robotIds } : {}) },
      expiresAtMs: verdict.expiresAt,
    };
  }
}

/** What both the certificate and the token allow, in the token's name. */
function narrow(peer: Principal, token: Principal): Principal {
  if (token.tenantId !== peer.tenantId)
    throw new DomainError('forbidden', 'the token is of another tenant than the certificate');
  const { robotIds: _all, ...rest } = token;
  const robotIds =
    peer.robotIds === undefined || token.robotIds === undefined
      ? (peer.robotIds ?? token.robotIds)
      : token.robotIds.filter((robotId) => peer.robotIds?.includes(robotId));
  return {
    ...rest,
    scopes: token.scopes.filter((scope) => coversScope(peer.scopes, scope)),
    ...(robotIds === undefined ? {} : { robotIds }),
  };
}

const refused = (reason: string): DomainError => new DomainError('unauthenticated', `the ${reason}`);
