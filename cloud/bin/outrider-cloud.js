#!/usr/bin/env -S node --no-parallel-scavenge --min-semi-space-size=16 --max-semi-space-size=32
// Messages are garbage soon, and helpers that wait for so little of it cost more than they save; after a quiet while
// V8 would besides begin with so small a nursery that what is in flight grows old in it. Together this is a
// third of the processor time of a message. Whoever starts this file with `node` gets V8's own settings.
import '../dist/src/cli.js';
