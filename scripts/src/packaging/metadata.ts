import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  closeSync,
  cpSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { gzipSync } from 'node:zlib';
import type { LockedPackage } from './dependencies.ts';
import type { Architecture } from './native.ts';

const MAINTAINER = 'Outrider maintainers <maintainers@outrider.invalid>';
const MAINTAINER_SCRIPTS = ['postinst', 'prerm', 'postrm'];
/** Which package has a library that our binaries ask for. */
const LIBRARY_PACKAGES: Readonly<Record<string, string>> = {
  'libstdc++.so.6': 'libstdc++6',
  'libgcc_s.so.1': 'libgcc-s1',
  'libatomic.so.1': 'libatomic1',
};
const C_LIBRARY = /^(ld-linux.*|lib(c|m|dl|pthread|rt)\.so\.\d)$/;
/** The compiler whose libstdc++ first had GLIBCXX_3.4.N. */
const LIBSTDCXX: Readonly<Record<number, string>> = {
  21: '5',
  22: '6',
  24: '7',
  25: '8',
  26: '9',
  28: '9.3',
  29: '11',
  30: '12',
  31: '13.1',
  32: '13.2',
  33: '14',
};

/** Writes /usr/share/doc: copyright, changelog, manual page. */
export function writeDocumentation(
  repository: string,
  root: string,
  closure: readonly LockedPackage[],
  version: string,
  builtAt: Date,
): void {
  const doc = join(root, 'usr/share/doc/outrider-edge');
  mkdirSync(doc, { recursive: true });
  const head = readFileSync(join(repository, 'edge-agent/packaging/copyright'), 'utf8').trimEnd();
  const bundled = closure
    .filter(({ isWorkspace }) => !isWorkspace)
    .map(
      ({ path, name, version: itsVersion, license }) =>
        `Files: usr/lib/outrider-edge/${path}/*\nCopyright: the authors of ${name}\nLicense: ${licenseName(license)}\nComment: ${name} ${itsVersion} from the npm registry, "${license}"; its notice is in its folder.`,
    );
  writeFileSync(join(doc, 'copyright'), `${[head, ...bundled].join('\n\n')}\n`);
  const date = builtAt.toUTCString().replace('GMT', '+0000');
  const entry = `outrider-edge (${version}) stable; urgency=medium\n\n  * See CHANGELOG.gz.\n\n -- ${MAINTAINER}  ${date}\n`;
  writeGzip(join(doc, 'changelog.gz'), entry);
  writeGzip(join(doc, 'CHANGELOG.gz'), readFileSync(join(repository, 'CHANGELOG.md')));
  writeGzip(
    join(root, 'usr/share/man/man1/outrider-edge.1.gz'),
    readFileSync(join(repository, 'edge-agent/packaging/outrider-edge.1')),
  );
}

/** Writes the DEBIAN folder. The rest of the tree must be complete. */
export function writeControl(repository: string, root: string, architecture: Architecture, version: string): void {
  const control = join(root, 'DEBIAN');
  mkdirSync(control, { recursive: true });
  const files = filesBelow(root).filter((file) => !file.startsWith('DEBIAN/'));
  const depends = [...libraryDepends(root, files), 'adduser', 'init-system-helpers (>= 1.54~)'];
  const sizeKb = files.reduce((sum, file) => sum + Math.ceil(statSync(join(root, file)).size / 1024), 0);
  const template = readFileSync(join(repository, 'edge-agent/packaging/control'), 'utf8');
  const values: Record<string, string> = {
    version,
    architecture,
    depends: depends.join(', '),
    size: String(sizeKb),
    maintainer: MAINTAINER,
  };
  writeFileSync(
    join(control, 'control'),
    template.replace(/@(\w+)@/g, (_, name: string) => values[name] ?? ''),
  );
  writeFileSync(
    join(control, 'conffiles'),
    files
      .filter((file) => file.startsWith('etc/'))
      .map((file) => `/${file}\n`)
      .join(''),
  );
  writeFileSync(
    join(control, 'md5sums'),
    files
      .filter((file) => !file.startsWith('etc/'))
      .map((file) => `${md5(join(root, file))}  ${file}\n`)
      .join(''),
  );
  for (const script of MAINTAINER_SCRIPTS) {
    cpSync(join(repository, 'edge-agent/packaging', script), join(control, script));
    execFileSync('chmod', ['0755', join(control, script)]);
  }
}

/** Packages of the libraries that our binaries ask for, in the versions whose symbols they use. */
function libraryDepends(root: string, files: readonly string[]): string[] {
  const binaries = files.map((file) => join(root, file)).filter(isElf);
  const text = execFileSync('readelf', ['--wide', '--dynamic', '--version-info', ...binaries], {
    encoding: 'utf8',
    env: { ...process.env, LC_ALL: 'C' },
    maxBuffer: 64 * 1024 * 1024,
  });
  const libraries = new Set([...text.matchAll(/\(NEEDED\)[^[]*\[([^\]]+)\]/g)].map(([, name = '']) => name));
  const highest = (pattern: RegExp): number => Math.max(...[...text.matchAll(pattern)].map(([, n]) => Number(n)));
  const depends = [`libc6 (>= 2.${highest(/Name: GLIBC_2\.(\d+)/g)})`];
  for (const library of [...libraries].sort()) {
    if (C_LIBRARY.test(library)) continue;
    const name = LIBRARY_PACKAGES[library];
    if (name === undefined) throw new Error(`a binary needs ${library}: say in metadata.ts which package has it`);
    depends.push(name === 'libstdc++6' ? `${name} (>= ${libstdcxx(highest(/Name: GLIBCXX_3\.4\.(\d+)/g))})` : name);
  }
  return depends;
}

function libstdcxx(revision: number): string {
  const compiler = Object.entries(LIBSTDCXX).find(([of]) => Number(of) >= revision);
  if (!compiler)
    throw new Error(`a binary needs GLIBCXX_3.4.${revision}: say in metadata.ts which compiler brought it`);
  return compiler[1];
}

/** As Debian's machine-readable format wants it: one word. */
const licenseName = (license: string): string =>
  license
    .replace(/[()]/g, '')
    .replace(/\s+(OR|AND)\s+/g, (_, word: string) => ` ${word.toLowerCase()} `)
    .trim();

function isElf(file: string): boolean {
  const handle = openSync(file, 'r');
  const start = Buffer.alloc(4);
  readSync(handle, start, 0, 4, 0);
  closeSync(handle);
  return start.equals(Buffer.from('\x7fELF', 'latin1'));
}

/** Every file below a folder, relative to it, in a stable order. */
function filesBelow(root: string): string[] {
  return readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(root, join(entry.parentPath, entry.name)))
    .sort();
}

const md5 = (file: string): string => createHash('md5').update(readFileSync(file)).digest('hex');

function writeGzip(file: string, content: string | Buffer): void {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, gzipSync(content, { level: 9 }));
}
