#!/usr/bin/env node
import { setFlagsFromString } from 'node:v8';

// As packaging/outrider-edge.sh does it. A robot's steady trickle of samples would let the young generation grow to
// tens of megabytes of garbage. So little is not worth waking four helpers for.
setFlagsFromString('--semi-space-growth-factor=1');
setFlagsFromString('--no-parallel-scavenge');
// For the guard that the agent starts; in this process the C library has read it already.
process.env.MALLOC_ARENA_MAX ??= '1';
await import('../dist/src/cli.js');
