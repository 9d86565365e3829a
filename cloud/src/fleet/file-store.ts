/** Large things that do not belong in a database. Names are made here, never taken from a caller as they are. */
export interface FileStore {
  /** Bytes of a file; `undefined` when there is none. */
  size(name: string): Promise<number | undefined>;
  read(name: string): Promise<Uint8Array | undefined>;
  /** Whole or not at all. */
  write(name: string, bytes: Uint8Array): Promise<void>;
  /** Writes at a position and waits for the disk. Creates the file. */
  writeAt(name: string, position: number, bytes: Uint8Array): Promise<void>;
  stream(name: string): ReadableStream<Uint8Array>;
  rename(from: string, to: string): Promise<void>;
  remove(name: string): Promise<void>;
  /** Names of the files in a folder, sorted. */
  list(folder: string): Promise<string[]>;
}
