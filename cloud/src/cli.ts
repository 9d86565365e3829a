import { readFile } from 'node:fs/promises';
import { DomainError, errorMessage } from '@outrider/shared/errors';
import { decodeModel } from '@outrider/shared/health/model-codec';
import { streamOf } from '@outrider/shared/health/robot-analyser';
import { createLogger } from '@outrider/shared/log';
import { systemClock } from '@outrider/shared/time';
import { Command, Option } from 'commander';
import { type ConfigName, readConfig } from './config.ts';
import { TIERS, type Tier } from './identity/ports.ts';
import { parseScopes, SCOPES } from './identity/principal.ts';
import type { Administration } from './main.ts';
import { VERSION } from './version.ts';

type Given = Partial<Record<ConfigName, unknown>>;
interface ClientGiven {
  readonly name: string;
  readonly out: string;
  readonly tenant: string;
  readonly scope: string;
  readonly robots?: string;
  readonly validDays: string;
}

/** Programs that are not robots and hold certificates. */
const CLIENT_VERBS = [
  { verb: 'service-client', kind: 'service', what: 'services that call over gRPC', scope: undefined },
  { verb: 'event-client', kind: 'events', what: 'programs that listen to events over MQTT', scope: 'telemetry:read' },
] as const;

const program = new Command('outrider-cloud')
  .description('The control plane: HTTP, MQTT broker and storage in one process.')
  .version(VERSION)
  .showHelpAfterError();

withStorage(program.command('serve'))
  .description('Run the control plane until SIGTERM or SIGINT.')
  .option('--host <address>', 'address to listen on (HOST; default 127.0.0.1)')
  .option('--http-port <n>', 'HTTP port, 0 for any free one (HTTP_PORT; default 8080)')
  .option('--https-port <n>', 'HTTPS port, HTTP/2 and HTTP/1.1 (HTTPS_PORT; default 8443)')
  .option('--mqtt-port <n>', 'MQTT over TLS (MQTT_PORT; default 8883)')
  .option('--grpc-port <n>', 'gRPC with client certificates, for services (GRPC_PORT; default 50051)')
  .option('--public-url <url>', 'how callers reach HTTP when it is not where it listens (PUBLIC_URL)')
  .option('--public-mqtt-url <url>', 'what robots are told to connect to (PUBLIC_MQTT_URL)')
  .option('--server-names <names>', "more names for the server's certificate, by commas (SERVER_NAMES)")
  .option(
    '--keep-alive-s <n>',
    'how long an idle HTTP connection is kept; longer than the load balancer in front does (KEEP_ALIVE_S; default 75)',
  )
  .option('--mqtt-url <url>', 'an external broker instead of the one in this process (MQTT_URL)')
  .option('--auth-mode <mode>', 'required | optional; optional only on loopback and outside production (AUTH_MODE)')
  .option(
    '--webhook-allow-private',
    'let webhooks lead to private addresses and plain http, for development (WEBHOOK_ALLOW_PRIVATE)',
  )
  .option('--log-level <level>', 'trace to fatal, or silent (LOG_LEVEL; default info)')
  .option('--retention-days <n>', 'how long telemetry is kept, 0 for ever (RETENTION_DAYS; default 30)')
  .option('--bootstrap-client-id <id>', 'first OAuth client (BOOTSTRAP_CLIENT_ID; default fleet-console)')
  .option('--bootstrap-admin-user <name>', 'first user (BOOTSTRAP_ADMIN_USER; default admin)')
  .option('--ready-file <file>', 'where to write the URLs as JSON once the server answers (OUTRIDER_READY_FILE)')
  .addHelpText(
    'after',
    '\nSecrets are read from the environment only: BOOTSTRAP_CLIENT_SECRET, BOOTSTRAP_ADMIN_PASSWORD,\nOUTRIDER_SECRET_KEY. Without them random ones are written to <state-dir>/bootstrap.json, mode 0600.',
  )
  .action((given: Given) =>
    run(async () => {
      const config = readConfig(given);
      const { serve } = await import('./main.ts');
      await serve(config, stopSignal());
    }),
  );

withStorage(program.command('tenant').description('Manage tenants.').command('create'))
  .description('Create a tenant.')
  .argument('<tenant-id>', '1 to 20 of a-z, 0-9 and -')
  .option('--name <name>', 'name for people')
  .addOption(new Option('--tier <tier>', 'rate-limit tier').choices([...TIERS]).default('production'))
  .action((tenantId: string, given: Given & { name?: string; tier: Tier }) =>
    run(() =>
      administer(given, async ({ accounts }) => {
        report(await accounts.createTenant(tenantId, given.name ?? tenantId, given.tier), `tenant ${tenantId}`, {
          tenant_id: tenantId,
        });
      }),
    ),
  );

