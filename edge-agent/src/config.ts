import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { BAUD_MAX, BAUD_MIN } from '@outrider/firmware-bridge/serial-port';
import { DomainError, errorMessage, type FieldProblem } from '@outrider/shared/errors';
import { type AnalyserSettings, DEFAULT_ANALYSER } from '@outrider/shared/health/robot-analyser';
import { type DeviceIdentity, ROBOT_ID_PATTERN, TENANT_ID_PATTERN } from '@outrider/shared/ids';
import { parse } from 'yaml';
import { z } from 'zod';
import type { Ros2StopSettings } from './agent/ros2-stop.ts';
import type { BlackBoxOptions } from './blackbox/recorder.ts';
import { UPLOAD_POLICIES, type UploadPolicy } from './blackbox/uploader.ts';
import { withPolicyFile } from './guard/failsafe-layers.ts';
import { failsafeSchema, type GuardConfig, guardConfig, guardSchema } from './guard/guard-config.ts';
import { csvMappingSchema, replayTopicSchema, ros2SignalSchema, ros2TopicSchema } from './sources/options.ts';
import type { ReplayOptions } from './sources/replay.ts';
import type { Ros2Options } from './sources/ros2.ts';
import type { BudgetSettings } from './uplink/budget.ts';

/** Longest path of a Unix socket on Linux. */
const SOCKET_PATH_BYTES_MAX = 107;
const MB = 1024 * 1024;
const FINGERPRINT = /^([0-9A-Fa-f]{2}:?){32}$/;

const durationMs = (minMs: number, maxMs: number): z.ZodNumber => z.number().int().min(minMs).max(maxMs);
const urlOf = (...protocols: string[]): z.ZodString =>
  z
    .string()
    .refine(
      (text) => URL.canParse(text) && protocols.includes(new URL(text).protocol),
      `must be a URL that begins with ${protocols.map((protocol) => `${protocol}//`).join(' or ')}`,
    );

const serialSourceSchema = z.strictObject({
  type: z.literal('serial'),
  path: z.string().min(1),
  baud: z.number().int().min(BAUD_MIN).max(BAUD_MAX).default(921_600),
  rate_hz: z.number().positive().max(1000).default(50),
});
const ros2SourceSchema = z.strictObject({
  type: z.literal('ros2'),
  name: z.string().min(1).optional(),
  setup: z.string().min(1).optional(),
  distro: z.string().min(1).optional(),
  domain_id: z.number().int().min(0).max(232).optional(),
  node_name: z
    .string()
    .regex(/^[A-Za-z][A-Za-z0-9_]*$/)
    .optional(),
  rclnodejs_dir: z.string().min(1).optional(),
  topics: z.array(ros2TopicSchema).max(64).default([]),
  signals: z.array(ros2SignalSchema).max(16).default([]),
});
const replaySourceSchema = z.strictObject({
  type: z.literal('replay'),
  name: z.string().min(1).optional(),
  file: z.string().min(1),
  speed: z.number().min(0).max(1000).default(1),
  loop: z.boolean().default(false),
  topics: z.array(replayTopicSchema).min(1).max(256).optional(),
  columns: csvMappingSchema.optional(),
});

/** 0, or not so little that a record would take minutes. */
const bytesPerS = z.union([z.literal(0), z.number().int().min(100).max(1_000_000_000)]);

const outboxSchema = z.strictObject({
  size_max_mb: z.number().min(1).max(1_000_000).default(512),
  commit_interval_ms: durationMs(10, 1000).default(50),
  flush_interval_ms: durationMs(10, 10_000).default(250),
  flush_interval_offline_ms: durationMs(10, 60_000).default(1000),
});

const uplinkSchema = z.strictObject({
  window_batches: z.number().int().min(1).max(64).default(4),
  ack_timeout_ms: durationMs(100, 600_000).default(10_000),
  hello_timeout_ms: durationMs(100, 600_000).default(10_000),
  connect_timeout_ms: durationMs(100, 600_000).default(10_000),
  keepalive_s: z.number().int().min(5).max(1200).default(20),
  backoff_first_ms: durationMs(10, 60_000).default(500),
  backoff_max_ms: durationMs(100, 3_600_000).default(30_000),
  max_bytes_per_s: bytesPerS.default(0),
  metered: z.boolean().default(false),
  metered_bytes_per_s: bytesPerS.default(0),
});

const blackboxSchema = z.strictObject({
  enabled: z.boolean().default(true),
  before_s: z.number().min(1).max(600).default(30),
  after_s: z.number().min(0).max(600).default(10),
  memory_max_mb: z.number().min(1).max(1024).default(16),
  files_max: z.number().int().min(1).max(1000).default(20),
  size_max_mb: z.number().min(1).max(100_000).default(256),
  upload: z.enum(UPLOAD_POLICIES).default('on_request'),
  upload_bytes_per_s: z.number().int().min(1000).max(1_000_000_000).default(250_000),
});

