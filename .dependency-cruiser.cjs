/** Import directions: who may know whom. See ARCHITECTURE.md. */
const program = (name) => `^${name}/`;

module.exports = {
  forbidden: [
    {
      name: 'no-cycles',
      comment: 'Types may know each other; modules must not wait for each other.',
      severity: 'error',
      from: {},
      to: { circular: true, viaOnly: { dependencyTypesNot: ['type-only'] } },
    },
    {
      name: 'shared-imports-no-program',
      severity: 'error',
      from: { path: program('shared') },
      to: { path: '^(firmware-bridge|edge-agent|cloud|scripts)/' },
    },
    {
      name: 'firmware-bridge-knows-only-shared',
      severity: 'error',
      from: { path: program('firmware-bridge') },
      to: { path: '^(edge-agent|cloud|scripts)/' },
    },
    {
      name: 'programs-never-import-each-other',
      severity: 'error',
      from: { path: '^(edge-agent|cloud)/(src|test)/' },
      to: { path: '^(edge-agent|cloud|scripts)/(src|dist)/', pathNot: '^$1/' },
    },
    {
      name: 'failsafe-rules-are-pure',
      comment: 'The evaluator runs in the guard, in the what-if and in the console: no clock, no I/O, no neighbours.',
      severity: 'error',
      from: { path: '^shared/src/failsafe/', pathNot: '(\\.test\\.ts$|/testing/)' },
      to: { pathNot: '^shared/src/(failsafe/|telemetry\\.ts|units\\.ts|assert\\.ts|time\\.ts)' },
    },
    {
      name: 'guard-touches-no-network-and-no-database',
      severity: 'error',
      from: { path: '^edge-agent/src/guard/', pathNot: '\\.test\\.ts$' },
      to: {
        path: '(^edge-agent/src/(uplink|outbox|local-api|sources)/|node_modules/(mqtt|better-sqlite3|hono|@hono|rclnodejs)/|^https?$|^tls$|^http2$)',
      },
    },
    {
      name: 'contexts-know-no-transport',
      comment: 'Domain contexts declare ports; adapters implement them.',
      severity: 'error',
      from: {
        path: '^cloud/src/(alert|notify|events|identity|fleet|failsafe|dashboard|telemetry)/',
        pathNot: '\\.test\\.ts$',
      },
      to: {
        path: '(^cloud/src/(api|broker)/|node_modules/(hono|@hono|aedes|mqtt)/)',
        pathNot: '^cloud/src/broker/bus\\.ts$',
      },
    },
    {
      name: 'surfaces-never-import-each-other',
      severity: 'error',
      from: { path: '^cloud/src/api/(sigma|wia|system)/' },
      to: { path: '^cloud/src/api/(sigma|wia|system)/', pathNot: '^cloud/src/api/$1/' },
    },
    {
      name: 'only-tests-import-testing',
      comment: 'The measuring programs are tests that a person starts.',
      severity: 'error',
      from: { pathNot: '(\\.test\\.ts$|/testing/|/test/|^scripts/src/(load|faults|bench)/)' },
      to: { path: '/testing/' },
    },
    {
      name: 'no-undeclared-packages',
      severity: 'error',
      from: {},
      to: { dependencyTypes: ['npm-no-pkg', 'unknown'], pathNot: '^rclnodejs$' },
    },
    { name: 'not-to-unresolvable', severity: 'error', from: {}, to: { couldNotResolve: true, pathNot: '^rclnodejs$' } },
  ],
  options: {
    doNotFollow: { path: ['node_modules', 'dist', 'generated'] },
    tsPreCompilationDeps: true,
    combinedDependencies: true,
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['import', 'types', 'node', 'default'] },
  },
};
