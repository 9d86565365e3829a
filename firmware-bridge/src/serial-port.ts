import { DomainError, errorMessage } from '@outrider/shared/errors';
import { SerialPort } from 'serialport';
import type { BytePort } from './port.ts';

export const BAUD_MIN = 115_200;
export const BAUD_MAX = 3_000_000;
/** Bytes that may wait for the line. At 115,200 bit/s this is 0.36 s: older heartbeats help nobody. */
const WAITING_BYTES_MAX = 4096;

export interface SerialPortOptions {
  /** Device node, such as `/dev/ttyACM0`, or the slave of a pty. */
  readonly path: string;
  /** [bit/s] */
  readonly baud: number;
}

/**
 * Opens a serial port, exclusively, 8N1, without flow control, and without dropping DTR on close (which resets many
 * boards).
 *
 * @throws DomainError `invalid` for a baud rate out of range, `not_found`, `forbidden`, `unavailable` (taken or
 * broken), each naming the fix.
 */
export async function openSerialPort(options: SerialPortOptions): Promise<BytePort> {
  const { path, baud } = options;
  if (!Number.isInteger(baud) || baud < BAUD_MIN || baud > BAUD_MAX) {
    const reason = `must be a whole number from ${BAUD_MIN} to ${BAUD_MAX}, not ${baud}`;
    throw new DomainError('invalid', `baud ${reason}`, { problems: [{ field: 'baud', reason }] });
  }
  const port = new SerialPort({ path, baudRate: baud, lock: true, hupcl: false, autoOpen: false });
  await new Promise<void>((resolve, reject) => {
    port.open((error) => (error ? reject(explain(path, error)) : resolve()));
  });
  // What waited in the kernel was meant for whoever had the port before.
  await new Promise<void>((resolve) => port.flush(() => resolve()));
  return new RealSerialPort(port);
}

class RealSerialPort implements BytePort {
  readonly #port: SerialPort;
  #closing = false;
  #ended = false;
  #failure: Error | undefined;
  #onClose: (error?: Error) => void = () => {};

  constructor(port: SerialPort) {
    this.#port = port;
    port.on('error', (error) => this.#failed(error));
    port.on('close', (error?: Error) => this.#end(this.#closing ? undefined : (error ?? this.#failure)));
  }

  write(bytes: Uint8Array): boolean {
    if (this.#closing || this.#ended || !this.#port.isOpen) return false;
    if (this.#port.writableLength + bytes.length > WAITING_BYTES_MAX) return false;
    this.#port.write(bytes);
    return true;
  }

  onData(listener: (bytes: Uint8Array) => void): void {
    this.#port.removeAllListeners('data');
    this.#port.on('data', listener);
  }

  onClose(listener: (error?: Error) => void): void {
    this.#onClose = listener;
  }

  close(): void {
    if (this.#closing || this.#ended) return;
    this.#closing = true;
    if (this.#port.isOpen) this.#port.close(() => this.#end());
    else this.#end();
  }

  #failed(error: Error): void {
    this.#failure = error;
    if (this.#port.isOpen) this.#port.close(() => this.#end(error));
    else this.#end(error);
  }

  #end(error?: Error): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#onClose(error);
  }
}

function explain(path: string, error: Error): DomainError {
  const cause = errorMessage(error);
  const subject = 'serial_port';
  if (/No such file/i.test(cause)) {
    const fix = 'plug the MCU in, or correct the path (ls /dev/serial/by-id shows what is there)';
    return new DomainError('not_found', `there is no serial port ${path}: ${fix}`, { cause: error, subject });
  }
  if (/Permission denied|Operation not permitted/i.test(cause)) {
    const fix = 'add the user to the group dialout (sudo usermod -aG dialout <user>) and log in again';
    return new DomainError('forbidden', `${path} may not be opened: ${fix}`, { cause: error, subject });
  }
  if (/lock|busy|Resource temporarily unavailable/i.test(cause)) {
    const fix = `another program has it (fuser ${path} names it; ModemManager is a frequent one)`;
    return new DomainError('unavailable', `${path} is taken: ${fix}`, { cause: error, subject });
  }
  return new DomainError('unavailable', `${path} could not be opened: ${cause}`, { cause: error, subject });
}
