import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const PATIENCE_MS = 60_000;
const END_PATIENCE_MS = 3000;

interface Answer<T> {
  readonly answer: number;
  readonly value?: T;
  readonly error?: string;
}

/** A process of the load that answers each order. */
export class ChildLine<Order extends object> {
  readonly child: ChildProcess;
  readonly #name: string;
  readonly #waiting = new Map<number, { resolve: (value: never) => void; reject: (error: Error) => void }>();
  #next = 1;
  #ended: string | undefined;

  /** @param file Name of the child's compiled file beside this one. */
  constructor(name: string, file: string) {
    this.#name = name;
    this.child = fork(fileURLToPath(new URL(`./${file}`, import.meta.url)), [], {
      execArgv: [],
      serialization: 'advanced',
    });
    this.child.on('message', (message: Answer<never>) => {
      const waiting = this.#waiting.get(message.answer);
      this.#waiting.delete(message.answer);
      if (message.error !== undefined) waiting?.reject(new Error(`${name}: ${message.error}`));
      else waiting?.resolve(message.value as never);
    });
    this.child.on('exit', (code, signal) => {
      this.#ended = `${name} ended (${signal ?? code})`;
      for (const { reject } of this.#waiting.values()) reject(new Error(this.#ended));
      this.#waiting.clear();
    });
  }

  get pid(): number {
    return this.child.pid ?? 0;
  }

  /** @throws Error when the process fails, ends, or does not answer in time. */
  async ask<T>(order: Order, patienceMs: number = PATIENCE_MS): Promise<T> {
    if (this.#ended !== undefined) throw new Error(this.#ended);
    const id = this.#next;
    this.#next += 1;
    let timer: NodeJS.Timeout | undefined;
    try {
      return await new Promise<T>((resolve, reject) => {
        timer = setTimeout(
          () => reject(new Error(`${this.#name} did not answer within ${patienceMs / 1000} s`)),
          patienceMs,
        );
        this.#waiting.set(id, { resolve, reject });
        this.child.send({ ...order, id });
      });
    } finally {
      clearTimeout(timer);
      this.#waiting.delete(id);
    }
  }

  /** Ends the process, whatever it does. */
  async end(order: Order): Promise<void> {
    if (this.#ended !== undefined) return;
    const exited = new Promise<void>((resolve) => this.child.once('exit', () => resolve()));
    await this.ask(order, END_PATIENCE_MS).catch(() => undefined);
    const insist = setTimeout(() => this.child.kill('SIGKILL'), END_PATIENCE_MS);
    await exited;
    clearTimeout(insist);
  }
}
