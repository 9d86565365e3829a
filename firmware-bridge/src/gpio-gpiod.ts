import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { DomainError, errorMessage } from '@outrider/shared/errors';
import { EstopWatch, estopFromLevel, type GpioOptions, type GpioPort } from './gpio-port.ts';

/** Pause between two reads of the input, in seconds as `sleep` takes it. */
const READ_PAUSE_S = '0.03';
/** An input that was not read for this long is `unknown`. [ms] */
const READ_STALE_MS = 250;
/** A reader that ended is started again after this pause; until then the input is `unknown`. [ms] */
const RESTART_MS = 500;
/** The first call of a tool may take this long. [ms] */
const TOOL_TIMEOUT_MS = 2000;

/**
 * Reads the line again and again and prints its level, `x` when that fails. Ends with a broken pipe when we are gone.
 * A loop of `gpioget` and not `gpiomon`: a monitored line cannot be read, so one edge lost while the monitor starts
 * would turn the meaning of the input round for good.
 */
const READ_LOOP = 'while :; do "$@" 2>/dev/null || echo x; sleep "$0"; done';

/**
 * Runs `gpioset`, which holds the line while it runs, and ends it when standard input closes: that happens also when
 * we are killed, and gives the line to the pull-down, which is "stop".
 */
const HOLD_LINE = 'exec 3<&0; "$@" & holder=$!; { read _ <&3; kill $holder; } & wait $holder';

/** libgpiod's tools take other arguments since version 2. */
type ToolsVersion = 1 | 2;

/**
 * Lines through libgpiod's command-line tools `gpioget` and `gpioset`, which work on every kernel with GPIO character
 * devices, without a native module in this process.
 *
 * @throws DomainError `unavailable` when the tools or the line are missing.
 */
export async function openGpiod(options: GpioOptions): Promise<GpioPort> {
  const version = toolsVersion();
  if (options.estopInput !== undefined) readOnce(getCommand(version, options, options.estopInput));
  return new GpiodGpio(version, options);
}

class GpiodGpio implements GpioPort {
  readonly hasEstop: boolean;
  readonly #version: ToolsVersion;
  readonly #options: GpioOptions;
  readonly #watch = new EstopWatch();
  #reader: ChildProcess | undefined;
  #stale: NodeJS.Timeout | undefined;
  #restart: NodeJS.Timeout | undefined;
  #holder: ChildProcess | undefined;
  #stopAsserted: boolean | undefined;
  #closed = false;

  constructor(version: ToolsVersion, options: GpioOptions) {
    this.hasEstop = options.estopInput !== undefined;
    this.#version = version;
    this.#options = options;
    if (options.estopInput !== undefined) this.#startReader(options.estopInput);
    this.setStop(true);
  }

  readEstop(): ReturnType<GpioPort['readEstop']> {
    return this.#watch.state;
  }

  onEstop(listener: Parameters<GpioPort['onEstop']>[0]): () => void {
    return this.#watch.on(listener);
  }

