import { randomBytes } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { DomainError, errorMessage } from '@outrider/shared/errors';
import { deviceName, newId } from '@outrider/shared/ids';
import { createLogger, type Logger } from '@outrider/shared/log';
import { runStages, type Service } from '@outrider/shared/service';
import type { Sample } from '@outrider/shared/telemetry';
import { systemClock } from '@outrider/shared/time';
import { openBoxUpload } from './agent/box-upload.ts';
import { ClockQuality } from './agent/clock-quality.ts';
import { FailsafeRecorder } from './agent/failsafe-recorder.ts';
import { HealthReporter } from './agent/health-reporter.ts';
import { Mission } from './agent/mission.ts';
import { writeReady } from './agent/ready-file.ts';
import { openWhenThereIsRoom, startEarly } from './agent/room.ts';
import { openRos2Stop, ros2Signals } from './agent/ros2-actuation.ts';
import { ros2StopMessages } from './agent/ros2-stop.ts';
import { SampleTap } from './agent/sample-tap.ts';
import { SerialMonitor } from './agent/serial-monitor.ts';
import { SourceBoard } from './agent/source-board.ts';
import { SourceStage } from './agent/source-stage.ts';
import { SystemdWatch } from './agent/systemd-watch.ts';
import { untilDone } from './agent/until-done.ts';
import { agentStatus } from './agent/view.ts';
import { BlackBoxRecorder } from './blackbox/recorder.ts';
import { BoxShelf, type BoxView } from './blackbox/shelf.ts';
import { CommandDesk } from './commands/command-desk.ts';
import { CommandLog } from './commands/command-log.ts';
import { TrustedKeys } from './commands/trusted-keys.ts';
import type { AgentConfig } from './config.ts';
import { CertificateRenewal } from './enroll/enroller.ts';
import { IdentityStore, type StoredIdentity } from './enroll/identity.ts';
import { type CommandOutcome, GuardLink, type Transition } from './guard/guard-link.ts';
import { HealthWatch } from './health/health-watch.ts';
import { createLocalApp, createMetricsApp, type LocalAgent } from './local-api/app.ts';
import { LocalServer } from './local-api/server.ts';
import type { AgentStatus } from './local-api/status.ts';
import { AgentMetrics } from './metrics.ts';
import { Outbox } from './outbox/outbox.ts';
import { Ros2Source } from './sources/ros2.ts';
import type { Source, SourcePorts } from './sources/source.ts';
import { type NotifyEnvironment, SystemdNotifier } from './systemd-notify.ts';
import { Uplink, type UplinkIdentity } from './uplink/uplink.ts';
import { AGENT_VERSION } from './version.ts';

export interface RunOptions {
  /** End once all recordings were replayed and everything is acknowledged. */
  readonly exitWhenDone: boolean;
  /** Replay recordings from their beginning, also what was taken over before. */
  readonly fromStart: boolean;
  /** Written as JSON once the local API answers. */
  readonly readyFile: string | undefined;
  /** Where systemd listens, when it has started this process. */
  readonly notify?: NotifyEnvironment;
}

