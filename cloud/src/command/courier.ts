import { type CommandStatus, hasEnded, statusOfOutcome } from '@outrider/shared/command';
import { errorMessage } from '@outrider/shared/errors';
import { type DeviceIdentity, deviceName, newId } from '@outrider/shared/ids';
import type { Logger } from '@outrider/shared/log';
import type { outrider } from '@outrider/shared/messages';
import { COMMAND_OUTCOMES } from '@outrider/shared/protocol/instruction';
import { pause, type Service } from '@outrider/shared/service';
import type { Clock } from '@outrider/shared/time';
import type { DeviceBus } from '../broker/bus.ts';
import type { InstructionLine } from '../failsafe/instruction-line.ts';
import type { RobotRef } from '../fleet/robot.ts';
import type { Command } from './command.ts';
import type { CommandStore } from './ports.ts';
import type { CommandWatchers } from './watchers.ts';

/** How often everything that is open is looked at. */
const SWEEP_MS = 1_000;
/** A command or cancellation that was not answered is sent again after this. */
const RESEND_MS = 2_000;
/** How long after its end a robot that is connected may be silent before it is asked. */
const ASK_AFTER_MS = 5_000;
/** What a robot has not answered for so long it is not going to answer. */
const GIVE_UP_MS = 24 * 3_600_000;
const OPEN_MAX = 2_000;
const ROBOT_OPEN_MAX = 64;
/** Cancellations and questions whose last sending is remembered. */
const ASKED_MAX = 10_000;

type Reply = outrider.v1.CommandReply;

export interface CommandCourierOptions {
  readonly store: CommandStore;
  readonly bus: DeviceBus;
  readonly line: InstructionLine;
  readonly watchers: CommandWatchers;
  readonly clock: Clock;
  readonly log: Logger;
}

/**
 * Brings commands to robots and their answers back. A robot gets its commands in the order in which they were
 * accepted, the next one only when it has confirmed the one before. What must be known after a restart is in the
 * database; any replica can go on where another one ended.
 */
export class CommandCourier implements Service {
  readonly name = 'command-courier';
  readonly #options: CommandCourierOptions;
  /** Work on one robot at a time, so that what it says is stored in the order in which it was said. */
  readonly #chains = new Map<string, Promise<void>>();
  readonly #asked = new Map<string, number>();
  #hasFailed = false;

  constructor(options: CommandCourierOptions) {
    this.#options = options;
  }

  /** Carries until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { bus } = this.#options;
    const offReply = bus.onReply((device, reply) => this.#hear(device, reply));
    const offPresence = bus.onPresence(({ device, report }) => {
      if (report.presence === 'ONLINE') void this.#sweep(device);
    });
    while (!signal.aborted) {
      await this.#sweep();
      await pause(SWEEP_MS, signal);
    }
    offReply();
    offPresence();
    await Promise.all(this.#chains.values());
  }

  /** There is something new for this robot. */
  hurry(robot: RobotRef): void {
    this.#queue(robot, () => this.#serve(robot));
  }