  setStop(asserted: boolean): void {
    if (this.#closed || this.#options.stopOutput === undefined || asserted === this.#stopAsserted) return;
    this.#stopAsserted = asserted;
    // A line can be held by one process only: the next starts when the one before has let go, in `#holderEnded`.
    if (this.#holder === undefined) this.#hold(this.#options.stopOutput);
    else this.#holder.stdin?.end();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#restart);
    clearTimeout(this.#stale);
    this.#reader?.kill('SIGTERM');
    this.#reader?.stdout?.destroy();
    this.#holder?.stdin?.end();
    this.#watch.set('unknown');
  }

  #hold(line: number): void {
    const level = this.#stopAsserted ? 0 : 1;
    const command = setCommand(this.#version, this.#options, line, level);
    const holder = spawn('sh', ['-c', HOLD_LINE, 'sh', ...command], { stdio: ['pipe', 'ignore', 'ignore'] });
    this.#holder = holder;
    holder.stdin.on('error', () => {}); // it ended first; 'exit' tells
    holder.on('error', (error) => this.#holderEnded(level, errorMessage(error)));
    holder.on('exit', (code) => this.#holderEnded(level, `gpioset ended with code ${code}`));
  }

  #holderEnded(level: number, reason: string): void {
    this.#holder?.stdin?.destroy();
    this.#holder = undefined;
    const line = this.#options.stopOutput;
    if (this.#closed || line === undefined) return;
    const wasAsked = (this.#stopAsserted ? 0 : 1) !== level;
    if (wasAsked) {
      this.#hold(line);
      return;
    }
    this.#options.log?.error({ line, reason }, 'gpio.output_lost');
    this.#stopAsserted = undefined; // the pull-down has it now; the next call tries again
  }

  #startReader(line: number): void {
    const command = getCommand(this.#version, this.#options, line);
    const reader = spawn('sh', ['-c', READ_LOOP, READ_PAUSE_S, ...command], { stdio: ['ignore', 'pipe', 'ignore'] });
    this.#reader = reader;
    this.#expectRead();
    reader.stdout.on('data', (bytes: Buffer) => {
      if (this.#closed) return;
      const last = bytes.toString('latin1').trimEnd().at(-1);
      this.#watch.set(estopFromLevel(last === '1' ? 1 : last === '0' ? 0 : undefined));
      this.#expectRead();
    });
    let isOver = false;
    const ended = (reason: string): void => {
      if (this.#closed || isOver) return;
      isOver = true;
      this.#watch.set('unknown');
      this.#options.log?.error({ line, reason }, 'gpio.input_lost');
      this.#restart = setTimeout(() => this.#startReader(line), RESTART_MS);
      this.#restart.unref();
    };
    reader.on('error', (error) => ended(errorMessage(error)));
    reader.on('exit', (code) => ended(`the reader ended with code ${code}`));
  }

  #expectRead(): void {
    clearTimeout(this.#stale);
    this.#stale = setTimeout(() => this.#watch.set('unknown'), READ_STALE_MS);
    this.#stale.unref();
  }
}

function getCommand(version: ToolsVersion, { chip = 'gpiochip0' }: GpioOptions, line: number): string[] {
  if (version === 1) return ['gpioget', '--bias=pull-down', chip, `${line}`];
  return ['gpioget', '--numeric', '--bias=pull-down', '--chip', chip, `${line}`];
}

function setCommand(version: ToolsVersion, { chip = 'gpiochip0' }: GpioOptions, line: number, level: number): string[] {
  if (version === 1) return ['gpioset', '--mode=signal', '--bias=pull-down', chip, `${line}=${level}`];
  return ['gpioset', '--bias=pull-down', '--chip', chip, `${line}=${level}`];
}

function readOnce([tool = '', ...rest]: string[]): void {
  try {
    execFileSync(tool, rest, { timeout: TOOL_TIMEOUT_MS, stdio: ['ignore', 'pipe', 'pipe'], encoding: 'utf8' });
  } catch (cause) {
    const fix = 'gpiodetect and gpioinfo list chips and lines; the user needs the group gpio';
    throw new DomainError('unavailable', `gpio input cannot be read: ${errorMessage(cause).trim()}; ${fix}`, { cause });
  }
}

function toolsVersion(): ToolsVersion {
  try {
    const text = execFileSync('gpioget', ['--version'], { encoding: 'utf8', timeout: TOOL_TIMEOUT_MS });
    return /v?1\.\d/.test(text.split('\n')[0] ?? '') ? 1 : 2;
  } catch (cause) {
    const fix = 'install them (sudo apt-get install gpiod) or choose another gpio.driver';
    throw new DomainError('unavailable', `gpio.driver gpiod needs the tools of libgpiod: ${fix}`, { cause });
  }
}
