import { mkdir, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { writePrivate } from '../identity/bootstrap.ts';
import type { ClientCertificates, ClientOrder } from './client-certificates.ts';

/** Issues a certificate and writes it, its key and the authority's certificate into a folder. @returns What was made. */
export async function issueClientFiles(
  certificates: ClientCertificates,
  dir: string,
  order: ClientOrder,
): Promise<Readonly<Record<string, string>>> {
  const folder = resolve(dir);
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const issued = await certificates.issue(order);
  const paths = {
    key_file: join(folder, `${order.name}.key`),
    certificate_file: join(folder, `${order.name}.pem`),
    ca_file: join(folder, 'ca.pem'),
  };
  await writePrivate(paths.key_file, issued.privateKeyPem);
  await writeFile(paths.certificate_file, issued.certificatePem);
  await writeFile(paths.ca_file, issued.caPem);
  return {
    common_name: issued.commonName,
    serial_number: issued.serialNumber,
    expires_at: new Date(issued.expiresAt).toISOString(),
    ...paths,
  };
}
