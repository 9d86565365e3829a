import { type IncomingMessage, request } from 'node:http';
import { DomainError, errorMessage } from '@outrider/shared/errors';
import { type Command, InvalidArgumentError } from 'commander';
import { loadConfig } from '../config.ts';
import type { SampleJson } from '../export/sample-json.ts';
import { notRunning, refusal } from './local-client.ts';
import { examples, withConfig } from './options.ts';

interface TailArguments {
  readonly config: string;
  readonly stream?: string;
  readonly count?: number;
  readonly json?: boolean;
}

/** Values of a field that a line shows. */
const VALUES_SHOWN = 6;

/** `outrider-edge tail`: what the robot says now. */
export function addTail(program: Command): void {
  withConfig(program.command('tail'))
    .description('Show live samples of the running agent until Ctrl-C.')
    .option('--stream <name>', 'only this stream')
    .option('--count <n>', 'end after so many samples', count)
    .option('--json', 'one JSON object per line')
    .addHelpText(
      'after',
      examples('outrider-edge tail --stream mcu/joint_state', 'outrider-edge tail --json --count 100 | jq .values'),
    )
    .action((given: TailArguments) => tail(given));
}

async function tail({
  config,
  stream,
  count: countMax = Number.POSITIVE_INFINITY,
  json,
}: TailArguments): Promise<void> {
  let shown = 0;
  for await (const line of liveLines(loadConfig(config).localApi.socketPath, stream)) {
    if (json) console.log(line);
    else console.log(formatLine(JSON.parse(line) as SampleJson | { readonly dropped: number }));
    shown += 1;
    if (shown >= countMax) return;
  }
}

/** Lines of the agent's endpoint, until it ends or the caller has enough. */
async function* liveLines(socketPath: string, stream: string | undefined): AsyncGenerator<string, void, void> {
  const path = `/samples${stream === undefined ? '' : `?stream=${encodeURIComponent(stream)}`}`;
  const call = request({ socketPath, path, headers: { host: 'localhost' } });
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    call.once('response', resolve);
    call.once('error', (cause) => reject(notRunning(socketPath, cause)));
    call.end();
  });
  call.on('error', () => response.destroy());
  try {
    if ((response.statusCode ?? 500) >= 400) {
      const chunks: Buffer[] = [];
      for await (const chunk of response) chunks.push(chunk as Buffer);
      throw refusal(JSON.parse(Buffer.concat(chunks).toString('utf8') || 'null'));
    }
    let rest = '';
    for await (const chunk of response.setEncoding('utf8')) {
      const lines = (rest + String(chunk)).split('\n');
      rest = lines.pop() ?? '';
      yield* lines;
    }
  } catch (error) {
    if (error instanceof DomainError) throw error;
    throw new DomainError('unavailable', `the agent went away: ${errorMessage(error)}`, { cause: error });
  } finally {
    call.destroy();
  }
}

/** A sample in a line. */
export function formatLine(sample: SampleJson | { readonly dropped: number }): string {
  if ('dropped' in sample) return `... ${sample.dropped} samples were not shown: this terminal is too slow`;
  const { received_at, stream, values, flags, names = [], text } = sample;
  const fields = Object.entries(values).map(([name, value]) => {
    const all = Array.isArray(value) ? value : [value];
    const shown = all.slice(0, VALUES_SHOWN).map((one, i) => {
      const label = all.length === names.length && all.length > 1 ? `${names[i]}:` : '';
      return `${label}${typeof one === 'number' ? Number(one.toPrecision(5)) : String(one)}`;
    });
    return `${name}=${shown.join(' ')}${all.length > VALUES_SHOWN ? ' …' : ''}`;
  });
  const odd = flags.length > 0 ? ` [${flags.join(' ')}]` : '';
  return `${received_at.slice(11)} ${stream} ${fields.join(', ')}${text ? ` ${text}` : ''}${odd}`;
}

function count(text: string): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= 1) return value;
  throw new InvalidArgumentError('It must be a whole number from 1 on.');
}