/** Runs the agent until the signal aborts. @throws what makes it impossible to go on. */
export async function runAgent(config: AgentConfig, options: RunOptions, signal: AbortSignal): Promise<void> {
  process.umask(0o077);
  mkdirSync(config.stateDir, { recursive: true, mode: 0o700 });
  const clock = systemClock;
  const bootId = randomBytes(8).toString('hex');
  const log = createLogger('outrider-edge', config.logLevel).child({
    robot_id: config.device.robotId,
    boot_id: bootId,
  });
  const startedMonoMs = clock.monotonicMs();
  const guard = config.guard.enabled ? openGuard(config, bootId, log) : undefined;
  let takeTransitions: (take: (transition: Transition) => Promise<void>) => void = () => {};
  const taken = new Promise<(transition: Transition) => Promise<void>>((resolve) => {
    takeTransitions = resolve;
  });
  guard?.onTransition(async (transition) => (await taken)(transition));
  let early: ReturnType<typeof startEarly> | undefined;
  const { stateDir } = config;
  const whenRoom = <T>(what: string, open: () => T): Promise<T | undefined> =>
    openWhenThereIsRoom(what, stateDir, open, log, signal, () => {
      if (!guard || early) return;
      early = startEarly(guard);
      // What cannot be kept is taken all the same: the guard would think that this agent is stuck.
      let dropped = 0;
      guard.onSample(() => {
        dropped += 1;
        guard.progress(dropped);
      });
    });
  const outbox = await whenRoom('outbox', () => new Outbox({ ...config.outbox, stateDir, bootId, log, clock }));
  const commandLog = await whenRoom('commands', () => CommandLog.open(stateDir, log));
  if (!outbox || !commandLog) {
    outbox?.close();
    commandLog?.close();
    await early?.stop();
    return;
  }
  const identities = new IdentityStore(config.stateDir);
  const identity = (): StoredIdentity | undefined => usableIdentity(identities, config, log);
  const clockQuality = new ClockQuality(clock);
  const mission = new Mission(config.stateDir, log);
  const board = new SourceBoard(outbox, () => clock.monotonicMs());

  const status = (): AgentStatus =>
    agentStatus({
      device: config.device,
      version: AGENT_VERSION,
      bootId,
      pid: process.pid,
      startedMonoMs,
      clock,
      board,
      outbox,
      link: () => uplink.status(),
      budget: () => uplink.budget(),
      guard: () => guard?.status(),
      health: () => health?.verdict(),
      identity,
    });
  const metrics = new AgentMetrics(
    status,
    () => outbox.stats(),
    () => clock.epochMs(),
  );
  const uplink = new Uplink({
    ...config.uplink,
    device: config.device,
    bootId,
    agentVersion: AGENT_VERSION,
    identity: () => uplinkIdentity(identity(), config),
    outbox,
    commands: new CommandDesk({
      device: config.device,
      keys: new TrustedKeys(identities, () => identity()?.ca),
      commands: commandLog,
      target: guard,
      executor: guard,
      record: (event) => outbox.appendEvent(event),
      clock,
      log,
    }),
    clock,
    log,
    onClockSkew: (skewMs) => clockQuality.noteSkew(skewMs),
    onConnectFailed: () => void renewal.reconsider(),
    onAck: (lane, latencyMs) => metrics.observeAck(lane, latencyMs),
  });

  const tap = new SampleTap();
  const blackbox = config.blackbox && openBlackBox(config.blackbox, config, outbox, log);
  const health =
    config.health &&
    new HealthWatch({
      settings: config.health,
      stateDir: config.stateDir,
      clock,
      log,
      mayLearn: () => guard?.status()?.phase !== 'LATCHED',
      report: (value) => outbox.appendState('health', value),
      record: (event) => outbox.appendEvent(event),
    });
  await health?.load();
  let samplesConsumed = 0;
  const consumed = (sample: Sample): void => {
    tap.add(sample);
    blackbox?.add(sample);
    ros2Stop?.observe(sample);
    health?.add(sample);
    samplesConsumed += 1;
    guard?.progress(samplesConsumed);
  };
  const hasSerial = config.sources.some(({ type }) => type === 'serial');
  const serial = new SerialMonitor(
    clock,
    () => guard?.status() !== undefined,
    (entry) => board.update(entry),
  );
  const ros2: Ros2Source[] = [];
  const ros2Stop = guard && openRos2Stop(config.ros2Stop, guard, ros2, log);
  const sources = await Promise.all(
    config.sources.flatMap((settings) => {
      if (settings.type === 'serial') return [];
      const ports = (positionKey?: string): SourcePorts => ({
        log,
        clock,
        onStatus: (entry) => board.update(entry),
        onSignal: ros2Signals(guard, ros2Stop),
        emit: (given, position) => {
          const sample = clockQuality.mark(given);
          const known = positionKey !== undefined && position !== undefined;
          outbox.appendSample(sample, known ? { source: positionKey, value: position } : undefined);
          guard?.report(sample);
          consumed(sample);
        },
      });
      return [openSource(settings, ports, outbox, options.fromStart, config.ros2Stop)];
    }),
  );
  ros2.push(...sources.filter((source) => source instanceof Ros2Source));
  const recorder = new FailsafeRecorder(outbox, metrics);
  guard?.onSample((given) => {
    const sample = clockQuality.mark(given);
    outbox.appendSample(sample);
    serial.observe(sample);
    consumed(sample);
  });
  takeTransitions((transition) => {
    blackbox?.transition(transition);
    return recorder.record(transition);
  });
  guard?.onStatus((entry) => {
    recorder.note(entry);
    ros2Stop?.check();
  });

  const sourceStage = new SourceStage(sources, hasSerial, log);
  const shelf = new BoxShelf(config.stateDir);
  const boxUpload = openBoxUpload(config, shelf, identities, () => uplink.status().state === 'online', log);
  const agent = localAgent({ status, guard, config, outbox, tap, mission, shelf });
  const socketServer = new LocalServer(createLocalApp(agent, metrics), { socket: config.localApi.socketPath }, log);
  const { metricsPort } = config.localApi;
  const portServer =
    metricsPort === undefined
      ? undefined
      : new LocalServer(createMetricsApp(agent, metrics), { port: metricsPort }, log);
  const enrolSettings = { device: config.device, ...config.cloud };
  const renewal = new CertificateRenewal(enrolSettings, identities, clock, log, () => uplink.reconnect());

  outbox.appendState('agent', { version: AGENT_VERSION, boot_id: bootId, started_at_ms: clock.epochMs() });
  void outbox
    .appendEvent({
      eventId: newId('evt'),
      type: 'edge.started.v1',
      occurredAtMs: clock.epochMs(),
      traceId: newId('boot'),
      payload: { boot_id: bootId, agent_version: AGENT_VERSION, epoch: outbox.epoch },
    })
    .catch((error: unknown) => log.warn({ reason: errorMessage(error) }, 'event.lost'));
  const serves = Promise.all([socketServer.listening(), portServer?.listening()]).then(([, port]) =>
    writeReady(options.readyFile, config, bootId, port),
  );
  const systemd = new SystemdNotifier({ env: options.notify ?? {}, log });

  const healthReporter = (to: GuardLink): HealthReporter =>
    new HealthReporter({
      stateDir: config.stateDir,
      clock,
      link: () => ({ exists: uplink.status().state !== 'not_enrolled', isUp: uplink.status().state === 'online' }),
      mission: () => mission.comm,
      clockQuality: () => clockQuality.word(),
      report: (health) => to.health(health),
    });

  // Stopped first to last: intake, servers, link, disk, and the one that holds the robot last of all.
  const stages: Service[] = [
    ...(options.exitWhenDone ? [untilDone(sourceStage, outbox)] : []),
    new SystemdWatch(systemd, clock, serves),
    sourceStage,
    ...(hasSerial ? [serial] : []),
    ...(guard ? [healthReporter(guard)] : []),
    ...(ros2Stop ? [ros2Stop] : []),
    ...(health ? [health] : []),
    socketServer,
    ...(portServer ? [portServer] : []),
    renewal,
    ...(boxUpload ? [boxUpload] : []),
    ...(blackbox ? [blackbox] : []),
    uplink,
    outbox,
    ...(guard ? [early ?? guard] : []),
  ];
  log.info(
    { version: AGENT_VERSION, config: config.path, sources: config.sources.map(({ type }) => type) },
    'agent.started',
  );
  await runStages(stages, signal, log);
  log.info({}, 'agent.stopped');
}

