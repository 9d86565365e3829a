import { chmod, link, rm, stat, unlink } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { DomainError, errorMessage } from '@outrider/shared/errors';
import type { Logger } from '@outrider/shared/log';
import type { outrider } from '@outrider/shared/messages';
import type { Sample } from '@outrider/shared/telemetry';
import { encodeFrame, FrameReader, type GuardFrame } from './framing.ts';
import type { TransitionMessage } from './journal.ts';
import { SamplePacker } from './sample-wire.ts';

/** Samples that wait for a slow agent; at 200 samples/s this is five seconds. Older ones give way. */
export const SAMPLES_WAITING_MAX = 1000;
/** Bytes handed to the socket before samples wait here, where they can still give way. */
const SOCKET_BYTES_MAX = 64 * 1024;
/** An agent that lets even the short messages pile up is cut off. */
const SOCKET_BYTES_LIMIT = 4 * 1024 * 1024;

/** What fits into a sockaddr_un. */
const SOCKET_PATH_BYTES_MAX = 107;

export interface AgentServerEvents {
  /** An agent has introduced itself. */
  onHello(agentBootId: string, transitionsStored: number): void;
  onProgress(samplesConsumed: number, evaluatorTicks: number): void;
  onSignals(report: outrider.v1.SignalReport.$Properties): void;
  onHealth(health: outrider.v1.AgentHealth.$Properties): void;
  onCommand(command: outrider.v1.GuardCommand.$Properties): void;
  onTransitionAck(transitionId: number): void;
  /** The agent's connection is lost, and no other has taken its place. */
  onGone(): void;
}

interface Client {
  readonly socket: Socket;
  readonly packer: SamplePacker;
  isIntroduced: boolean;
  transitionsSent: number;
}

/** The socket on which one agent at a time reaches this guard. A new connection takes the place of the old. */
export class AgentServer {
  readonly #path: string;
  readonly #log: Logger;
  #events: AgentServerEvents | undefined;
  /** Connections that came before anybody could answer. */
  #early: Socket[] = [];
  readonly #server: Server;
  #client: Client | undefined;
  #inode = 0;
  #samples: Sample[] = [];
  #samplesDropped = 0;

