/**
 * The peer of the HTTP measurement: node:http that answers every request with the text it was given. Says its port to
 * the parent; ends with it.
 */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

process.on('disconnect', () => process.exit(0));
process.once('message', (text: string) => {
  const body = Buffer.from(text);
  const server = createServer((request, response) => {
    request.resume();
    request.on('end', () => {
      response.writeHead(200, { 'content-type': 'application/json', 'content-length': body.length });
      response.end(body);
    });
  });
  server.listen(0, '127.0.0.1', () => process.send?.((server.address() as AddressInfo).port));
});
