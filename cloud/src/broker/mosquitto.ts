import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { DomainError } from '@outrider/shared/errors';
import { PAYLOAD_BYTES_MAX } from '@outrider/shared/protocol/codec';
import { type CertificateAuthority, CLOUD_COMMON_NAME } from '../certificates/authority.ts';
import { type ClientCertificates, type ClientIdentity, clientCommonName } from '../certificates/client-certificates.ts';
import type { CertificateRegistry } from '../certificates/registry.ts';
import { PACKET_BYTES_MAX } from './packet-gauge.ts';

export interface MosquittoOptions {
  /** Where the files go. Must be readable by the broker's user, and by nobody else: it holds a private key. */
  readonly dir: string;
  /** Address that both listeners bind to. */
  readonly host: string;
  /** Port for robots. */
  readonly listenPort: number;
  /** Port for replicas of the control plane: what `MQTT_URL` names. */
  readonly cloudPort: number;
  /** Names of the broker in its server certificate. */
  readonly serverNames: readonly string[];
  readonly authority: CertificateAuthority;
  readonly registry: CertificateRegistry;
  /** Programs that may listen to events. */
  readonly clients: ClientCertificates;
}

/**
 * Writes what Mosquitto 2 needs to be the robots' broker: configuration, access list, certificates and the list of
 * revoked ones. Write it again after a revocation, or when a program may newly listen to events, and send the broker
 * SIGHUP.
 *
 * Two listeners, because replicas share a certificate and need ids of their own, while a robot's id must be its
 * certificate's name: else one robot could end another's session.
 *
 * @returns Path of mosquitto.conf.
 */
export async function writeMosquittoConfig(options: MosquittoOptions): Promise<string> {
  const { authority, registry, clients } = options;
  const dir = resolve(options.dir);
  if (/[\s#]/.test(dir)) throw new DomainError('invalid', `${dir}: Mosquitto cannot read paths with blanks or #`);
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const server = await authority.serverCertificate(options.serverNames);
  await writeFile(join(dir, 'server.key'), server.privateKeyPem, { mode: 0o600 });
  await chmod(join(dir, 'server.key'), 0o600);
  await writeFile(join(dir, 'server.pem'), server.certificatePem);
  await writeFile(join(dir, 'ca.pem'), authority.caPem);
  await writeFile(join(dir, 'cloud-ca.pem'), authority.cloudCaPem);
  await writeFile(join(dir, 'revoked.pem'), await registry.revocationListPem());
  await writeFile(join(dir, 'access.acl'), accessList(await clients.list('events')));
  await chmod(join(dir, 'access.acl'), 0o600);
  const path = join(dir, 'mosquitto.conf');
  await writeFile(path, configuration(options, dir));
  return path;
}

function configuration({ host, listenPort, cloudPort }: MosquittoOptions, dir: string): string {
  const tls = [
    `certfile ${join(dir, 'server.pem')}`,
    `keyfile ${join(dir, 'server.key')}`,
    'tls_version tlsv1.2',
    'require_certificate true',
    'use_identity_as_username true',
  ];
  return `${[
    '# Written by outrider-cloud broker-config mosquitto. Changes are lost when it is written again.',
    'per_listener_settings false',
    'allow_anonymous false',
    `acl_file ${join(dir, 'access.acl')}`,
    '# Robots and replicas keep their own data, so the broker keeps nothing over a restart.',
    'persistence false',
    `message_size_limit ${PAYLOAD_BYTES_MAX}`,
    `max_packet_size ${PACKET_BYTES_MAX}`,
    'max_inflight_messages 100',
    'max_queued_messages 1000',
    `max_queued_bytes ${64 * PAYLOAD_BYTES_MAX}`,
    'max_keepalive 300',
    'set_tcp_nodelay true',
    'log_type error',
    'log_type warning',
    'log_type notice',
    '',
    '# Robots. Their client id is their certificate’s name, whatever they say.',
    `listener ${listenPort} ${host}`,
    'use_username_as_clientid true',
    `cafile ${join(dir, 'ca.pem')}`,
    `crlfile ${join(dir, 'revoked.pem')}`,
    ...tls,
    '',
    '# Replicas of the control plane, under an authority that certifies nobody else.',
    `listener ${cloudPort} ${host}`,
    `cafile ${join(dir, 'cloud-ca.pem')}`,
    ...tls,
    '',
  ].join('\n')}`;
}

/** Rights by certificate: %u is its common name, which holds neither wildcards nor slashes. */
function accessList(listeners: readonly ClientIdentity[]): string {
  return [
    `user ${CLOUD_COMMON_NAME}`,
    'topic read outrider/v1/+/up/+',
    'topic read outrider/v1/+/presence',
    'topic write outrider/v1/+/down/+',
    'topic readwrite outrider/internal/live',
    'topic write events/#',
    '',
    ...listeners.flatMap((client) => [
      `user ${clientCommonName(client)}`,
      `topic read events/${client.tenantId}/#`,
      '',
    ]),
    'pattern write outrider/v1/%u/up/+',
    'pattern write outrider/v1/%u/presence',
    'pattern read outrider/v1/%u/down/+',
    '',
  ].join('\n');
}
