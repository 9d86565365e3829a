import { randomBytes } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { openGpio } from '@outrider/firmware-bridge/gpio';
import { DomainError } from '@outrider/shared/errors';
import type { Logger } from '@outrider/shared/log';
import { aborted } from '@outrider/shared/service';
import type { Clock } from '@outrider/shared/time';
import type { SystemdNotifier } from '../systemd-notify.ts';
import { RealActuators } from './actuators-real.ts';
import { AgentServer } from './agent-server.ts';
import { CommandRunner } from './command-runner.ts';
import { Evidence } from './evidence.ts';
import type { GuardConfig } from './guard-config.ts';
import { Journal } from './journal.ts';
import { LatchStore } from './latch-store.ts';
import { GuardLoop } from './loop.ts';
import { McuLine } from './mcu-line.ts';
import { startRounds } from './rounds.ts';
import { healthOf, signalsOfReport } from './sample-wire.ts';
import { requestScheduling } from './scheduling.ts';

const STATUS_MS = 200;
const REACHABLE_CHECK_MS = 1000;
/** A round that starts this late is worth a line in the log. [ms] */
const LATE_MS = 100;
/** Exit code when another live guard has the socket: starting again does not help. (EX_TEMPFAIL) */
export const EXIT_OTHER_GUARD = 75;

export interface GuardParts {
  readonly config: GuardConfig;
  readonly clock: Clock;
  readonly log: Logger;
  /** Aborts to end the guard. */
  readonly signal: AbortSignal;
  /** Told when the guard serves, and at each proven round. */
  readonly notifier: SystemdNotifier;
  /** Told where to send errors that nobody caught. */
  readonly onFaults: (report: (error: unknown) => void) => void;
}

/**
 * Runs a guard until it is told to end. Leaves the robot stopped.
 *
 * @returns The exit code: 0, or 75 when another guard serves the socket.
 */
