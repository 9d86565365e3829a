/* A host that arms and beats until it is killed. Started by outrider-mcu.test.ts with the path of the pty. */
import { Host } from './mcu-process.ts';

const host = await Host.open(process.argv[2] ?? '');
await host.armAt(1);