  async #sweep(only?: DeviceIdentity): Promise<void> {
    const { store, watchers, log } = this.#options;
    try {
      for (const { command, outcome, detail } of await store.reportedOutcomes(OPEN_MAX))
        this.#queue(command.robot, () =>
          this.#advance(command.robot, command.command.commandId, statusOfOutcome(outcome), detail),
        );
      const robots = new Map<number, RobotRef>();
      for (const { robot } of await store.open(OPEN_MAX)) robots.set(robot.robotPk, robot);
      for (const robot of robots.values()) if (!only || deviceName(only) === deviceName(robot)) this.hurry(robot);
      // Their end may have been another replica's to store.
      for (const command of await store.findAll(watchers.open)) watchers.tell(command);
      this.#hasFailed = false;
    } catch (error) {
      // One line for each time that the database is away; what is open waits there.
      if (!this.#hasFailed) log.warn({ err: error }, 'command.sweep_failed');
      this.#hasFailed = true;
    }
  }

  /** Does what is due for a robot's open commands. */
  async #serve(robot: RobotRef): Promise<void> {
    const { store } = this.#options;
    let mayDeliver = true;
    for (const { command, isRobotGone } of await store.open(ROBOT_OPEN_MAX, robot.robotPk)) {
      const { status, cancelRequestedAtMs } = command;
      if (isRobotGone) {
        const end = command.sentAtMs === undefined ? 'cancelled' : 'failed';
        await this.#advance(robot, command.commandId, end, 'the robot was taken out of the fleet');
        continue;
      }
      if (this.#options.watchers.has(command.commandId)) this.#options.watchers.tell(command);
      if (cancelRequestedAtMs !== undefined) await this.#cancel(robot, command);
      else if (status === 'accepted' && command.expiresAtMs > this.#options.clock.epochMs()) {
        if (mayDeliver) await this.#deliver(robot, command);
      } else await this.#chase(robot, command);
      if (status === 'accepted') mayDeliver = false;
    }
  }

  async #deliver(robot: RobotRef, command: Command): Promise<void> {
    const { store, bus, clock } = this.#options;
    const nowMs = clock.epochMs();
    if (!bus.connected(robot) || nowMs - (command.sentAtMs ?? 0) < RESEND_MS) return;
    if (await store.markSent(command.commandId, nowMs)) await this.#send(robot, command, 0);
  }

  async #send(robot: RobotRef, command: Command, above: number): Promise<void> {
    const { line, clock } = this.#options;
    const { commandId, kind, parameters, timeoutMs, motionEpoch, traceId, requestedBy, reason } = command;
    const counter = await line.nextCounter(robot, above);
    const issuedAtMs = clock.epochMs();
    const ttlMs = Math.round(command.expiresAtMs - issuedAtMs);
    if (ttlMs <= 0) return;
    const signed = line.sign(robot, {
      commandId,
      verb: 'command',
      counter,
      motionEpoch,
      issuedAtMs,
      ttlMs,
      traceId,
      requestedBy,
      reason,
      command: {
        kind,
        joints: parameters.joints.map(({ name, positionRad, velocityMaxRadps = 0 }) => ({
          name,
          positionRad,
          velocityMaxRadps,
        })),
        timeoutMs,
        toleranceRad: parameters.toleranceRad,
      },
    });
    await line.publish(robot, signed);
  }

  async #cancel(robot: RobotRef, command: Command): Promise<void> {
    if (command.status === 'accepted' && command.sentAtMs === undefined)
      await this.#advance(robot, command.commandId, 'cancelled', 'called off before it was sent');
    else await this.#ask(robot, command, false);
  }

  /** A command whose time is over, or that the robot has and does not speak of. */
  async #chase(robot: RobotRef, command: Command): Promise<void> {
    const { clock, bus } = this.#options;
    const { commandId, status, sentAtMs, expiresAtMs, timeoutMs } = command;
    const nowMs = clock.epochMs();
    if (status === 'accepted' && sentAtMs === undefined) {
      const detail = bus.connected(robot) ? 'it could not be sent in time' : 'the robot was not connected in time';
      await this.#advance(robot, commandId, 'expired', detail);
      return;
    }
    const overMs = nowMs - expiresAtMs - (status === 'accepted' ? 0 : timeoutMs + ASK_AFTER_MS);
    if (overMs > GIVE_UP_MS) await this.#advance(robot, commandId, 'failed', 'the robot never said what became of it');
    else if (overMs > 0) await this.#ask(robot, command, true);
  }

  /** Calls a command off, or only asks about it. */
  async #ask(robot: RobotRef, command: Command, onlyUnbegun: boolean): Promise<void> {
    const { bus, line, clock } = this.#options;
    const { commandId, traceId, requestedBy, cancelRequestedBy } = command;
    const nowMs = clock.monotonicMs();
    if (!bus.connected(robot) || nowMs - (this.#asked.get(commandId) ?? Number.NEGATIVE_INFINITY) < RESEND_MS) return;
    if (this.#asked.size >= ASKED_MAX) this.#asked.clear();
    this.#asked.set(commandId, nowMs);
    const signed = line.sign(robot, {
      commandId: newId('can'),
      verb: 'cancel',
      counter: 0,
      issuedAtMs: clock.epochMs(),
      ttlMs: 0,
      traceId,
      requestedBy: cancelRequestedBy ?? requestedBy,
      reason: '',
      cancel: { commandId, onlyUnbegun },
    });
    await line.publish(robot, signed);
  }

  #hear(device: DeviceIdentity, reply: Reply): void {
    if (reply.verb !== 'command') return;
    this.#queue(device, () => this.#take(device, reply));
  }

  async #take(device: DeviceIdentity, reply: Reply): Promise<void> {
    const { store, watchers, clock, line, log } = this.#options;
    const { commandId, outcome, stage, detail } = reply;
    const found = await store.findOf(device, commandId);
    if (!found) return;
    const { robot, command } = found;
    if (hasEnded(command.status)) {
      // Another replica was faster: whoever watches here hears it all the same.
      watchers.tell(command);
      return;
    }
    if (outcome === '') {
      if (stage === 'delivered' || stage === 'executing') await this.#advance(robot, commandId, stage, '');
      if (stage === 'executing' && reply.progress > command.progress) {
        await store.noteProgress(commandId, Math.min(1, reply.progress), clock.epochMs());
        const now = watchers.has(commandId) ? await store.find(robot.robotPk, commandId) : undefined;
        if (now) watchers.tell(now);
      }
      if (command.status === 'accepted') await this.#serve(robot);
      return;
    }
    const known = COMMAND_OUTCOMES.find((word) => word === outcome);
    if (!known) {
      log.warn({ ...device, commandId, outcome }, 'command.answer_unknown');
      return;
    }
    if (known === 'unauthentic') {
      // It lacks our key, or somebody changed the message: the next attempt brings the list of keys along.
      log.error({ ...device, commandId, detail }, 'command.not_believed');
      line.forgetList(device);
      return;
    }
    if (known === 'stale' && command.status === 'accepted') {
      // Our numbers are behind the robot's when the database was restored from an older copy.
      const next = await line.nextCounter(device, 0);
      if (next <= reply.counterSeen) {
        await this.#send(robot, command, reply.counterSeen);
        return;
      }
    }
    await this.#advance(robot, commandId, statusOfOutcome(known), detail);
    await this.#serve(robot);
  }

  async #advance(robot: RobotRef, commandId: string, status: CommandStatus, detail: string): Promise<void> {
    const { store, watchers, clock, log } = this.#options;
    const atMs = clock.epochMs();
    const command = await store.advance(robot, commandId, { status, atMs, detail: detail.slice(0, 1024) });
    if (!command) return;
    log.info(
      { robotId: robot.robotId, commandId, status, detail, durationMs: atMs - command.createdAtMs },
      'command.advanced',
    );
    if (hasEnded(status)) this.#asked.delete(commandId);
    watchers.tell(command);
  }

  #queue(device: DeviceIdentity, work: () => Promise<void>): void {
    const name = deviceName(device);
    const done = (this.#chains.get(name) ?? Promise.resolve()).then(work).catch((error: unknown) => {
      // The database or the broker is away. The robot's event lane and the next sweep bring it again.
      this.#options.log.warn({ ...device, reason: errorMessage(error) }, 'command.step_failed');
    });
    this.#chains.set(name, done);
    void done.then(() => {
      if (this.#chains.get(name) === done) this.#chains.delete(name);
    });
  }
}