const healthSchema = z.strictObject({
  enabled: z.boolean().default(true),
  false_alarms_per_hour: z.number().positive().max(3600).default(DEFAULT_ANALYSER.falseAlarmsPerHour),
  learn_s: z.number().int().min(60).max(86_400).default(DEFAULT_ANALYSER.fitWindows),
  calibrate_s: z.number().int().min(60).max(86_400).default(DEFAULT_ANALYSER.calibrateWindows),
});

const topicName = z.string().regex(/^\/[A-Za-z0-9_/]+$/, 'must be a full ROS topic name such as /cmd_vel');
const actuationSchema = z.strictObject({
  ros2: z
    .strictObject({
      cmd_vel_topic: topicName.optional(),
      cmd_vel_type: z
        .enum(['geometry_msgs/msg/Twist', 'geometry_msgs/msg/TwistStamped'])
        .default('geometry_msgs/msg/Twist'),
      stop_topic: topicName.optional(),
      stop_rate_hz: z.number().min(1).max(200).default(20),
      confirm_ms: durationMs(100, 60_000).default(2000),
      still_mps: z.number().positive().max(1).default(0.02),
    })
    .refine((ros2) => ros2.cmd_vel_topic ?? ros2.stop_topic, 'names neither a cmd_vel_topic nor a stop_topic')
    .optional(),
});