withStorage(program.command('client').description('Manage OAuth clients.').command('create'))
  .description('Create an OAuth client and print its secret, which cannot be read again.')
  .argument('<client-id>')
  .option('--tenant <id>', 'tenant it belongs to', 'default')
  .option('--scope <scopes>', `separated by spaces, of: ${SCOPES.join(' ')}`)
  .action((clientId: string, given: Given & { tenant: string; scope?: string }) =>
    run(() =>
      administer(given, async ({ accounts }) => {
        const scopes = given.scope === undefined ? undefined : parseScopes(given.scope, '--scope');
        const secret = await accounts.createClient({ clientId, tenantId: given.tenant, scopes });
        report(secret !== undefined, `client ${clientId}`, { client_id: clientId, client_secret: secret });
      }),
    ),
  );

withStorage(program.command('user').description('Manage people.').command('create'))
  .description('Create a user and print the password, which cannot be read again.')
  .argument('<username>')
  .option('--tenant <id>', 'tenant they belong to', 'default')
  .option('--scope <scopes>', `separated by spaces, of: ${SCOPES.join(' ')}`)
  .option('--robots <ids>', 'only these robots, separated by commas')
  .action((username: string, given: Given & { tenant: string; scope?: string; robots?: string }) =>
    run(() =>
      administer(given, async ({ accounts }) => {
        const scopes = given.scope === undefined ? undefined : parseScopes(given.scope, '--scope');
        const password = await accounts.createUser({
          username,
          tenantId: given.tenant,
          scopes,
          robotIds: given.robots?.split(','),
        });
        report(password !== undefined, `user ${username}`, { username, password });
      }),
    ),
  );

withStorage(
  program
    .command('instruction-key')
    .description('Manage the key that signs what robots are ordered to do.')
    .command('rotate'),
)
  .description('Make the next key. The one before stays good for what is on its way; rotate twice when one is lost.')
  .action((given: Given) =>
    run(() =>
      administer(given, async ({ instructionKeys }) => {
        console.log(JSON.stringify({ key_id: await instructionKeys.rotate() }, null, 2));
      }),
    ),
  );

withStorage(program.command('token-key').description('Manage the key that signs access tokens.').command('rotate'))
  .description(
    'Make the next key. Tokens of the one before stay good until they expire; a server takes it within 10 s.',
  )
  .action((given: Given) =>
    run(() =>
      administer(given, async ({ signingKeys }) => {
        console.log(JSON.stringify({ key_id: await signingKeys.rotate() }, null, 2));
      }),
    ),
  );

for (const { verb, kind, what, scope } of CLIENT_VERBS) {
  const clients = program.command(verb).description(`Manage certificates of ${what}.`);
  withStorage(clients.command('issue'))
    .description('Make a key and its certificate. Earlier ones of the name stay good until they expire or are revoked.')
    .requiredOption('--name <name>', '1 to 32 of A-Z, a-z, 0-9, _ and -')
    .requiredOption('--out <dir>', 'folder for <name>.key, <name>.pem and ca.pem')
    .option('--tenant <id>', 'tenant it belongs to', 'default')
    .requiredOption('--scope <scopes>', `separated by spaces, of: ${SCOPES.join(' ')}`, scope)
    .option('--robots <ids>', 'only these robots, separated by commas')
    .option('--valid-days <n>', 'how long it is good', '90')
    .action((given: Given & ClientGiven) =>
      run(() =>
        administer(given, async ({ clientCertificates }) => {
          const { issueClientFiles } = await import('./certificates/client-files.ts');
          const facts = await issueClientFiles(clientCertificates, given.out, {
            kind,
            tenantId: given.tenant,
            name: given.name,
            scopes: parseScopes(given.scope, '--scope'),
            validDays: Number(given.validDays),
            ...(given.robots === undefined ? {} : { robotIds: given.robots.split(',') }),
          });
          console.log(JSON.stringify(facts, null, 2));
        }),
      ),
    );
  withStorage(clients.command('revoke'))
    .description('Take back every certificate of the name. A running server feels it within a minute.')
    .requiredOption('--name <name>')
    .option('--tenant <id>', 'tenant it belongs to', 'default')
    .option('--reason <text>', 'for the record', 'revoked by an operator')
    .action((given: Given & { name: string; tenant: string; reason: string }) =>
      run(() =>
        administer(given, async ({ clientCertificates }) => {
          const revoked = await clientCertificates.revoke(
            { kind, tenantId: given.tenant, name: given.name },
            given.reason,
          );
          console.log(JSON.stringify({ revoked }, null, 2));
        }),
      ),
    );
  withStorage(clients.command('list'))
    .description('List the names that hold a certificate which is good now.')
    .action((given: Given) =>
      run(() =>
        administer(given, async ({ clientCertificates }) => {
          const found = await clientCertificates.list(kind);
          console.log(
            JSON.stringify(
              found.map(({ tenantId, name }) => ({ tenant_id: tenantId, name })),
              null,
              2,
            ),
          );
        }),
      ),
    );
}

