import { aborted, pause, type Service } from '@outrider/shared/service';
import type { Clock } from '@outrider/shared/time';
import type { SystemdNotifier } from '../systemd-notify.ts';

/** Often enough for any `WatchdogSec` of 4 s and more. */
const ALIVE_MS = 1000;

/**
 * Tells systemd when the agent serves, that it still turns, and when it stops. The guard stops the robot of an agent
 * that is stuck; systemd starts that agent again.
 */
export class SystemdWatch implements Service {
  readonly name = 'systemd';
  readonly #notifier: SystemdNotifier;
  readonly #clock: Clock;
  readonly #serves: Promise<unknown>;

  /** @param serves Resolves when the local API answers. */
  constructor(notifier: SystemdNotifier, clock: Clock, serves: Promise<unknown>) {
    this.#notifier = notifier;
    this.#clock = clock;
    this.#serves = serves;
  }

  async run(signal: AbortSignal): Promise<void> {
    await Promise.race([this.#serves, aborted(signal)]);
    if (!signal.aborted) this.#notifier.ready('reading, recording and syncing');
    while (!signal.aborted) {
      this.#notifier.alive(this.#clock.monotonicMs());
      await pause(ALIVE_MS, signal);
    }
    this.#notifier.stopping();
    this.#notifier.close();
  }
}
