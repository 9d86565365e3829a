#!/usr/bin/env node
import { setFlagsFromString } from 'node:v8';

// A robot's steady trickle of samples would let the young generation grow to tens of megabytes of garbage.
setFlagsFromString('--semi-space-growth-factor=1');
await import('../dist/src/cli.js');