async function openSource(
  settings: Exclude<AgentConfig['sources'][number], { type: 'serial' }>,
  ports: (positionKey?: string) => SourcePorts,
  outbox: Outbox,
  fromStart: boolean,
  ros2Stop: AgentConfig['ros2Stop'],
): Promise<Source> {
  if (settings.type === 'ros2')
    return new Ros2Source({ ...settings.options, ...(ros2Stop && { stop: ros2StopMessages(ros2Stop) }) }, ports());
  const { options } = settings;
  // Loaded when needed: the readers of recordings are large.
  const { ReplaySource, replayFingerprint } = await import('./sources/replay.ts');
  // A file that is not there is the source's own to report.
  const key = await replayFingerprint(options).catch(() => undefined);
  const startAfter = key === undefined || fromStart ? 0 : (outbox.replayPosition(key) ?? 0);
  return new ReplaySource({ ...options, startAfter }, ports(key));
}

function openGuard(config: AgentConfig, agentBootId: string, log: Logger): GuardLink {
  const { spawn, config: guard } = config.guard;
  return new GuardLink({
    socketPath: guard.socketPath,
    ...(spawn && { spawnConfig: { ...guard, robotId: config.device.robotId, logLevel: config.logLevel } }),
    agentBootId,
    // Every transition may come again: the outbox knows their events by id, also when the guard's numbers restart.
    transitionsStored: () => 0,
    clock: systemClock,
    log,
  });
}

