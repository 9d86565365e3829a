#!/usr/bin/env node
import { setFlagsFromString } from 'node:v8';

// A robot's steady trickle of samples would let the young generation grow to tens of megabytes of garbage. So little
// is not worth waking four helpers for.
setFlagsFromString('--semi-space-growth-factor=1');
setFlagsFromString('--no-parallel-scavenge');
await import('../dist/src/cli.js');