const fileSchema = z.strictObject({
  robot: z.strictObject({
    id: z.string().regex(ROBOT_ID_PATTERN, 'must be 1 to 43 characters of A-Z a-z 0-9 _ -'),
    tenant: z.string().regex(TENANT_ID_PATTERN, 'must be 1 to 20 characters of a-z 0-9 -').default('default'),
  }),
  state_dir: z.string().min(1).default('/var/lib/outrider'),
  cloud: z.strictObject({
    http_url: urlOf('https:', 'http:'),
    mqtt_url: urlOf('mqtts:').optional(),
    ca_file: z.string().min(1).optional(),
    ca_sha256: z.string().regex(FINGERPRINT, 'must be 64 hexadecimal digits, with or without colons').optional(),
  }),
  sources: z
    .array(z.discriminatedUnion('type', [serialSourceSchema, ros2SourceSchema, replaySourceSchema]))
    .max(16)
    .default([]),
  failsafe: failsafeSchema.prefault({}),
  guard: guardSchema.prefault({}),
  actuation: actuationSchema.prefault({}),
  outbox: outboxSchema.prefault({}),
  uplink: uplinkSchema.prefault({}),
  blackbox: blackboxSchema.prefault({}),
  health: healthSchema.prefault({}),
  local_api: z
    .strictObject({
      socket: z.string().min(1).default('edge.sock'),
      metrics_port: z.number().int().min(0).max(65_535).optional(),
    })
    .prefault({}),
  log: z
    .strictObject({ level: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']).default('info') })
    .prefault({}),
});

export type SourceSettings =
  | { readonly type: 'serial'; readonly path: string; readonly rateHz: number }
  | { readonly type: 'ros2'; readonly options: Ros2Options }
  | { readonly type: 'replay'; readonly options: ReplayOptions };

/** Everything that edge.yaml says, checked, with defaults, and with paths made absolute. */
export interface AgentConfig {
  readonly path: string;
  readonly device: DeviceIdentity;
  readonly stateDir: string;
  readonly cloud: {
    readonly httpUrl: string;
    readonly mqttUrl: string | undefined;
    readonly caFile: string | undefined;
    readonly caSha256: string | undefined;
  };
  readonly sources: readonly SourceSettings[];
  readonly guard: {
    readonly enabled: boolean;
    readonly spawn: boolean;
    readonly config: Omit<GuardConfig, 'robotId' | 'logLevel'>;
  };
  readonly outbox: {
    readonly sizeMaxBytes: number;
    readonly commitIntervalMs: number;
    readonly flushIntervalMs: number;
    readonly flushIntervalOfflineMs: number;
  };
  readonly uplink: {
    readonly windowBatches: number;
    readonly ackTimeoutMs: number;
    readonly helloTimeoutMs: number;
    readonly connectTimeoutMs: number;
    readonly keepaliveS: number;
    readonly backoffFirstMs: number;
    readonly backoffMaxMs: number;
    readonly budget: BudgetSettings;
  };
  /** How a closed gate is said on ROS 2; `undefined`: it is not. */
  readonly ros2Stop: Ros2StopSettings | undefined;
  /** `undefined` when it is switched off. */
  readonly blackbox: Omit<BlackBoxOptions, 'stateDir' | 'robot' | 'clock' | 'log' | 'onRecorded'> | undefined;
  readonly blackboxUpload: { readonly policy: UploadPolicy; readonly bytesPerS: number };
  /** `undefined` when it is switched off. */
  readonly health: AnalyserSettings | undefined;
  readonly localApi: { readonly socketPath: string; readonly metricsPort: number | undefined };
  readonly logLevel: string;
}

/** What the command line may replace. */
export interface ConfigOverrides {
  /** Replaces all sources by one recording. Relative to the working directory. */
  readonly replayFile?: string;
  readonly replaySpeed?: number;
}

/**
 * Reads edge.yaml.
 *
 * @throws DomainError `invalid`, whose message and problems name every wrong option by its path.
 */
export function loadConfig(file: string, overrides: ConfigOverrides = {}): AgentConfig {
  const path = resolve(file);
  const document = withPolicyFile(readDocument(path), path);
  const base = dirname(path);
  const given = overrides.replayFile === undefined ? document : withReplay(document, overrides);
  const parsed = check(path, given);
  const stateDir = resolve(base, parsed.state_dir);
  const serialSources = parsed.sources.filter((source) => source.type === 'serial');
  if (serialSources.length > 1) throw invalid(path, [{ field: 'sources', reason: 'has more than one serial source' }]);
  const serial = serialSources[0] && { path: resolve(base, serialSources[0].path), baud: serialSources[0].baud };
  const guard = guardConfig(parsed.failsafe, parsed.guard, serial, stateDir);
  const socketPath = resolve(stateDir, parsed.local_api.socket);
  checkSocket(path, 'local_api.socket', socketPath);
  checkSocket(path, 'guard.socket', guard.socketPath);
  const { outbox, uplink, cloud } = parsed;
  return {
    path,
    device: { tenantId: parsed.robot.tenant, robotId: parsed.robot.id },
    stateDir,
    cloud: {
      httpUrl: cloud.http_url,
      mqttUrl: cloud.mqtt_url,
      caFile: cloud.ca_file && resolve(base, cloud.ca_file),
      caSha256: cloud.ca_sha256,
    },
    sources: namedOnce(
      path,
      parsed.sources.map((source) => sourceSettings(source, parsed, base, stateDir)),
    ),
    guard: {
      enabled: parsed.guard.enabled,
      spawn: parsed.guard.spawn,
      config: guard,
    },
    outbox: {
      sizeMaxBytes: outbox.size_max_mb * MB,
      commitIntervalMs: outbox.commit_interval_ms,
      flushIntervalMs: outbox.flush_interval_ms,
      flushIntervalOfflineMs: outbox.flush_interval_offline_ms,
    },
    uplink: {
      windowBatches: uplink.window_batches,
      ackTimeoutMs: uplink.ack_timeout_ms,
      helloTimeoutMs: uplink.hello_timeout_ms,
      connectTimeoutMs: uplink.connect_timeout_ms,
      keepaliveS: uplink.keepalive_s,
      backoffFirstMs: uplink.backoff_first_ms,
      backoffMaxMs: uplink.backoff_max_ms,
      budget: {
        bytesPerSMax: uplink.max_bytes_per_s,
        isMetered: uplink.metered,
        meteredBytesPerSMax: uplink.metered_bytes_per_s,
      },
    },
    ros2Stop: ros2StopSettings(path, parsed),
    blackbox: blackboxSettings(parsed.blackbox),
    blackboxUpload: { policy: parsed.blackbox.upload, bytesPerS: parsed.blackbox.upload_bytes_per_s },
    health: healthSettings(parsed.health),
    localApi: { socketPath, metricsPort: parsed.local_api.metrics_port },
    logLevel: parsed.log.level,
  };
}

function blackboxSettings(blackbox: z.output<typeof blackboxSchema>): AgentConfig['blackbox'] {
  if (!blackbox.enabled) return undefined;
  return {
    beforeMs: blackbox.before_s * 1000,
    afterMs: blackbox.after_s * 1000,
    memoryMaxBytes: blackbox.memory_max_mb * MB,
    filesMax: blackbox.files_max,
    sizeMaxBytes: blackbox.size_max_mb * MB,
  };
}

/** A window a second: so many seconds are so many windows. */
function healthSettings(health: z.output<typeof healthSchema>): AnalyserSettings | undefined {
  if (!health.enabled) return undefined;
  const { false_alarms_per_hour: falseAlarmsPerHour, learn_s: fitWindows, calibrate_s: calibrateWindows } = health;
  return { ...DEFAULT_ANALYSER, falseAlarmsPerHour, fitWindows, calibrateWindows };
}

function ros2StopSettings(path: string, parsed: z.output<typeof fileSchema>): Ros2StopSettings | undefined {
  const { ros2 } = parsed.actuation;
  if (!ros2) return undefined;
  if (!parsed.guard.enabled) throw invalid(path, [{ field: 'actuation.ros2', reason: 'needs a guard' }]);
  if (!parsed.sources.some(({ type }) => type === 'ros2'))
    throw invalid(path, [{ field: 'actuation.ros2', reason: 'needs a source of type ros2, whose node publishes it' }]);
  return {
    cmdVelTopic: ros2.cmd_vel_topic,
    cmdVelType: ros2.cmd_vel_type,
    stopTopic: ros2.stop_topic,
    everyMs: 1000 / ros2.stop_rate_hz,
    confirmMs: ros2.confirm_ms,
    stillMps: ros2.still_mps,
    stillRadps: parsed.failsafe.standstill_radps,
  };
}

function sourceSettings(
  source: z.output<typeof fileSchema>['sources'][number],
  { failsafe }: z.output<typeof fileSchema>,
  base: string,
  stateDir: string,
): SourceSettings {
  if (source.type === 'serial') return { type: 'serial', path: resolve(base, source.path), rateHz: source.rate_hz };
  const velocities = Object.entries(failsafe.joints).flatMap(([name, joint]): [string, number][] =>
    joint.velocity_max_radps === undefined ? [] : [[name, joint.velocity_max_radps]],
  );
  const velocityMaxRadps = Object.fromEntries(velocities);
  if (source.type === 'replay') {
    const { name, file, speed, loop, topics, columns } = source;
    const optional = { ...(name && { name }), ...(topics && { topics }), ...(columns && { columns }) };
    const options = { file: resolve(base, file), speed, loop, velocityMaxRadps, scratchDir: stateDir, ...optional };
    return { type: 'replay', options };
  }
  const { name, setup, distro, domain_id: domainId, node_name: nodeName, rclnodejs_dir: dir, topics, signals } = source;
  return {
    type: 'ros2',
    options: {
      topics,
      signals,
      velocityMaxRadps,
      env: process.env,
      ...(name && { name }),
      ...(setup && { setup: resolve(base, setup) }),
      ...(distro && { distro }),
      ...(domainId !== undefined && { domainId }),
      ...(nodeName && { nodeName }),
      ...(dir && { rclnodejsDir: resolve(base, dir) }),
    },
  };
}

/** Two sources of one name could not be told apart, so later ones get a number. */
function namedOnce(path: string, sources: readonly SourceSettings[]): SourceSettings[] {
  const taken = new Set<string>();
  return sources.map((source, index) => {
    if (source.type === 'serial') return source;
    const given = source.options.name;
    const name = given ?? (taken.has(source.type) ? `${source.type}-${index}` : source.type);
    if (taken.has(name)) throw invalid(path, [{ field: `sources[${index}].name`, reason: `'${name}' is taken` }]);
    taken.add(name);
    if (source.type === 'ros2') return { type: 'ros2', options: { ...source.options, name } };
    return { type: 'replay', options: { ...source.options, name } };
  });
}

function withReplay(document: unknown, { replayFile = '', replaySpeed }: ConfigOverrides): unknown {
  if (typeof document !== 'object' || document === null) return document;
  const sources = [{ type: 'replay', file: resolve(replayFile), speed: replaySpeed ?? 1 }];
  return { ...document, sources };
}

function readDocument(path: string): unknown {
  try {
    return parse(readFileSync(path, 'utf8'));
  } catch (cause) {
    throw new DomainError('invalid', `${path}: ${errorMessage(cause)}`, { cause });
  }
}

function check(path: string, document: unknown): z.output<typeof fileSchema> {
  const result = fileSchema.safeParse(document ?? {});
  if (result.success) return result.data;
  throw invalid(
    path,
    result.error.issues.map((issue) => {
      const parts = issue.path.map((part) => (typeof part === 'number' ? `[${part}]` : `.${String(part)}`));
      return { field: parts.join('').replace(/^\./, '') || 'the file', reason: issue.message };
    }),
  );
}

function checkSocket(path: string, field: string, socketPath: string): void {
  const bytes = Buffer.byteLength(socketPath);
  if (bytes > SOCKET_PATH_BYTES_MAX)
    throw invalid(path, [
      { field, reason: `${socketPath} has ${bytes} bytes; a Unix socket has at most ${SOCKET_PATH_BYTES_MAX}` },
    ]);
}

function invalid(path: string, problems: readonly FieldProblem[]): DomainError {
  const words = problems.map(({ field, reason }) => `${field}: ${reason}`).join('; ');
  return new DomainError('invalid', `${path}: ${words}`, { problems });
}
