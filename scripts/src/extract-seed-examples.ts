import { readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

/** A route of the document, with the examples that stand under it. */
export interface SeedRoute {
  readonly section: string;
  readonly method: string;
  /** With the base URL before it. */
  readonly path: string;
  readonly summary: string;
  readonly request?: unknown;
  readonly responses: readonly { readonly status: number; readonly body: unknown }[];
}

/** What of an API document can be checked by a program. */
export interface SeedDocument {
  readonly document: string;
  readonly routes: readonly SeedRoute[];
  /** The example of the error envelope. */
  readonly error: unknown;
  readonly eventTypes: readonly string[];
  readonly eventFields: readonly string[];
}

const root = resolve(fileURLToPath(new URL('../../..', import.meta.url)));
export const SIGMA_SEED = resolve(root, '../shared/seeds/sigma-prompt.md');
export const SIGMA_EXAMPLES = join(root, 'cloud/test/conformance/sigma-seed.json');

interface OpenRoute {
  section: string;
  method: string;
  path: string;
  summary: string;
  request?: unknown;
  responses: { status: number; body: unknown }[];
}

/** Reads routes and examples out of the Markdown. @throws when an example is not JSON. */
export function extractSeed(document: string, markdown: string): SeedDocument {
  const routes: OpenRoute[] = [];
  const base = /^- Base URL: `([^`]+)`/m.exec(markdown)?.[1] ?? '';
  const eventTypes: string[] = [];
  const eventFields: string[] = [];
  let error: unknown;
  let section = '';
  let title = '';
  let label = '';
  let open: OpenRoute | undefined;
  const lines = markdown.split('\n');
  for (let at = 0; at < lines.length; at += 1) {
    const line = lines[at] ?? '';
    const heading = /^## (\d+)\. (.+)$/.exec(line);
    const route = /^### (GET|POST|PUT|PATCH|DELETE) `([^`]+)`$/.exec(line);
    if (heading) {
      section = `§${heading[1]}`;
      title = heading[2] ?? '';
      open = undefined;
    } else if (route) {
      open = { section, method: route[1] ?? '', path: `${base}${route[2]}`, summary: '', responses: [] };
      routes.push(open);
    } else if (/^\*\*.+\*\*$/.test(line)) {
      label = line.slice(2, -2);
    } else if (line === '```json') {
      const end = lines.indexOf('```', at);
      const example: unknown = JSON.parse(lines.slice(at + 1, end).join('\n'));
      if (open) addExample(open, label, example);
      else if (/error/i.test(title)) error = example;
      at = end;
    } else if (/event schemas/i.test(title)) {
      for (const [, word = ''] of line.matchAll(/`([^`]+)`/g))
        (/\.v\d+$/.test(word) ? eventTypes : eventFields).push(word);
    } else if (open && open.summary === '' && line.trim() !== '') open.summary = line.trim();
  }
  return { document, routes, error, eventTypes, eventFields };
}

function addExample(route: OpenRoute, label: string, example: unknown): void {
  const status = /^Response (\d{3})$/.exec(label)?.[1];
  if (status !== undefined) route.responses.push({ status: Number(status), body: example });
  else if (label === 'Request') route.request = example;
  else throw new Error(`an example of ${route.method} ${route.path} stands under '${label}'`);
}

/** The file's text for a seed. */
export const examplesText = (seed: SeedDocument): string => `${JSON.stringify(seed, null, 2)}\n`;

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  writeFileSync(SIGMA_EXAMPLES, examplesText(extractSeed('sigma-prompt.md', readFileSync(SIGMA_SEED, 'utf8'))));
  console.log(SIGMA_EXAMPLES);
}
