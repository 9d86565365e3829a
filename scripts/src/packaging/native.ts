import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, realpathSync, renameSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { LockedPackage } from './dependencies.ts';

/** Debian's names of the architectures that a package can be made for. */
export const ARCHITECTURES = ['amd64', 'arm64'] as const;
export type Architecture = (typeof ARCHITECTURES)[number];

interface Target {
  /** Node's name of it. */
  readonly node: string;
  /** Of the cross compiler and its tools. */
  readonly triplet: string;
  readonly compilerPackage: string;
}
const TARGETS: Readonly<Record<Architecture, Target>> = {
  amd64: { node: 'x64', triplet: 'x86_64-linux-gnu', compilerPackage: 'g++-x86-64-linux-gnu' },
  arm64: { node: 'arm64', triplet: 'aarch64-linux-gnu', compilerPackage: 'g++-aarch64-linux-gnu' },
};

/** Modules that are compiled against Node's own headers, and what the compiler makes. */
const COMPILED: Readonly<Record<string, string>> = {
  'better-sqlite3': 'build/Release/better_sqlite3.node',
  epoll: 'build/Release/epoll.node',
  'unix-dgram': 'build/Release/unix_dgram.node',
};

/** What differs from one architecture to the other. */
export interface NativeParts {
  readonly node: string;
  readonly nodeLicense: string;
  readonly modules: readonly { readonly source: string; readonly target: string }[];
  /** The `strip` that knows this architecture. */
  readonly strip: string;
}

/**
 * The Node binary and the compiled modules: this machine's own, or made here for another architecture.
 *
 * @param cache Where downloads and cross-compiled modules are kept between runs.
 * @throws Error that names the missing tool and how to get it.
 */
export function nativeParts(
  repository: string,
  closure: readonly LockedPackage[],
  architecture: Architecture,
  cache: string,
): NativeParts {
  const target = TARGETS[architecture];
  const isOwn = target.node === process.arch;
  if (!isOwn) needTool(`${target.triplet}-g++`, target.compilerPackage);
  const modules = closure.flatMap((locked) => {
    if (locked.name === '@serialport/bindings-cpp') return [serialPrebuild(repository, locked, target)];
    const product = COMPILED[locked.name];
    if (product === undefined) return [];
    const folder = isOwn ? join(repository, locked.path) : crossCompiled(repository, locked, target, cache, product);
    return [{ source: join(folder, product), target: join(locked.path, product) }];
  });
  const strip = isOwn ? 'strip' : `${target.triplet}-strip`;
  needTool(strip, isOwn ? 'binutils' : target.compilerPackage);
  return { ...(isOwn ? ownNode() : publishedNode(target, cache)), modules, strip };
}

function ownNode(): Pick<NativeParts, 'node' | 'nodeLicense'> {
  const node = realpathSync(process.execPath);
  const prefix = dirname(dirname(node));
  const candidates = [
    join(prefix, 'LICENSE'),
    join(prefix, 'share/doc/nodejs/LICENSE'),
    join(prefix, 'share/doc/nodejs/copyright'),
  ];
  const nodeLicense = candidates.find((file) => existsSync(file));
  if (!nodeLicense)
    throw new Error(`the licence of ${node} is at none of ${candidates.join(', ')}; Node must be shipped with it`);
  return { node, nodeLicense };
}

/** The same version of Node for another architecture, as npm's registry has it. */
function publishedNode({ node }: Target, cache: string): Pick<NativeParts, 'node' | 'nodeLicense'> {
  const name = `node-linux-${node}`;
  const version = process.versions.node;
  const folder = join(cache, `${name}-${version}`);
  if (!existsSync(folder)) {
    mkdirSync(cache, { recursive: true });
    const unpacked = `${folder}.new`;
    rmSync(unpacked, { recursive: true, force: true });
    mkdirSync(unpacked);
    execFileSync('npm', ['pack', '--silent', '--pack-destination', unpacked, `${name}@${version}`], {
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    execFileSync('tar', ['-xzf', `${name}-${version}.tgz`, '--strip-components=1'], { cwd: unpacked });
    rmSync(join(unpacked, `${name}-${version}.tgz`));
    renameSync(unpacked, folder);
  }
  return { node: join(folder, 'bin/node'), nodeLicense: join(folder, 'LICENSE') };
}

/** The serial bindings are built against Node-API and come compiled for every architecture. */
function serialPrebuild(repository: string, { path }: LockedPackage, { node }: Target): NativeParts['modules'][number] {
  const file = `@serialport+bindings-cpp${node === 'arm64' ? '.armv8' : ''}.glibc.node`;
  const within = join(path, 'prebuilds', `linux-${node}`, file);
  return { source: join(repository, within), target: within };
}

function crossCompiled(
  repository: string,
  { path, name, version }: LockedPackage,
  target: Target,
  cache: string,
  product: string,
): string {
  // Below the repository, so that the module finds the headers of its neighbours in node_modules.
  const folder = join(cache, `${target.node}-node${process.versions.modules}`, `${name}-${version}`);
  if (existsSync(join(folder, product))) return folder;
  rmSync(folder, { recursive: true, force: true });
  cpSync(join(repository, path), folder, { recursive: true, filter: (file) => !file.includes(`${name}/build`) });
  const tool = (suffix: string): string => `${target.triplet}-${suffix}`;
  const prefix = dirname(dirname(realpathSync(process.execPath)));
  const headers = existsSync(join(prefix, 'include/node/node.h')) ? [`--nodedir=${prefix}`] : [];
  try {
    execFileSync(process.execPath, [nodeGyp(), 'rebuild', '--release', `--arch=${target.node}`, ...headers], {
      cwd: folder,
      stdio: 'pipe',
      env: { ...process.env, CC: tool('gcc'), CXX: tool('g++'), AR: tool('ar') },
    });
  } catch (error) {
    const said = String((error as { stderr?: Buffer }).stderr ?? error)
      .split('\n')
      .slice(-25)
      .join('\n');
    throw new Error(`${name} could not be compiled for ${target.node}:\n${said}`);
  }
  return folder;
}

/** npm brings its own node-gyp. */
function nodeGyp(): string {
  const global = execFileSync('npm', ['root', '--global'], { encoding: 'utf8' }).trim();
  return join(global, 'npm/node_modules/node-gyp/bin/node-gyp.js');
}

function needTool(tool: string, debianPackage: string): void {
  try {
    execFileSync(tool, ['--version'], { stdio: 'ignore' });
  } catch {
    throw new Error(`${tool} is not there; run: apt-get install ${debianPackage}`);
  }
}
