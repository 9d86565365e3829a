import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** One package of the closure: where the lockfile puts it, and what it says of it. */
export interface LockedPackage {
  /** As in the lockfile: `node_modules/…`, or the folder of a workspace. */
  readonly path: string;
  readonly name: string;
  readonly version: string;
  readonly license: string;
  readonly isWorkspace: boolean;
}

interface LockEntry {
  readonly name?: string;
  readonly version?: string;
  readonly license?: string;
  readonly link?: boolean;
  readonly resolved?: string;
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

/** Packages that are named as dependencies but that nothing loads at run time, and why. */
const NOT_SHIPPED: Readonly<Record<string, string>> = {
  'prebuild-install': 'runs when better-sqlite3 is installed',
  nan: 'headers of epoll and unix-dgram',
  'node-addon-api': 'headers of the serial bindings',
  rclnodejs: "compiled against the robot's own ROS 2; rclnodejs_dir names the folder",
};
const isShipped = (name: string): boolean => !(name in NOT_SHIPPED) && !name.startsWith('@types/');

/**
 * Everything that a workspace needs at run time, by package-lock.json alone: the same lockfile gives the same list.
 *
 * @throws Error when the installed packages are not those of the lockfile.
 */
export function productionClosure(repository: string, workspace: string): LockedPackage[] {
  const lockfile = JSON.parse(readFileSync(join(repository, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, LockEntry>;
  };
  const entries = new Map(Object.entries(lockfile.packages));
  const found = new Map<string, LockedPackage>();
  const visit = (path: string): void => {
    const entry = entries.get(path);
    const target = entry?.link ? (entry.resolved ?? path) : path;
    const real = entries.get(target);
    if (!real || found.has(target)) return;
    const locked = checkedInstall(repository, target, real);
    found.set(target, locked);
    for (const name of Object.keys({ ...real.dependencies, ...real.optionalDependencies }).filter(isShipped)) {
      const dependency = resolveFrom(entries, target, name);
      if (dependency) visit(dependency);
      else if (real.dependencies?.[name])
        throw new Error(`package-lock.json: ${target} needs ${name}, which is not there`);
    }
  };
  visit(workspace);
  return [...found.values()].sort((a, b) => (a.path < b.path ? -1 : 1));
}

/** Where Node would find a package: beside the one that asks, then in each folder above. */
function resolveFrom(entries: ReadonlyMap<string, LockEntry>, from: string, name: string): string | undefined {
  for (let at = from; ; at = parentOf(at)) {
    const candidate = at === '' ? `node_modules/${name}` : `${at}/node_modules/${name}`;
    if (entries.has(candidate)) return candidate;
    if (at === '') return undefined;
  }
}

const parentOf = (path: string): string => {
  const at = path.lastIndexOf('/node_modules/');
  return at < 0 ? '' : path.slice(0, at);
};

function checkedInstall(repository: string, path: string, entry: LockEntry): LockedPackage {
  const manifest = join(repository, path, 'package.json');
  if (!existsSync(manifest)) throw new Error(`${manifest} is not there; run: npm ci`);
  const { name, version } = JSON.parse(readFileSync(manifest, 'utf8')) as { name: string; version: string };
  if (version !== entry.version)
    throw new Error(`${path} has version ${version}, package-lock.json says ${entry.version}; run: npm ci`);
  const isWorkspace = !path.includes('node_modules/');
  return { path, name, version, license: entry.license ?? 'see its folder', isWorkspace };
}
