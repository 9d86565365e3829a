import { errorMessage } from '@outrider/shared/errors';
import { type EpochMs, toIso } from '@outrider/shared/time';

/** Why a TLS connection failed, when it is a matter of trust. */
export interface TlsTrouble {
  /** `clock`: perhaps only this robot's clock is wrong. */
  readonly kind: 'clock' | 'untrusted' | 'own_certificate';
  readonly sentence: string;
}

/**
 * Reads the failure of a TLS connection; `undefined` when it is not about trust.
 *
 * @param nowMs What this robot's clock says: certificates are judged by it, and robots without a battery for their clock
 *   wake up in 1970.
 */
export function tlsTrouble(error: unknown, who: string, nowMs: EpochMs): TlsTrouble | undefined {
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  const message = errorMessage(error);
  const clock = `this robot's clock, which says ${toIso(nowMs)}`;
  if (code === 'CERT_NOT_YET_VALID')
    return {
      kind: 'clock',
      sentence: `${who}: its certificate is not valid yet by ${clock}; set the clock (timedatectl set-time, or a time server)`,
    };
  if (code === 'CERT_HAS_EXPIRED')
    return {
      kind: 'clock',
      sentence: `${who}: its certificate has expired by ${clock}; if that is not the time, set the clock, else renew the certificate there`,
    };
  if (/SELF_SIGNED|UNABLE_TO|CERT_|DEPTH_ZERO|ERR_TLS_CERT/.test(code))
    return {
      kind: 'untrusted',
      sentence: `${who}: its certificate is not one to trust under the pinned CA (${code}: ${message})`,
    };
  if (/CERTIFICATE_EXPIRED/.test(code) || /alert certificate expired/.test(message))
    return { kind: 'own_certificate', sentence: `${who}: this robot's certificate has expired there; it is renewed` };
  if (/CERTIFICATE_REVOKED/.test(code) || /alert certificate revoked/.test(message))
    return {
      kind: 'own_certificate',
      sentence: `${who}: this robot's certificate was revoked; enrol again with a new API key`,
    };
  if (/ERR_SSL_TLSV1_ALERT|ERR_SSL_SSLV3_ALERT|ALERT_/.test(code) || /alert/.test(message))
    return {
      kind: 'own_certificate',
      sentence: `${who}: the broker does not trust this robot's certificate (${message}); enrol again`,
    };
  return undefined;
}
