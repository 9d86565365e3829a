import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

/** A call that has a better way here, and where it is allowed all the same. */
interface Ban {
  readonly pattern: RegExp;
  readonly instead: string;
  readonly except: RegExp;
}

const TESTS = /(\.test\.ts$|\/test\/|\/testing\/|^scripts\/)/;

const BANS: readonly Ban[] = [
  { pattern: /\bDate\.now\(/, instead: 'take a Clock', except: /^shared\/src\/time\.ts$/ },
  { pattern: /\bperformance\.now\(/, instead: 'take a Clock', except: /^shared\/src\/time\.ts$/ },
  {
    pattern: /\bprocess\.env\b/,
    instead: 'parse it in config.ts',
    except: /\/(config|cli|ros2|ros2-child)\.ts$|\/cli\//,
  },
  {
    pattern: /\bprocess\.exit\(/,
    instead: 'return, or set process.exitCode',
    except: /\/(cli|main|ros2-child)\.ts$|\/cli\//,
  },
  { pattern: /\bsql\.raw\(/, instead: 'bind parameters', except: /\/storage\/migrat/ },
  { pattern: /\binsecureHTTPParser\b/, instead: 'nothing: the strict parser stays', except: /^$/ },
];

const files = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard', '*.ts'], {
  encoding: 'utf8',
})
  .split('\n')
  .filter((file) => file !== '' && !TESTS.test(file));

const findings = files.flatMap((file) =>
  readFileSync(file, 'utf8')
    .split('\n')
    .flatMap((line, index) =>
      BANS.filter((ban) => ban.pattern.test(line) && !/^\s*(\*|\/\/)/.test(line) && !ban.except.test(file)).map(
        (ban) => `${file}:${index + 1}: ${ban.pattern.source} - ${ban.instead}`,
      ),
    ),
);

if (files.length === 0) {
  console.error('check-style looked at no file: that is a failure');
  process.exitCode = 1;
} else if (findings.length > 0) {
  console.error(findings.join('\n'));
  process.exitCode = 1;
} else console.log(`check-style: ${files.length} files`);
