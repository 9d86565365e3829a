import { hasEnded } from '@outrider/shared/command';
import type { Logger } from '@outrider/shared/log';
import type { Command } from './command.ts';

/** Watchers in this process at most. */
const WATCHERS_MAX = 10_000;

/** Who wants to hear how a command goes on. */
export class CommandWatchers {
  readonly #log: Logger;
  readonly #byCommand = new Map<string, Set<(command: Command) => void>>();
  /** What each watched command was last said to be, so that nothing is told twice or backwards. */
  readonly #told = new Map<string, { readonly steps: number; readonly progress: number; readonly isOver: boolean }>();
  #count = 0;

  constructor(log: Logger) {
    this.#log = log;
  }

  get isFull(): boolean {
    return this.#count >= WATCHERS_MAX;
  }

  has(commandId: string): boolean {
    return this.#byCommand.has(commandId);
  }

  /** Watched commands of which nobody here has heard the end. */
  get open(): string[] {
    return [...this.#byCommand.keys()].filter((commandId) => this.#told.get(commandId)?.isOver !== true);
  }

  /** @returns What ends the watch. Calling it twice is harmless. */
  add(commandId: string, listener: (command: Command) => void): () => void {
    const group = this.#byCommand.get(commandId) ?? new Set();
    group.add(listener);
    this.#byCommand.set(commandId, group);
    this.#count += 1;
    return () => {
      if (!group.delete(listener)) return;
      this.#count -= 1;
      if (group.size > 0 || this.#byCommand.get(commandId) !== group) return;
      this.#byCommand.delete(commandId);
      this.#told.delete(commandId);
    };
  }

  /** Tells the watchers when there is anything new to say. */
  tell(command: Command): void {
    const group = this.#byCommand.get(command.commandId);
    if (!group) return;
    const told = this.#told.get(command.commandId);
    const steps = command.history.length;
    const isNews = !told || steps > told.steps || (steps === told.steps && command.progress > told.progress);
    if (!isNews) return;
    this.#told.set(command.commandId, { steps, progress: command.progress, isOver: hasEnded(command.status) });
    for (const listener of [...group]) {
      try {
        listener(command);
      } catch (error) {
        this.#log.error({ err: error, commandId: command.commandId }, 'command.watcher_failed');
      }
    }
  }
}
