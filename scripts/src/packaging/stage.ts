import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join, relative, sep } from 'node:path';
import type { LockedPackage } from './dependencies.ts';
import type { NativeParts } from './native.ts';

/** Where the programs live. Nothing else is written there. */
export const LIBRARY_DIR = 'usr/lib/outrider-edge';
const DOC_DIR = 'usr/share/doc/outrider-edge';

/** Folders at the top of a package that hold nothing that runs, unless they are its entry point. */
const SKIPPED_FOLDERS =
  /^(\..*|test|tests|__tests__|examples?|docs?|bench|benchmarks?|deps|prebuilds|build|coverage|man)$/;
const SKIPPED_FILES =
  /(\.(map|flow|gypi?|markdown|tsbuildinfo|ya?ml|sh|cmd|tgz|cc|cpp|[ch]|hpp|proto|html|[cm]?ts)|\.test\.[cm]?js|^Makefile)$|^\./i;
/** A notice is kept, other prose is not. */
const isProse = (name: string): boolean => /\.(md|txt)$/i.test(name) && !/^(licen[cs]e|copying|notice)/i.test(name);

/** Copies the production files of one package. Native parts come separately, for the wanted architecture. */
export function stagePackage(repository: string, root: string, locked: LockedPackage): void {
  const from = join(repository, locked.path);
  const to = join(root, LIBRARY_DIR, locked.isWorkspace ? join('node_modules', locked.name) : locked.path);
  const kept = locked.isWorkspace ? keepsWorkspaceFile : keepsPackageFile;
  cpSync(from, to, {
    recursive: true,
    dereference: true,
    filter: (path) => path === from || kept(relative(from, path), path),
  });
}

function keepsWorkspaceFile(path: string, absolute: string): boolean {
  const top = path.split(sep)[0] ?? '';
  if (path === 'package.json') return true;
  if (top === 'generated') return statSync(absolute).isDirectory() || path.endsWith('.js');
  if (top !== 'dist' || path.startsWith(join('dist', 'test'))) return false;
  if (statSync(absolute).isDirectory()) return basename(path) !== 'testing';
  return path.endsWith('.js') && !path.endsWith('.test.js');
}

function keepsPackageFile(path: string, absolute: string): boolean {
  const name = basename(path);
  if (!statSync(absolute).isDirectory()) return !SKIPPED_FILES.test(name) && !isProse(name);
  // Packages inside a package have their own place in the lockfile.
  if (name === 'node_modules') return false;
  return path !== name || !SKIPPED_FOLDERS.test(name) || isEntryPoint(name, dirname(absolute));
}

function isEntryPoint(folder: string, packageDir: string): boolean {
  const { main, exports } = JSON.parse(readFileSync(join(packageDir, 'package.json'), 'utf8')) as Record<
    string,
    unknown
  >;
  return folder !== 'prebuilds' && JSON.stringify([main, exports]).includes(`${folder}/`);
}

/** Puts the Node binary and the compiled modules in place. */
export function stageNative(root: string, native: NativeParts): void {
  const node = join(root, LIBRARY_DIR, 'bin/node');
  copyTo(native.node, node);
  for (const { source, target } of native.modules) copyTo(source, join(root, LIBRARY_DIR, target));
  copyTo(native.nodeLicense, join(root, DOC_DIR, 'node-license.txt'));
}

/** Puts in place what the system reads: units, rules, configuration, wrapper, manual, documentation. */
export function stageSystemFiles(repository: string, root: string): void {
  const edge = join(repository, 'edge-agent');
  copyTo(join(edge, 'packaging/outrider-edge.sh'), join(root, 'usr/bin/outrider-edge'));
  copyTo(join(edge, 'config/edge.yaml'), join(root, 'etc/outrider/edge.yaml'));
  for (const unit of readdirSync(join(edge, 'systemd')).filter((name) => name.endsWith('.service')))
    copyTo(join(edge, 'systemd', unit), join(root, 'usr/lib/systemd/system', unit));
  for (const rules of readdirSync(join(edge, 'udev')))
    copyTo(join(edge, 'udev', rules), join(root, 'usr/lib/udev/rules.d', rules));
  copyTo(join(edge, 'packaging/lintian-overrides'), join(root, 'usr/share/lintian/overrides/outrider-edge'));
}

/** Sets the version that the agent reports of itself. */
export function stageVersion(root: string, version: string): void {
  const file = join(root, LIBRARY_DIR, 'node_modules/@outrider/edge-agent/package.json');
  const manifest = JSON.parse(readFileSync(file, 'utf8')) as object;
  writeFileSync(file, `${JSON.stringify({ ...manifest, version }, null, 2)}\n`);
}

/** Drops folders that the filters left empty, and gives every file the rights that a package gives. */
export function tidy(root: string): void {
  const visit = (folder: string): void => {
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      const path = join(folder, entry.name);
      if (entry.isDirectory()) visit(path);
      else
        chmodSync(
          path,
          /^(\/usr\/bin\/|\/usr\/lib\/outrider-edge\/bin\/)/.test(path.slice(root.length)) ? 0o755 : 0o644,
        );
    }
    if (folder !== root && readdirSync(folder).length === 0) rmSync(folder, { recursive: true });
    else chmodSync(folder, 0o755);
  };
  visit(root);
}

function copyTo(from: string, to: string): void {
  if (!existsSync(from)) throw new Error(`${from} is not there; run: npm run build`);
  mkdirSync(dirname(to), { recursive: true });
  cpSync(from, to, { dereference: true });
}
