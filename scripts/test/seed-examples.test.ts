import { existsSync, readFileSync } from 'node:fs';
import t from 'tap';
import { extractSeed, SIGMA_EXAMPLES, SIGMA_SEED } from '../src/extract-seed-examples.ts';

t.test(
  'the conformance data is what the document says',
  {
    skip: existsSync(SIGMA_SEED) ? false : `${SIGMA_SEED} is not there`,
  },
  async (t) => {
    const seed = extractSeed('sigma-prompt.md', readFileSync(SIGMA_SEED, 'utf8'));
    t.ok(seed.routes.length >= 12, `${seed.routes.length} routes were found`);
    t.same(
      JSON.parse(readFileSync(SIGMA_EXAMPLES, 'utf8')),
      JSON.parse(JSON.stringify(seed)),
      'write it again with: node scripts/dist/src/extract-seed-examples.js',
    );
  },
);

t.test('examples are found under their headings, and one that is no JSON is not passed over', async (t) => {
  const page = [
    '- Base URL: `/api/v1`',
    '## 3. Things',
    '### POST `/things/{id}`',
    'Makes a thing.',
    '**Request**',
    '```json',
    '{"a": 1}',
    '```',
    '**Response 201**',
    '```json',
    '{"b": 2}',
    '```',
    '## 11. Event Schemas',
    '- `thing.made.v1`',
    '- `event_id`',
    '## 12. Error Model',
    '```json',
    '{"error": {}}',
    '```',
  ];
  t.same(extractSeed('page.md', page.join('\n')), {
    document: 'page.md',
    routes: [
      {
        section: '§3',
        method: 'POST',
        path: '/api/v1/things/{id}',
        summary: 'Makes a thing.',
        request: { a: 1 },
        responses: [{ status: 201, body: { b: 2 } }],
      },
    ],
    error: { error: {} },
    eventTypes: ['thing.made.v1'],
    eventFields: ['event_id'],
  });
  t.throws(() => extractSeed('page.md', page.join('\n').replace('{"a": 1}', '{a}')));
});
