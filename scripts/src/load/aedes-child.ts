/**
 * The peer of the broker's measurement: aedes over mutual TLS and nothing behind it but a listener that looks at the
 * length of each message. Says its port to the parent; ends with it.
 */
import { readFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { createServer } from 'node:tls';
import { Aedes } from 'aedes';

const [, , keyFile = '', certificateFile = '', caFile = ''] = process.argv;
process.on('disconnect', () => process.exit(0));

let bytes = 0;
const broker = await Aedes.createBroker();
await new Promise<void>((resolve) =>
  broker.subscribe(
    'outrider/v1/+/up/+',
    (packet, done) => {
      bytes += packet.payload.length;
      done();
    },
    resolve,
  ),
);
const [key, cert, ca] = [keyFile, certificateFile, caFile].map((file) => readFileSync(file));
const options = { key, cert, ca, requestCert: true, rejectUnauthorized: true, noDelay: true };
const server = createServer(options, (socket) => {
  socket.on('error', () => undefined);
  broker.handle(socket);
});
server.listen(0, '127.0.0.1', () => process.send?.((server.address() as AddressInfo).port));
process.on('message', () => process.send?.(bytes));
