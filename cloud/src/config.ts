import { DomainError } from '@outrider/shared/errors';
import { z } from 'zod';
import { AUTH_MODES } from './identity/authenticator.ts';

const port = (otherwise: number) =>
  z
    .union([
      z.number(),
      z
        .string()
        .regex(/^\d{1,5}$/, 'must be a port number')
        .transform(Number),
    ])
    .pipe(z.int().min(0).max(65_535))
    .default(otherwise);
const wholeNumber = (least: number, most: number) =>
  z
    .union([
      z.number(),
      z
        .string()
        .regex(/^\d{1,9}$/, 'must be a whole number')
        .transform(Number),
    ])
    .pipe(z.int().min(least).max(most));
const urlOf = (...schemes: readonly string[]) =>
  z
    .string()
    .refine(
      (text) => URL.canParse(text) && schemes.includes(new URL(text).protocol.slice(0, -1)),
      `must be a URL with ${schemes.join(' or ')}`,
    );

/** Every setting of `outrider-cloud serve`. The environment variable has the name in capitals; an option wins over it. */
const SETTINGS = {
  /** Where PGlite, keys and bootstrap.json live. One running process at a time, unless DATABASE_URL is set. */
  stateDir: z.string().min(1).default('.outrider/cloud'),
  /** Address to listen on. Loopback, so that a first start is not open to the network. */
  host: z.string().min(1).default('127.0.0.1'),
  /** 0: any free port, and so for the others. */
  httpPort: port(8080),
  httpsPort: port(8443),
  mqttPort: port(8883),
  /** gRPC over mutual TLS, for service-to-service calls. */
  grpcPort: port(50_051),
  /** How callers reach us when it is not where we listen: behind a proxy, or by name. */
  publicUrl: urlOf('http', 'https').optional(),
  /** The same for MQTT: what robots are told at enrolment. */
  publicMqttUrl: urlOf('mqtts').optional(),
  /** More DNS names and addresses for the server's certificate, separated by commas. */
  serverNames: z
    .string()
    .default('')
    .transform((text) =>
      text
        .split(',')
        .map((name) => name.trim())
        .filter((name) => name !== ''),
    ),
  /** How long an idle HTTP connection is kept. Longer than the load balancer in front keeps it. [s] */
  keepAliveS: wholeNumber(1, 3_600).default(75),
  /** Absent: PGlite, in this process. */
  databaseUrl: urlOf('postgres', 'postgresql').optional(),
  /** Absent: a broker in this process. */
  mqttUrl: urlOf('mqtt', 'mqtts').optional(),
  /** 32 characters or more that seal secrets in the database. Absent: `secret.key` in the state directory. */
  secretKey: z.string().min(32).optional(),
  /** `optional` lets callers in without a token. Only on loopback and outside production. */
  authMode: z.enum(AUTH_MODES).default('required'),
  /** Lets webhooks lead to private addresses and plain http. For development: a caller could then reach our network. */
  webhookAllowPrivate: z
    .union([
      z.boolean(),
      z.enum(['true', 'false', '1', '0'], 'must be true or false').transform((word) => word === 'true' || word === '1'),
    ])
    .default(false),
  logLevel: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']).default('info'),
  /** How long telemetry is kept. 0: for ever. [days] */
  retentionDays: wholeNumber(0, 36_500).default(30),
  /** The first accounts, instead of random ones. */
  bootstrapClientId: z.string().min(1).optional(),
  bootstrapClientSecret: z.string().min(12).optional(),
  bootstrapAdminUser: z.string().min(1).optional(),
  bootstrapAdminPassword: z.string().min(12).optional(),
  /** JSON with the URLs is written here once the server answers. */
  readyFile: z.string().min(1).optional(),
  environment: z.string().default('development'),
} as const;

const Config = z.object(SETTINGS);
export type Config = Readonly<z.output<typeof Config>>;
export type ConfigName = keyof typeof SETTINGS;

/** Names in the environment. The plain ones are those that hosting platforms already set. */
const ENVIRONMENT: Readonly<Record<ConfigName, string>> = {
  stateDir: 'OUTRIDER_STATE_DIR',
  host: 'HOST',
  httpPort: 'HTTP_PORT',
  httpsPort: 'HTTPS_PORT',
  mqttPort: 'MQTT_PORT',
  grpcPort: 'GRPC_PORT',
  publicUrl: 'PUBLIC_URL',
  publicMqttUrl: 'PUBLIC_MQTT_URL',
  serverNames: 'SERVER_NAMES',
  keepAliveS: 'KEEP_ALIVE_S',
  databaseUrl: 'DATABASE_URL',
  mqttUrl: 'MQTT_URL',
  secretKey: 'OUTRIDER_SECRET_KEY',
  authMode: 'AUTH_MODE',
  webhookAllowPrivate: 'WEBHOOK_ALLOW_PRIVATE',
  logLevel: 'LOG_LEVEL',
  retentionDays: 'RETENTION_DAYS',
  bootstrapClientId: 'BOOTSTRAP_CLIENT_ID',
  bootstrapClientSecret: 'BOOTSTRAP_CLIENT_SECRET',
  bootstrapAdminUser: 'BOOTSTRAP_ADMIN_USER',
  bootstrapAdminPassword: 'BOOTSTRAP_ADMIN_PASSWORD',
  readyFile: 'OUTRIDER_READY_FILE',
  environment: 'NODE_ENV',
};

/**
 * Settings from options and the environment.
 *
 * @throws DomainError `invalid` that names the option, the variable, and what is wrong.
 */
export function readConfig(
  options: Partial<Record<ConfigName, unknown>>,
  environment: NodeJS.ProcessEnv = process.env,
): Config {
  const given: Record<string, unknown> = {};
  for (const [name, variable] of Object.entries(ENVIRONMENT)) {
    const value = options[name as ConfigName] ?? environment[variable];
    if (value !== undefined && value !== '') given[name] = value;
  }
  // Whoever takes any HTTP port runs beside others of us, so no other port may be fixed by default.
  if (Number(given['httpPort']) === 0) given['grpcPort'] ??= 0;
  const parsed = Config.safeParse(given);
  if (!parsed.success) {
    const lines = parsed.error.issues.map((issue) => {
      const name = issue.path[0] as ConfigName;
      return `${optionOf(name)} (or ${ENVIRONMENT[name]}): ${issue.message}`;
    });
    throw new DomainError('invalid', lines.join('\n'));
  }
  refuseUnsafe(parsed.data);
  return parsed.data;
}

/** Settings that are each fine and together are not. */
function refuseUnsafe(config: Config): void {
  if (config.authMode !== 'optional') return;
  if (!isLoopbackHost(config.host)) {
    throw new DomainError(
      'invalid',
      `--auth-mode optional lets anybody in: it starts only on a loopback --host, not on ${config.host}`,
    );
  }
  if (config.environment === 'production') {
    throw new DomainError(
      'invalid',
      '--auth-mode optional lets anybody in: it does not start with NODE_ENV=production',
    );
  }
}

export const isLoopbackHost = (host: string): boolean =>
  host === 'localhost' || host === '::1' || /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(host);

/** `--http-port` for `httpPort`. */
export const optionOf = (name: ConfigName): string =>
  `--${name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
