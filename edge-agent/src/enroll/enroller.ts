import { readFileSync } from 'node:fs';
import { DomainError, errorMessage } from '@outrider/shared/errors';
import { type DeviceIdentity, deviceName } from '@outrider/shared/ids';
import type { Logger } from '@outrider/shared/log';
import { pause, type Service } from '@outrider/shared/service';
import { type Clock, type MonotonicMs, systemClock, toIso } from '@outrider/shared/time';
import { TrustedKeys } from '../commands/trusted-keys.ts';
import { fetchCloudTime, fetchPinnedCa, fingerprintOf, plainFingerprint, requestCertificate } from './cloud-client.ts';
import type { IdentityStore, StoredIdentity } from './identity.ts';

/** Part of a certificate's life after which the next one is asked for. */
const RENEW_AFTER = 2 / 3;
const RENEWAL_CHECK_MS = 60 * 60 * 1000;
const RENEWAL_RETRY_MS = 10 * 60 * 1000;
/** A broker that will not have us is a reason to look at the certificate, at most this often. */
const RECONSIDER_MS = 60_000;
/** A clock that is off by more is said to be wrong. */
const CLOCK_WRONG_MS = 60_000;

export interface EnrolSettings {
  readonly device: DeviceIdentity;
  readonly httpUrl: string;
  /** The cloud's authority, a PEM file. */
  readonly caFile: string | undefined;
  /** Fingerprint of the cloud's authority, known from elsewhere. */
  readonly caSha256: string | undefined;
  /** Replaces the broker address that the cloud names. */
  readonly mqttUrl: string | undefined;
}

/**
 * Gets the robot a certificate: a new key pair, a signing request, the cloud's answer over a connection that the
 * pinned authority vouches for.
 */
export async function enrol(
  settings: EnrolSettings,
  store: IdentityStore,
  apiKey: string,
  clock: Clock = systemClock,
): Promise<StoredIdentity> {
  const ca = await trustedCa(settings, store);
  // Loaded when needed: it brings ASN.1 and a reflection library, a tenth of the agent's memory.
  const { createSigningRequest } = await import('./signing-request.ts');
  const { privateKey, csr } = await createSigningRequest(deviceName(settings.device));
  const granted = await requestCertificate({
    httpUrl: settings.httpUrl,
    robotId: settings.device.robotId,
    apiKey,
    csr,
    ca,
    clock,
  });
  const expected = deviceName(settings.device);
  if (granted.device_name !== expected)
    throw new DomainError(
      'invalid',
      `the API key belongs to ${granted.device_name}, but the configuration says ${expected}; correct robot.tenant or robot.id`,
      { problems: [{ field: 'robot', reason: `is ${granted.device_name} to the cloud` }] },
    );
  store.save({
    privateKey,
    certificate: granted.certificate,
    ca: granted.ca_certificate,
    mqttUrl: settings.mqttUrl ?? granted.mqtt_url,
    deviceName: granted.device_name,
    tenantId: granted.tenant_id,
    robotId: granted.robot_id,
  });
  store.saveApiKey(apiKey);
  if (granted.instruction_keys !== undefined)
    new TrustedKeys(store, () => granted.ca_certificate).accept(Buffer.from(granted.instruction_keys, 'base64'));
  const stored = store.load();
  if (!stored) throw new DomainError('internal', 'the identity could not be read back');
  return stored;
}

/** PEM of the authority to trust, checked against the fingerprint when there is one. */
export async function trustedCa(settings: EnrolSettings, store: IdentityStore): Promise<string | undefined> {
  const { caFile, caSha256, httpUrl } = settings;
  if (caFile !== undefined) {
    const pem = readCa(caFile);
    if (caSha256 !== undefined && fingerprintOf(pem) !== plainFingerprint(caSha256))
      throw new DomainError(
        'unauthenticated',
        `${caFile} has SHA-256 ${fingerprintOf(pem)}, not the cloud.ca_sha256 of the configuration`,
      );
    return pem;
  }
  if (caSha256 !== undefined && httpUrl.startsWith('https:')) {
    const known = store.loadPinnedCa();
    if (known !== undefined && fingerprintOf(known) === plainFingerprint(caSha256)) return known;
    const pem = await fetchPinnedCa(httpUrl, caSha256);
    store.savePinnedCa(pem);
    return pem;
  }
  return undefined;
}