  constructor(path: string, log: Logger) {
    this.#path = path;
    this.#log = log;
    this.#server = createServer({ pauseOnConnect: true }, (socket) => {
      if (this.#events) this.#accept(socket, this.#events);
      else this.#early.push(socket);
    });
  }

  /** Samples that a slow or absent agent has missed. */
  get samplesDropped(): number {
    return this.#samplesDropped;
  }

  get hasAgent(): boolean {
    return this.#client?.isIntroduced === true;
  }

  /**
   * Starts to listen, in the place of a socket file that nobody serves any more.
   *
   * @throws DomainError `already_exists` when another guard serves it.
   */
  async listen(): Promise<void> {
    const own = `${this.#path}.${process.pid}`;
    if (Buffer.byteLength(own) > SOCKET_PATH_BYTES_MAX)
      throw new DomainError('invalid', `guard.socket: ${this.#path} is too long for a Unix socket; shorten state_dir`);
    await rm(own, { force: true });
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(own, resolve);
    });
    await chmod(own, 0o600);
    this.#inode = (await stat(own)).ino;
    // Linking fails when the name is taken, so of two guards that start together only one gets it.
    for (let attempt = 0; ; attempt++) {
      try {
        await link(own, this.#path);
        await unlink(own);
        return;
      } catch (cause) {
        const isTaken = (cause as NodeJS.ErrnoException).code === 'EEXIST';
        if (!isTaken || attempt > 3 || (await isServed(this.#path))) {
          this.#server.close();
          await rm(own, { force: true });
          if (!isTaken) throw new DomainError('unavailable', `${this.#path}: ${errorMessage(cause)}`, { cause });
          throw new DomainError('already_exists', `another guard serves ${this.#path}`, { cause });
        }
        await rm(this.#path, { force: true });
      }
    }
  }

  /** Starts to answer. Until then agents wait: the socket is taken first, so that nothing is touched in vain. */
  serve(events: AgentServerEvents): void {
    this.#events = events;
    for (const socket of this.#early.splice(0)) this.#accept(socket, events);
  }

  /** Whether the socket's name still leads here. */
  async isReachable(): Promise<boolean> {
    return stat(this.#path).then(
      (found) => found.ino === this.#inode,
      () => false,
    );
  }

  /** Queues a sample for the agent. */
  sendSample(sample: Sample): void {
    if (!this.hasAgent) return;
    this.#samples.push(sample);
    if (this.#samples.length > SAMPLES_WAITING_MAX) {
      this.#samples.shift();
      this.#samplesDropped += 1;
    }
    this.#sendSamples();
  }

  /** Sends those that this connection has not seen. */
  sendTransitions(reportable: (afterId: number) => readonly TransitionMessage[]): void {
    const client = this.#client;
    if (!client?.isIntroduced) return;
    for (const transition of reportable(client.transitionsSent)) {
      client.transitionsSent = transition.transitionId ?? client.transitionsSent;
      this.#send({ transition });
    }
  }

  sendStatus(status: outrider.v1.GuardStatus.$Properties): void {
    this.#send({ status });
  }

  sendResult(commandResult: outrider.v1.GuardCommandResult.$Properties): void {
    this.#send({ commandResult });
  }

  sendProgress(commandProgress: outrider.v1.GuardCommandProgress.$Properties): void {
    this.#send({ commandProgress });
  }

  /** Stops listening. The last messages still leave. */
  async close(): Promise<void> {
    const client = this.#client;
    this.#client = undefined;
    if (await this.isReachable()) await rm(this.#path, { force: true });
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
      client?.socket.end(() => client.socket.destroy());
      // A frozen agent must not keep its guard from ending.
      setTimeout(() => client?.socket.destroy(), 200).unref();
    });
  }

  #accept(socket: Socket, events: AgentServerEvents): void {
    const client: Client = { socket, packer: new SamplePacker(), isIntroduced: false, transitionsSent: 0 };
    const reader = new FrameReader();
    socket.on('data', (bytes) => {
      try {
        for (const frame of reader.push(bytes)) this.#receive(client, frame, events);
      } catch (err) {
        this.#log.warn({ err }, 'agent.refused');
        socket.destroy();
      }
    });
    socket.on('drain', () => this.#sendSamples());
    socket.on('error', (err) => this.#log.debug({ err }, 'agent.socket_failed'));
    socket.on('close', () => {
      if (this.#client !== client) return;
      this.#client = undefined;
      this.#samples = [];
      events.onGone();
    });
    socket.resume();
  }

  #receive(client: Client, frame: GuardFrame, events: AgentServerEvents): void {
    if (frame.hello) {
      const before = this.#client;
      this.#client = client;
      client.isIntroduced = true;
      this.#samples = [];
      if (before && before !== client) before.socket.destroy();
      events.onHello(frame.hello.agentBootId ?? '', frame.hello.transitionsStored ?? 0);
      return;
    }
    // Until it has said hello it is nobody: a stray connection must not disturb the agent.
    if (client !== this.#client) return;
    if (frame.progress) events.onProgress(frame.progress.samplesConsumed ?? 0, frame.progress.evaluatorTicks ?? 0);
    if (frame.signals) events.onSignals(frame.signals);
    if (frame.health) events.onHealth(frame.health);
    if (frame.command) events.onCommand(frame.command);
    if (frame.transitionAck) events.onTransitionAck(frame.transitionAck.transitionId ?? 0);
  }

  #sendSamples(): void {
    const client = this.#client;
    if (!client) return;
    let sent = 0;
    while (sent < this.#samples.length && client.socket.writableLength < SOCKET_BYTES_MAX) {
      const sample = this.#samples[sent];
      if (sample) client.socket.write(encodeFrame({ sample: client.packer.pack(sample) }));
      sent += 1;
    }
    if (sent > 0) this.#samples.splice(0, sent);
  }

  #send(frame: GuardFrame): void {
    const socket = this.#client?.socket;
    if (!socket || socket.destroyed) return;
    if (socket.writableLength > SOCKET_BYTES_LIMIT) socket.destroy();
    else socket.write(encodeFrame(frame));
  }
}

/** Whether somebody answers on the socket. */
export function isServed(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    const end = (answer: boolean) => (): void => {
      socket.destroy();
      resolve(answer);
    };
    socket.once('connect', end(true));
    socket.once('error', end(false));
  });
}
