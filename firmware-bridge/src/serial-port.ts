import { readSync, writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { DomainError, errorMessage } from '@outrider/shared/errors';
import type { SerialPort } from 'serialport';
import type { BytePort } from './port.ts';

const serialport = createRequire(import.meta.url)('serialport') as typeof import('serialport');

export const BAUD_MIN = 115_200;
export const BAUD_MAX = 3_000_000;
/** Bytes that may wait for the line. At 115,200 bit/s this is 0.36 s: older heartbeats help nobody. */
const WAITING_BYTES_MAX = 4096;
/** What one read takes at most: a tenth of a second at the highest rate. */
const READ_BYTES_MAX = 32 * 1024;

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
  const port = new serialport.SerialPort({ path, baudRate: baud, lock: true, hupcl: false, autoOpen: false });
  await new Promise<void>((resolve, reject) => {
    port.open((error) => (error ? reject(explain(path, error)) : resolve()));
  });
  // What waited in the kernel was meant for whoever had the port before.
  await new Promise<void>((resolve) => port.flush(() => resolve()));
  return new RealSerialPort(port);
}

/** What the serial port's binding lets us see of it on Linux and macOS. */
interface OpenBinding {
  /** Non-blocking; `null` once it is closed. */
  readonly fd: number | null;
  readonly poller: { once(event: 'readable', callback: (error: Error | null) => void): unknown };
}

/**
 * Reads and writes on the event loop itself, as soon as the kernel says that there is something. The stream of
 * serialport hands each read to a worker thread, twice per piece: three switches of threads for each frame, which take
 * half of a guard's processor time and, on a loaded machine, its punctuality.
 */
class RealSerialPort implements BytePort {
  readonly #port: SerialPort;
  readonly #binding: OpenBinding;
  readonly #buffer = new Uint8Array(READ_BYTES_MAX);
  #isReading = false;
  #closing = false;
  #ended = false;
  #failure: Error | undefined;
  #onData: (bytes: Uint8Array) => void = () => {};
  #onClose: (error?: Error) => void = () => {};

  constructor(port: SerialPort) {
    this.#port = port;
    this.#binding = openBinding(port.port);
    port.on('error', (error) => this.#failed(error));
    port.on('close', (error?: Error) => this.#end(this.#closing ? undefined : (error ?? this.#failure)));
  }

  write(bytes: Uint8Array): boolean {
    const { fd } = this.#binding;
    if (this.#closing || this.#ended || !this.#port.isOpen || fd === null) return false;
    const waiting = this.#port.writableLength;
    if (waiting + bytes.length > WAITING_BYTES_MAX) return false;
    let written = 0;
    try {
      // What waits already goes first.
      if (waiting === 0) written = writeSync(fd, bytes);
    } catch (error) {
      if (!isBusy(error)) {
        // Not here: whoever writes is in the middle of something.
        setImmediate(() => this.#failed(toError(error)));
        return false;
      }
    }
    if (written < bytes.length) this.#port.write(Buffer.from(bytes.subarray(written)));
    return true;
  }

  onData(listener: (bytes: Uint8Array) => void): void {
    this.#onData = listener;
    if (this.#isReading) return;
    this.#isReading = true;
    this.#await();
  }

  onClose(listener: (error?: Error) => void): void {
    this.#onClose = listener;
  }

  #await(): void {
    if (this.#closing || this.#ended || this.#binding.fd === null) return;
    this.#binding.poller.once('readable', (error) => {
      if (this.#closing || this.#ended) return;
      if (error) this.#failed(error);
      else this.#read();
    });
  }

  #read(): void {
    const { fd } = this.#binding;
    if (fd === null) return;
    let length = -1;
    try {
      length = readSync(fd, this.#buffer, 0, this.#buffer.length, null);
    } catch (error) {
      if (!isBusy(error)) {
        this.#failed(toError(error));
        return;
      }
    }
    if (length === 0) {
      // Readable and empty: the other end is gone.
      this.#failed(new Error('the device hung up'));
      return;
    }
    // Before the listener, which may throw.
    this.#await();
    if (length > 0) this.#onData(this.#buffer.slice(0, length));
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

function openBinding(binding: object | undefined): OpenBinding {
  if (binding && 'fd' in binding && 'poller' in binding) return binding as OpenBinding;
  throw new DomainError('unavailable', 'serial ports work on Linux and macOS only');
}

const toError = (error: unknown): Error => (error instanceof Error ? error : new Error(errorMessage(error)));

/** Nothing to read, or no room to write, at this moment. */
const isBusy = (error: unknown): boolean =>
  error instanceof Error && 'code' in error && (error.code === 'EAGAIN' || error.code === 'EINTR');

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