function readCa(path: string): string {
  try {
    const pem = readFileSync(path, 'utf8');
    fingerprintOf(pem);
    return pem;
  } catch (cause) {
    throw new DomainError(
      'invalid',
      `cloud.ca_file: ${path} is not a readable PEM certificate (${errorMessage(cause)})`,
      {
        cause,
        problems: [{ field: 'cloud.ca_file', reason: 'is not a readable PEM certificate' }],
      },
    );
  }
}

/** Asks for the next certificate in good time. A failure costs nothing but a line in the log: the old one is kept. */
export class CertificateRenewal implements Service {
  readonly name = 'certificate-renewal';
  readonly #settings: EnrolSettings;
  readonly #store: IdentityStore;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #onRenewed: () => void;
  #reconsideredAt: MonotonicMs | undefined;

  constructor(settings: EnrolSettings, store: IdentityStore, clock: Clock, log: Logger, onRenewed: () => void) {
    this.#settings = settings;
    this.#store = store;
    this.#clock = clock;
    this.#log = log;
    this.#onRenewed = onRenewed;
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) await pause((await this.renewIfDue()) ? RENEWAL_CHECK_MS : RENEWAL_RETRY_MS, signal);
  }

  /**
   * The broker would not have us. Asks the cloud what time it is, and renews when the certificate has ended by that: a
   * robot that was away for weeks, or whose clock stands still, cannot know it by itself. A certificate that has not
   * ended is left alone, so that one which was revoked is not replaced.
   */
  async reconsider(): Promise<void> {
    const now = this.#clock.monotonicMs();
    if (this.#reconsideredAt !== undefined && now - this.#reconsideredAt < RECONSIDER_MS) return;
    this.#reconsideredAt = now;
    try {
      const identity = this.#store.load();
      if (!identity) return;
      const ca = await trustedCa(this.#settings, this.#store);
      const cloudMs = await fetchCloudTime(this.#settings.httpUrl, ca, this.#clock);
      const aheadMs = cloudMs - this.#clock.epochMs();
      if (Math.abs(aheadMs) > CLOCK_WRONG_MS)
        this.#log.error(
          { here: toIso(this.#clock.epochMs()), at_the_cloud: toIso(cloudMs), ahead_s: Math.round(aheadMs / 1000) },
          'clock.wrong',
        );
      if (cloudMs >= identity.validTo) await this.#renew();
    } catch (error) {
      this.#log.warn({ reason: errorMessage(error) }, 'certificate.not_reconsidered');
    }
  }

  /** @returns False when a renewal is due and did not succeed. */
  async renewIfDue(): Promise<boolean> {
    try {
      const identity = this.#store.load();
      if (identity && this.#isDue(identity)) await this.#renew();
      return true;
    } catch (error) {
      this.#log.warn({ reason: errorMessage(error) }, 'certificate.renewal_failed');
      return false;
    }
  }

  async #renew(): Promise<void> {
    const apiKey = this.#store.loadApiKey();
    if (apiKey === undefined) return;
    const renewed = await enrol(this.#settings, this.#store, apiKey, this.#clock);
    this.#log.info({ valid_to_ms: renewed.validTo, serial: renewed.serialNumber }, 'certificate.renewed');
    this.#onRenewed();
  }

  #isDue({ validFrom, validTo }: StoredIdentity): boolean {
    return this.#clock.epochMs() >= validFrom + RENEW_AFTER * (validTo - validFrom);
  }
}
