import { connect, createSecureContext, type SecureContext, type TLSSocket } from 'node:tls';

/** Control packet types of MQTT 3.1.1, in the high half of the first byte. */
const CONNACK = 2;
const PUBLISH = 3;
const PUBACK = 4;
const SUBACK = 9;
const KEEPALIVE_S = 60;
const PACKET_ID_MAX = 0xffff;

export interface WireOptions {
  readonly host: string;
  readonly port: number;
  readonly caPem: string;
  readonly certificatePem: string;
  readonly keyPem: string;
  readonly clientId: string;
  /** What is subscribed to, QoS 1. */
  readonly filter: string;
  /** Robots of one site share an address; sites do not. */
  readonly localAddress?: string;
  readonly onOpen: () => void;
  readonly onMessage: (topic: string, payload: Buffer) => void;
  /** The broker has taken the oldest message that it had not taken yet. */
  readonly onTaken?: () => void;
  /** Once for each connection that was tried, however it ended. */
  readonly onClose: (reason: string) => void;
}

/**
 * The few packets of MQTT 3.1.1 that a robot needs, over mutual TLS: a thousand robots in one process must cost less
 * than what they are the load for.
 */
export class WireClient {
  readonly #options: WireOptions;
  readonly #context: SecureContext;
  #socket: TLSSocket | undefined;
  #rest: Buffer = Buffer.alloc(0);
  #packetId = 0;
  #isOpen = false;
  #reason = 'closed by the other end';

  constructor(options: WireOptions) {
    this.#options = options;
    const { caPem: ca, certificatePem: cert, keyPem: key } = options;
    this.#context = createSecureContext({ ca, cert, key });
  }

  get isOpen(): boolean {
    return this.#isOpen;
  }

  connect(): void {
    const { host, port, clientId, localAddress } = this.#options;
    this.#rest = Buffer.alloc(0);
    this.#reason = 'closed by the other end';
    const socket = connect({
      host,
      port,
      secureContext: this.#context,
      servername: 'localhost',
      ...(localAddress === undefined ? {} : { localAddress }),
    });
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.on('secureConnect', () => socket.write(connectPacket(clientId)));
    socket.on('data', (chunk: Buffer) => this.#read(chunk));
    socket.on('error', (error) => {
      this.#reason = error.message;
    });
    socket.on('close', () => {
      if (this.#socket !== socket) return;
      this.#socket = undefined;
      this.#isOpen = false;
      this.#options.onClose(this.#reason);
    });
  }

  /** Sends with QoS 1, and forgets it: what counts is the answer of the application. */
  publish(topic: string, payload: Uint8Array): void {
    if (!this.#socket) return;
    this.#packetId = (this.#packetId % PACKET_ID_MAX) + 1;
    const topicBytes = Buffer.byteLength(topic);
    const length = 2 + topicBytes + 2 + payload.length;
    const head = Buffer.allocUnsafe(5 + 2 + topicBytes + 2 + payload.length);
    head[0] = (PUBLISH << 4) | 2;
    let at = writeLength(head, 1, length);
    at = head.writeUInt16BE(topicBytes, at);
    at += head.write(topic, at);
    at = head.writeUInt16BE(this.#packetId, at);
    head.set(payload, at);
    this.#socket.write(head.subarray(0, at + payload.length));
  }

  ping(): void {
    this.#socket?.write(Buffer.from([0xc0, 0]));
  }

  /** Ends the connection; `onClose` follows. */
  close(): void {
    if (this.#isOpen) this.#socket?.end(Buffer.from([0xe0, 0]));
    this.#socket?.destroy();
  }

  #read(chunk: Buffer): void {
    let bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    for (;;) {
      const packet = packetAt(bytes);
      if (!packet) break;
      this.#take(bytes[0] as number, bytes.subarray(packet.start, packet.end));
      bytes = bytes.subarray(packet.end);
    }
    this.#rest = bytes.length === 0 ? Buffer.alloc(0) : Buffer.from(bytes);
  }

  #take(first: number, body: Buffer): void {
    switch (first >> 4) {
      case CONNACK:
        if (body[1] === 0) this.#socket?.write(subscribePacket(this.#options.filter));
        else {
          this.#reason = `refused with code ${body[1]}`;
          this.#socket?.destroy();
        }
        return;
      case SUBACK:
        this.#isOpen = true;
        this.#options.onOpen();
        return;
      case PUBLISH: {
        const topicEnd = 2 + body.readUInt16BE(0);
        const isAnswered = ((first >> 1) & 3) === 1;
        if (isAnswered)
          this.#socket?.write(Buffer.from([PUBACK << 4, 2, body[topicEnd] ?? 0, body[topicEnd + 1] ?? 0]));
        this.#options.onMessage(body.toString('latin1', 2, topicEnd), body.subarray(topicEnd + (isAnswered ? 2 : 0)));
        return;
      }
      case PUBACK:
        this.#options.onTaken?.();
        return;
      default:
    }
  }
}

/** Where the first packet's body lies, when all of it is there. */
function packetAt(bytes: Buffer): { start: number; end: number } | undefined {
  let length = 0;
  for (let at = 1; at < Math.min(5, bytes.length); at += 1) {
    const byte = bytes[at] as number;
    length += (byte & 0x7f) * 128 ** (at - 1);
    if ((byte & 0x80) !== 0) continue;
    const end = at + 1 + length;
    return end <= bytes.length ? { start: at + 1, end } : undefined;
  }
  return undefined;
}

function writeLength(into: Buffer, from: number, length: number): number {
  let at = from;
  let left = length;
  do {
    const byte = left % 128;
    left = Math.floor(left / 128);
    into[at] = left > 0 ? byte | 0x80 : byte;
    at += 1;
  } while (left > 0);
  return at;
}

function packet(first: number, parts: readonly Uint8Array[]): Buffer {
  const body = Buffer.concat(parts);
  const head = Buffer.alloc(5);
  head[0] = first;
  return Buffer.concat([head.subarray(0, writeLength(head, 1, body.length)), body]);
}

const text = (value: string): Buffer => {
  const bytes = Buffer.from(value);
  return Buffer.concat([Buffer.from([bytes.length >> 8, bytes.length & 0xff]), bytes]);
};

const connectPacket = (clientId: string): Buffer =>
  packet(0x10, [text('MQTT'), Buffer.from([4, 2, 0, KEEPALIVE_S]), text(clientId)]);
const subscribePacket = (filter: string): Buffer => packet(0x82, [Buffer.from([0, 1]), text(filter), Buffer.from([1])]);
