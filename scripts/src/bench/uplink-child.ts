/**
 * The far end of the uplink row: a broker over TLS that reads each batch and acknowledges it as the cloud does, except
 * that it keeps nothing. Says its port to the parent; ends with it.
 */
import { readFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { createServer } from 'node:tls';
import { outrider } from '@outrider/shared/messages';
import { downTopic, parseTopic } from '@outrider/shared/protocol/topics';
import { Aedes } from 'aedes';

const { Ack, Hello, HelloReply, UplinkBatch } = outrider.v1;
const [, , keyFile = '', certificateFile = ''] = process.argv;
process.on('disconnect', () => process.exit(0));

const broker = await Aedes.createBroker();
const publish = (topic: string, payload: Uint8Array): void =>
  broker.publish({ cmd: 'publish', topic, payload: Buffer.from(payload), qos: 1, retain: false, dup: false }, () => {});

broker.on('publish', ({ topic, payload }, client) => {
  const parsed = client ? parseTopic(topic) : undefined;
  if (parsed?.direction !== 'up' || typeof payload === 'string') return;
  if (parsed.channel === 'hello') {
    const { epoch, nonce } = Hello.decode(payload);
    const lanes = [1, 2, 3].map((lane) => ({ epoch, lane, upto: 0 }));
    const reply = { epoch, nonce, lanes, wallMs: 0, namesBatches: true };
    publish(downTopic(parsed.device, 'hello'), HelloReply.encode(reply).finish());
    return;
  }
  if (parsed.channel === 'reply') return;
  const { epoch, lane, records, batchId } = UplinkBatch.decode(payload);
  const last = records.at(-1);
  const upto = Math.max(last?.seq ?? 0, last?.seqTo ?? 0);
  publish(downTopic(parsed.device, 'ack'), Ack.encode({ epoch, lane, upto, batchIds: [batchId] }).finish());
});

const key = readFileSync(keyFile);
const cert = readFileSync(certificateFile);
const server = createServer({ key, cert, ca: cert, requestCert: true, noDelay: true }, (socket) => {
  socket.on('error', () => {});
  broker.handle(socket);
});
server.listen(0, '127.0.0.1', () => process.send?.((server.address() as AddressInfo).port));
