import { open, readFile, rename, rm } from 'node:fs/promises';
import { McapStreamReader, McapWriter } from '@mcap/core';

/** What could be saved of a recording that broke off. */
export interface Salvaged {
  readonly messages: number;
  readonly facts: Readonly<Record<string, string>>;
  readonly fromNs: bigint;
  readonly toNs: bigint;
}

/**
 * Makes a recording that broke off a whole one again, with everything up to its last whole chunk.
 *
 * @returns `undefined` when nothing could be saved; the broken file is gone then.
 */
export async function salvageRecording(partPath: string, path: string): Promise<Salvaged | undefined> {
  const handle = await open(`${path}.new`, 'w', 0o600);
  let bytes = 0;
  const writer = new McapWriter({
    writable: {
      position: () => BigInt(bytes),
      write: async (buffer) => {
        await handle.writeFile(buffer);
        bytes += buffer.length;
      },
    },
  });
  let salvaged: Salvaged = { messages: 0, facts: {}, fromNs: 0n, toNs: 0n };
  try {
    await writer.start({ profile: 'ros2', library: 'outrider-edge' });
    const schemas = new Map<number, number>();
    const channels = new Map<number, number>();
    for (const record of wholeRecords(await readFile(partPath))) {
      if (record.type === 'Schema' && !schemas.has(record.id))
        schemas.set(record.id, await writer.registerSchema(record));
      else if (record.type === 'Channel' && !channels.has(record.id))
        channels.set(
          record.id,
          await writer.registerChannel({ ...record, schemaId: schemas.get(record.schemaId) ?? 0 }),
        );
      else if (record.type === 'Metadata') {
        await writer.addMetadata(record);
        salvaged = { ...salvaged, facts: { ...salvaged.facts, ...Object.fromEntries(record.metadata) } };
      } else if (record.type === 'Message') {
        await writer.addMessage({ ...record, channelId: channels.get(record.channelId) ?? 0 });
        const fromNs = salvaged.messages === 0 ? record.logTime : salvaged.fromNs;
        salvaged = { ...salvaged, messages: salvaged.messages + 1, fromNs, toNs: record.logTime };
      }
    }
    await writer.end();
    await handle.sync();
  } finally {
    await handle.close();
  }
  if (salvaged.messages === 0) await rm(`${path}.new`, { force: true });
  else await rename(`${path}.new`, path);
  await rm(partPath, { force: true });
  return salvaged.messages === 0 ? undefined : salvaged;
}

function* wholeRecords(bytes: Uint8Array): Generator<NonNullable<ReturnType<McapStreamReader['nextRecord']>>> {
  const reader = new McapStreamReader();
  reader.append(bytes);
  for (;;) {
    let record: ReturnType<McapStreamReader['nextRecord']>;
    try {
      record = reader.nextRecord();
    } catch {
      return; // A torn record: everything before it was whole.
    }
    if (!record) return;
    yield record;
  }
}
