import { renameSync, writeFileSync } from 'node:fs';
import type { AgentConfig } from '../config.ts';

/** Says that the local API answers, and where, to whoever started the agent with `--ready-file`. */
export function writeReady(
  file: string | undefined,
  config: AgentConfig,
  bootId: string,
  port: number | undefined,
): void {
  if (file === undefined) return;
  const ready = {
    pid: process.pid,
    robot_id: config.device.robotId,
    boot_id: bootId,
    socket: config.localApi.socketPath,
    metrics_port: port ?? null,
  };
  writeFileSync(`${file}.new`, `${JSON.stringify(ready, null, 2)}\n`);
  renameSync(`${file}.new`, file);
}
