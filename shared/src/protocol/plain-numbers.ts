import { createRequire } from 'node:module';

const protobuf = createRequire(import.meta.url)('protobufjs/minimal.js') as typeof import('protobufjs/minimal.js');

// Sequence numbers and counters are JavaScript numbers (exact up to 2^53), as the generated types say. protobufjs
// would hand out Long objects wherever the `long` package happens to be installed, for absent fields too: those
// defaults are made when the generated code is loaded, so this must be loaded before it.
protobuf.util.Long = null as unknown as typeof protobuf.util.Long;
protobuf.configure();
