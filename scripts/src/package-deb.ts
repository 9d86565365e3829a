import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { errorMessage } from '@outrider/shared/errors';
import { Command, Option } from 'commander';
import { productionClosure } from './packaging/dependencies.ts';
import { writeControl, writeDocumentation } from './packaging/metadata.ts';
import { ARCHITECTURES, type Architecture, nativeParts } from './packaging/native.ts';
import { LIBRARY_DIR, stageNative, stagePackage, stageSystemFiles, stageVersion, tidy } from './packaging/stage.ts';
import { repositoryRoot } from './stack.ts';

interface Options {
  readonly arch: readonly Architecture[];
  readonly out: string;
  readonly packageVersion?: string;
  readonly fast?: boolean;
}

/** Makes one .deb. @returns Its path. */
function makeDeb(architecture: Architecture, version: string, options: Options): string {
  const root = mkdtempSync(join(tmpdir(), 'outrider-package-'));
  try {
    const closure = productionClosure(repositoryRoot, 'edge-agent');
    const native = nativeParts(repositoryRoot, closure, architecture, join(repositoryRoot, '.outrider/package'));
    for (const locked of closure) stagePackage(repositoryRoot, root, locked);
    stageNative(root, native);
    stageSystemFiles(repositoryRoot, root);
    stageVersion(root, version);
    const builtAt = lastChange();
    writeDocumentation(repositoryRoot, root, closure, version, builtAt);
    tidy(root);
    const binaries = [
      join(root, LIBRARY_DIR, 'bin/node'),
      ...native.modules.map(({ target }) => join(root, LIBRARY_DIR, target)),
    ];
    execFileSync(native.strip, ['--strip-unneeded', '--remove-section=.comment', ...binaries]);
    writeControl(repositoryRoot, root, architecture, version);
    mkdirSync(options.out, { recursive: true });
    const file = join(resolve(options.out), `outrider-edge_${version}_${architecture}.deb`);
    // The times of all files are that of the last commit, so that one commit gives one package, bit for bit.
    const env = { ...process.env, SOURCE_DATE_EPOCH: String(builtAt.getTime() / 1000) };
    const compression = options.fast ? ['-Zgzip', '-z1'] : ['-Zxz', '-z6'];
    execFileSync('dpkg-deb', ['--root-owner-group', ...compression, '--build', root, file], { env, stdio: 'pipe' });
    return file;
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}

/** SOURCE_DATE_EPOCH, or when the last commit was made. */
function lastChange(): Date {
  const given = process.env['SOURCE_DATE_EPOCH'];
  const seconds =
    given ?? execFileSync('git', ['log', '-1', '--format=%ct'], { cwd: repositoryRoot, encoding: 'utf8' });
  return new Date(Number(seconds) * 1000);
}

function ownVersion(): string {
  const manifest = readFileSync(join(repositoryRoot, 'edge-agent/package.json'), 'utf8');
  return (JSON.parse(manifest) as { version: string }).version;
}

const own = ARCHITECTURES.find((name) => name === (process.arch === 'x64' ? 'amd64' : process.arch));
const program = new Command('npm run package --')
  .description('Makes the Debian package of the edge agent, with its own Node. Needs no root.')
  .addOption(
    new Option('--arch <name...>', "for which architectures; another than this machine's is cross-compiled")
      .choices([...ARCHITECTURES])
      .default(own ? [own] : []),
  )
  .option('--out <dir>', 'where to put it', join(repositoryRoot, 'dist'))
  .option('--package-version <version>', 'instead of the version of edge-agent/package.json')
  .option('--fast', 'compress less: a third of the time, half as much again in size');
try {
  const options = program.parse().opts<Options>();
  for (const architecture of options.arch) {
    const file = makeDeb(architecture, options.packageVersion ?? ownVersion(), options);
    console.log(`${file}  ${(statSync(file).size / 1e6).toFixed(1)} MB`);
  }
} catch (error) {
  console.error(`package: ${errorMessage(error)}`);
  process.exitCode = 1;
}