function usableIdentity(store: IdentityStore, config: AgentConfig, log: Logger): StoredIdentity | undefined {
  try {
    const identity = store.load();
    const expected = deviceName(config.device);
    if (!identity || identity.deviceName === expected) return identity;
    throw new DomainError(
      'bad_state',
      `the certificate is of ${identity.deviceName}, the configuration says ${expected}`,
    );
  } catch (error) {
    log.error({ reason: errorMessage(error) }, 'identity.unusable');
    return undefined;
  }
}

function uplinkIdentity(identity: StoredIdentity | undefined, config: AgentConfig): UplinkIdentity | undefined {
  return identity && { ...identity, mqttUrl: config.cloud.mqttUrl ?? identity.mqttUrl };
}

/** The box tells the cloud that it is there; the event names it, and the robot keeps it. */
function openBlackBox(
  settings: NonNullable<AgentConfig['blackbox']>,
  config: AgentConfig,
  outbox: Outbox,
  log: Logger,
): BlackBoxRecorder {
  const robot = deviceName(config.device);
  const onRecorded = (box: BoxView): void => {
    const event = {
      eventId: newId('evt'),
      type: 'blackbox.recorded.v1',
      occurredAtMs: systemClock.epochMs(),
      traceId: box.trace_id || newId('box'),
      payload: {
        box_id: box.id,
        tripped_at: box.tripped_at,
        mode: box.mode,
        latch_id: box.latch_id,
        transition_id: box.transition_id,
        from: box.from,
        to: box.to,
        samples: box.samples,
        bytes: box.bytes,
        cut_short: box.cut_short,
      },
    } as const;
    void outbox.appendEvent(event).catch((error: unknown) => log.warn({ reason: errorMessage(error) }, 'event.lost'));
  };
  const { stateDir } = config;
  return new BlackBoxRecorder({ ...settings, stateDir, robot, clock: systemClock, log, onRecorded });
}

interface LocalParts {
  readonly status: () => AgentStatus;
  readonly guard: GuardLink | undefined;
  readonly config: AgentConfig;
  readonly outbox: Outbox;
  readonly tap: SampleTap;
  readonly mission: Mission;
  readonly shelf: BoxShelf;
}

function localAgent({ status, guard, config, outbox, tap, mission, shelf }: LocalParts): LocalAgent {
  const needGuard = (): GuardLink => {
    if (guard) return guard;
    throw new DomainError('unavailable', 'this robot runs without a guard (guard.enabled is false)');
  };
  return {
    status,
    listen: (stream) => tap.open(stream),
    blackboxes: () => shelf.list(),
    telemetryAfter: (seq, bytesMax) => ({
      epoch: outbox.epoch,
      records: outbox.next('telemetry', Math.max(seq, outbox.oldestSeq('telemetry') - 1), bytesMax),
    }),
    notReady: () => {
      const now = status();
      return [
        ...(guard && !now.failsafe ? ['the guard does not answer'] : []),
        ...(config.sources.length > 0 && now.sources.every(({ state }) => state === 'starting' || state === 'failed')
          ? ['no source gives data']
          : []),
      ];
    },
    trigger: ({ mode, reason, requestedBy, traceId }): Promise<CommandOutcome> =>
      needGuard().trigger({ commandId: newId('cmd'), mode, reason, requestedBy, traceId, local: true }),
    setMissionComm: (comm) => mission.setComm(comm),
    recover: (request): Promise<CommandOutcome> => needGuard().recover({ ...request, local: true }),
  };
}