withStorage(
  program.command('broker-config').description('Write the configuration of an external broker.').command('mosquitto'),
)
  .description('Write mosquitto.conf, its access list and certificates for MQTT_URL. Run it again after a revocation.')
  .requiredOption('--out <dir>', 'folder to write to; it will hold a private key')
  .option('--host <address>', 'address that Mosquitto binds to', '127.0.0.1')
  .option('--listen-port <n>', 'port for robots', '8883')
  .option('--cloud-port <n>', 'port for the control plane: what MQTT_URL names', '8884')
  .option('--server-names <names>', "more names for the broker's certificate, by commas", '')
  .action((given: Given & { out: string; host: string; listenPort: string; cloudPort: string; serverNames: string }) =>
    run(() =>
      administer(given, async ({ authority, certificates, clientCertificates }) => {
        const { writeMosquittoConfig } = await import('./broker/mosquitto.ts');
        const path = await writeMosquittoConfig({
          dir: given.out,
          host: given.host,
          listenPort: portOf('--listen-port', given.listenPort),
          cloudPort: portOf('--cloud-port', given.cloudPort),
          serverNames: [given.host, ...given.serverNames.split(',')].filter((name) => name !== ''),
          authority,
          registry: certificates,
          clients: clientCertificates,
        });
        console.log(path);
      }),
    ),
  );

withStorage(program.command('health-model').description('Manage what was learnt of robots.').command('put'))
  .description(
    'Give a robot a model that `outrider-edge health train` made. A running server takes it at its next start.',
  )
  .argument('<file>', 'what the training wrote')
  .requiredOption('--robot <id>', 'the robot')
  .option('--tenant <id>', 'tenant it belongs to', 'default')
  .action((file: string, given: Given & { robot: string; tenant: string }) =>
    run(async () => {
      const trained = decodeModel(await readFile(file));
      await administer(given, ({ healthModels }) =>
        healthModels.putModel(given.tenant, given.robot, trained, systemClock.epochMs()),
      );
      console.log(JSON.stringify({ robot_id: given.robot, streams: [...trained.keys()].map(streamOf) }, null, 2));
    }),
  );

await program.parseAsync();

function withStorage(command: Command): Command {
  return command
    .option('--state-dir <dir>', 'where everything is kept (OUTRIDER_STATE_DIR; default .outrider/cloud)')
    .option('--database-url <url>', 'a PostgreSQL server instead of PGlite (DATABASE_URL)');
}

/** Opens the database beside nobody else. PGlite has room for one process: stop the server first, or use PostgreSQL. */
async function administer(given: Given, work: (administration: Administration) => Promise<void>): Promise<void> {
  const { stateDir, databaseUrl } = given;
  const config = readConfig({ stateDir, databaseUrl });
  // Loaded when needed, so that --help does not wait for a database engine.
  const { openAdministration } = await import('./main.ts');
  const administration = await openAdministration(config, createLogger('outrider-cloud', 'warn'), systemClock);
  try {
    await work(administration);
  } finally {
    await administration.close();
  }
}

function report(isNew: boolean, what: string, facts: Record<string, unknown>): void {
  if (!isNew) throw new DomainError('already_exists', `the ${what} exists already`);
  console.log(JSON.stringify(facts, null, 2));
}

function portOf(option: string, text: string): number {
  const port = Number(text);
  if (/^\d{1,5}$/.test(text) && port > 0 && port < 65_536) return port;
  throw new DomainError('invalid', `${option} must be a port number`);
}

function stopSignal(): AbortSignal {
  const stop = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => stop.abort());
  return stop.signal;
}

async function run(work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    console.error(`outrider-cloud: ${errorMessage(error)}`);
    if (!(error instanceof DomainError) && error instanceof Error && error.stack) console.error(error.stack);
    process.exitCode = 1;
  }
}
