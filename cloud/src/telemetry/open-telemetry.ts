import type { Logger } from '@outrider/shared/log';
import type { Service } from '@outrider/shared/service';
import type { Clock } from '@outrider/shared/time';
import type { Registry } from 'prom-client';
import type { UplinkBus } from '../broker/bus.ts';
import { type Database, isDataError } from '../storage/database.ts';
import { SqlIngestStore } from '../storage/ingest-store.ts';
import { Maintenance } from '../storage/maintenance.ts';
import { SqlPresenceStore } from '../storage/presence-store.ts';
import { SqlReportStore } from '../storage/report-store.ts';
import { SqlRobotDirectory } from '../storage/robot-directory.ts';
import { SqlTelemetryStore } from '../storage/telemetry-store.ts';
import { Committer } from './committer.ts';
import { Inbox } from './inbox.ts';
import { IngestMetrics } from './ingest-metrics.ts';
import type { LaneOutcome, RobotDirectory, StoredListener } from './ingest-ports.ts';
import { LiveHub } from './live-hub.ts';
import { packUpdates, unpackUpdates, updatesOf } from './live-updates.ts';
import type { LiveFeed, LiveUpdate, TelemetryIngest, TelemetryReader } from './ports.ts';
import { PresenceKeeper } from './presence.ts';
import { ReportIngest } from './report-ingest.ts';
import { routeUplink } from './uplink-router.ts';

const RETENTION_DAYS_DEFAULT = 30;

export interface TelemetryParts {
  readonly database: Database;
  readonly metrics: Registry;
  readonly clock: Clock;
  readonly log: Logger;
  /** 0: for ever. */
  readonly retentionDays?: number;
}

/** What other replicas stored, and what they hear of ours. */
export interface LiveRelay {
  sendLive(payload: Uint8Array): void;
  setLiveHandler(handler: (payload: Uint8Array) => void): void;
}

/** Telemetry on a database: taking it in over HTTP and from robots, reading it, and hearing of it. */
export interface Telemetry {
  readonly ingest: TelemetryIngest;
  readonly reader: TelemetryReader;
  readonly live: LiveFeed;
  readonly directory: RobotDirectory;
  /** Keeps partitions and retention. */
  readonly maintenance: Service;
  /** Whoever listens hears of all that this process stores, however it came. @returns Ends it. */
  onStored(listener: StoredListener): () => void;
  /** Tells live subscribers, here and at other replicas. */
  announce(updates: readonly LiveUpdate[]): void;
  /**
   * Creates partitions and removes what is too old. Call it once, before the bus starts.
   *
   * @param options.ownsSessions Whether this process is the only broker, so that nobody is connected yet.
   */
  prepare(options: { readonly ownsSessions: boolean }): Promise<void>;
  /** Takes what the robots send over a bus. Run the service while the bus runs, and end it after the bus. */
  serve(bus: UplinkBus & Partial<LiveRelay>): Service;
}

/** Puts the telemetry context together. */
export function openTelemetry(parts: TelemetryParts): Telemetry {
  const { clock, database, log } = parts;
  const store = new SqlIngestStore(database, ({ robot, record }) =>
    log.warn({ robotId: robot.robotId, tenantId: robot.tenantId, type: record.type }, 'ingest.event_invalid'),
  );
  const directory = new SqlRobotDirectory(database, clock);
  const presenceStore = new SqlPresenceStore(database);
  const metrics = new IngestMetrics(parts.metrics);
  const hub = new LiveHub(log);
  let relay: Partial<LiveRelay> = {};
  const publishUpdates = (updates: readonly LiveUpdate[]): void => {
    if (updates.length === 0) return;
    hub.publish(updates);
    relay.sendLive?.(packUpdates(updates));
  };
  const storedListeners = new Set<StoredListener>();
  const onStored = (outcomes: readonly LaneOutcome[], ingestedAtMs: number): void => {
    const heard = relay.sendLive ? outcomes : outcomes.filter(({ robot }) => hub.isHeard(robot.tenantId));
    if (heard.length < outcomes.length) hub.passOver();
    publishUpdates(updatesOf(heard, ingestedAtMs));
    for (const listener of storedListeners) listener(outcomes, ingestedAtMs);
  };
  const presence = new PresenceKeeper({ store: presenceStore, directory, clock, log, publish: publishUpdates });
  const maintenance = new Maintenance({
    database,
    clock,
    log,
    retentionDays: parts.retentionDays ?? RETENTION_DAYS_DEFAULT,
  });
  return {
    ingest: new ReportIngest({ store: new SqlReportStore(database), presence, clock, onStored }),
    reader: new SqlTelemetryStore(database),
    live: hub,
    directory,
    maintenance,
    onStored(listener) {
      storedListeners.add(listener);
      return () => storedListeners.delete(listener);
    },
    announce: publishUpdates,
    async prepare({ ownsSessions }) {
      await maintenance.maintain();
      if (ownsSessions) await presenceStore.breakAll(clock.epochMs());
    },
    serve(bus) {
      relay = bus;
      bus.setLiveHandler?.((payload) => hub.publish(unpackUpdates(payload)));
      const publish = (topic: string, payload: Uint8Array): Promise<void> => bus.publish(topic, payload);
      const committer = new Committer({ store, metrics, clock, log, isDataError });
      const inbox = new Inbox({
        store,
        committer,
        directory,
        metrics,
        clock,
        log,
        publish: (topic, payload) => bus.publish(topic, payload, { qos: 0 }),
        onStored: (outcomes, ingestedAtMs) => {
          onStored(outcomes, ingestedAtMs);
          void presence.touch(
            outcomes.map((outcome) => outcome.robot),
            'ONLINE',
          );
        },
      });
      routeUplink({ bus, inbox, presence, log, hello: { store, directory, clock, log, publish } });
      return inbox;
    },
  };
}
