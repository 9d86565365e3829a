import type { Logger } from '@outrider/shared/log';
import type { Registry } from 'prom-client';
import type { CertificateAuthority } from '../certificates/authority.ts';
import type { ClientCertificates } from '../certificates/client-certificates.ts';
import type { CertificateRegistry } from '../certificates/registry.ts';
import { BrokerMetrics } from './broker-metrics.ts';
import { EmbeddedBroker } from './embedded-broker.ts';
import { MqttClientBus } from './mqtt-client-bus.ts';

export interface BusParts {
  /** Absent: a broker in this process. */
  readonly mqttUrl?: string;
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  /** More names of this server in its certificate. */
  readonly serverNames: readonly string[];
  readonly authority: CertificateAuthority;
  readonly certificates: CertificateRegistry;
  /** Who may listen to events. Absent: nobody. */
  readonly clientCertificates?: ClientCertificates;
  readonly metrics: Registry;
  readonly log: Logger;
}

/** Makes the line to the robots. Start it once telemetry is served on it, so that nothing arrives unheard. */
export async function openBus(parts: BusParts): Promise<EmbeddedBroker | MqttClientBus> {
  const { authority, certificates, clientCertificates: clients, log } = parts;
  if (parts.mqttUrl !== undefined) {
    const client = await authority.cloudClientCertificate();
    const bus = new MqttClientBus({
      url: parts.mqttUrl,
      client,
      caPem: authority.caPem,
      withoutCertificate: (devices) => certificates.withoutCertificate(devices),
      log,
    });
    certificates.onRevoked((_robotPk, device) => {
      bus.disconnect(device, 'certificate is revoked').catch((error: unknown) => {
        log.error({ err: error }, 'bus.disconnect_failed');
      });
    });
    return bus;
  }
  const broker = new EmbeddedBroker({
    host: parts.host,
    port: parts.port,
    server: await authority.serverCertificate(parts.serverNames),
    caPem: authority.caPem,
    verify: (device, fingerprint) => certificates.verify(device, fingerprint),
    ...(clients && { verifyListener: (client, fingerprint) => clients.verify(client, fingerprint) }),
    metrics: new BrokerMetrics(parts.metrics),
    log,
  });
  certificates.onRevoked((robotPk) => {
    broker.disconnectRobot(robotPk, 'certificate is revoked').catch((error: unknown) => {
      log.error({ err: error }, 'broker.disconnect_failed');
    });
  });
  return broker;
}