export async function runGuard({ config, clock, log, signal, notifier, onFaults }: GuardParts): Promise<number> {
  await mkdir(dirname(config.socketPath), { recursive: true, mode: 0o700 });
  const end = new AbortController();
  const server = new AgentServer(config.socketPath, log);
  try {
    await server.listen();
  } catch (error) {
    if (!(error instanceof DomainError) || error.code !== 'already_exists') throw error;
    log.error({ socket: config.socketPath, reason: 'another guard serves it' }, 'guard.refused');
    return EXIT_OTHER_GUARD;
  }

  const { store, content } = await LatchStore.open(config.latchDir);
  if (content.damage !== undefined) log.error({ damage: content.damage }, 'latch_store.damaged');
  const journal = new Journal(store, content.record, {
    onStored: (durable) => loop.stored(durable),
    onFailed: (detail) => loop.storeFailed(detail),
    onReportable: () => reportTransitions(),
  });
  const reportTransitions = (): void => server.sendTransitions((afterId) => journal.reportable(afterId));

  const gpio = await openGpio({ ...config.gpio, log });
  const line =
    config.serial &&
    new McuLine({
      serial: config.serial,
      silentMs: config.liveness.mcuSilentMs,
      clock,
      log,
      onSample: (sample) => {
        loop.sample(sample);
        commandsGuarded(() => commands.sample(sample));
        evidence.agentOwes(clock.monotonicMs());
        server.sendSample(sample);
      },
      onChange: () => loop.actuatorsChanged(),
    });
  const actuators = new RealActuators({
    line,
    gpio,
    stopConfirmMs: config.stopConfirmMs,
    onUnconfirmed: (detail) => loop.stopUnconfirmed(detail),
  });
  const evidence = new Evidence(config, config.requiredStreams, clock.monotonicMs());
  const loop = new GuardLoop({
    policy: config.policy,
    clock,
    log,
    actuators,
    evidence,
    stored: content.record,
    phaseBefore: content.record.phase,
    damage: content.damage,
    nonceSeed: randomBytes(8).toString('hex'),
    save: (durable, phase, transition) => journal.save(durable, phase, transition),
    answer: (result) => server.sendResult(result),
    // The loop itself is not there yet while it is made.
    onChange: () => setImmediate(() => sendStatus()),
  });
  const sendStatus = (): void => server.sendStatus(loop.status());
  const commands = new CommandRunner({
    port: line,
    gate: () => loop.gate(),
    limitsOf: (joint) => config.signals.joints[joint],
    standstillRadps: config.signals.standstillRadps,
    clock,
    log,
    answer: (result) => server.sendResult(result),
    tell: (progress) => server.sendProgress(progress),
  });
  const commandsGuarded = (step: () => void): void => {
    try {
      step();
    } catch (error) {
      loop.fault(error);
    }
  };
  onFaults((error) => loop.fault(error));
  gpio.onEstop(() => loop.actuatorsChanged());
  server.serve({
    onHello: (agentBootId, transitionsStored) => {
      log.info({ agentBootId }, 'agent.connected');
      evidence.agentConnected(clock.monotonicMs());
      journal.reconcile(transitionsStored);
      sendStatus();
      reportTransitions();
    },
    onProgress: (consumed, ticks) => evidence.agentProgress(consumed, ticks, clock.monotonicMs()),
    onSignals: (report) => {
      const receivedMs = (report.receivedMonoNs ?? Number.NaN) / 1e6;
      loop.report(signalsOfReport(report), report.declaredRateHz ?? 0, receivedMs);
    },
    onHealth: (health) => evidence.agentHealth(healthOf(health, clock.monotonicMs())),
    onCommand: (command) => {
      if (command.verb === 'execute' || command.verb === 'cancel')
        return commandsGuarded(() => commands.command(command));
      if (command.verb !== 'shutdown') return loop.command(command);
      loop.shutdown();
      server.sendResult({ commandId: command.commandId ?? '', done: true, detail: 'the guard ends' });
      end.abort();
    },
    onTransitionAck: (id) => journal.acknowledge(id),
    onGone: () => {
      log.warn({}, 'agent.gone');
      evidence.agentGone();
      commandsGuarded(() => commands.abandon('the agent went away'));
    },
  });

  const scheduling = await requestScheduling(config.scheduling);
  for (const problem of scheduling.problems)
    log[config.scheduling === 'fifo' ? 'error' : 'warn']({ problem }, 'guard.scheduling_refused');
  const { phase, latchId, motionEpoch } = loop.state;
  log.info({ robotId: config.robotId, scheduling: scheduling.policy, phase, latchId, motionEpoch }, 'guard.started');
  notifier.ready(`${config.robotId}: ${phase}, ${scheduling.policy} scheduling`);

  const stopping = AbortSignal.any([signal, end.signal]);
  const lineDone = line?.run(stopping) ?? Promise.resolve();
  const round = (nowMs: number, lateMs: number): void => {
    const isProven = loop.tick();
    commandsGuarded(() => commands.tick());
    // Nothing but a whole round proves that this process still guards.
    if (isProven) notifier.alive(nowMs);
    if (lateMs > LATE_MS) log.warn({ lateMs: Math.round(lateMs) }, 'guard.loop_late');
  };
  const timers = [
    startRounds(round, clock),
    every(STATUS_MS, sendStatus),
    every(REACHABLE_CHECK_MS, () => {
      void server.isReachable().then((isReachable) => {
        if (isReachable || stopping.aborted) return;
        log.error({ socket: config.socketPath }, 'guard.socket_taken');
        end.abort();
      });
    }),
  ];
  await aborted(stopping);
  notifier.stopping();
  loop.shutdown();
  for (const stop of timers) stop();
  await journal.flush();
  journal.close();
  await lineDone;
  actuators.close();
  gpio.close();
  await server.close();
  notifier.close();
  log.info({ samplesDropped: server.samplesDropped, transitionsDropped: journal.dropped }, 'guard.ended');
  return 0;
}

function every(periodMs: number, action: () => void): () => void {
  const timer = setInterval(action, periodMs);
  return () => clearInterval(timer);
}
