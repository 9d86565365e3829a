import { createHash, randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { createLogger } from '@outrider/shared/log';
import { systemClock } from '@outrider/shared/time';
import t from 'tap';
import { BoxShelf } from './shelf.ts';
import { type BoxSink, BoxUploader, type UploadPolicy } from './uploader.ts';

const CHUNK_BYTES = 256 * 1024;

/** A cloud that keeps what it is given, and breaks off now and then. */
class FakeCloud implements BoxSink {
  readonly boxes = new Map<string, Buffer>();
  readonly order: string[] = [];
  asked: string[] = [];
  failures = 0;
  chunks = 0;

  async wanted(): Promise<readonly string[]> {
    return this.asked;
  }

  async send(
    boxId: string,
    { size, sha256, offset, data }: Parameters<BoxSink['send']>[1],
  ): ReturnType<BoxSink['send']> {
    const held = this.boxes.get(boxId) ?? Buffer.alloc(0);
    if (data.length === 0) return { received: held.length, complete: held.length === size };
    if (offset !== held.length) throw new Error(`${offset} after ${held.length}`);
    this.chunks += 1;
    const now = Buffer.concat([held, data]);
    this.boxes.set(boxId, now);
    if (this.failures > 0) {
      this.failures -= 1;
      // It has the part, and nobody learns of it.
      throw new Error('the connection broke');
    }
    if (now.length < size) return { received: now.length, complete: false };
    if (createHash('sha256').update(now).digest('hex') !== sha256) throw new Error('other content');
    this.order.push(boxId);
    return { received: size, complete: true };
  }
}

async function upload(policy: Exclude<UploadPolicy, 'never'>, cloud: FakeCloud, shelf: BoxShelf): Promise<void> {
  const stop = new AbortController();
  let isQuiet = false;
  const uploader = new BoxUploader({
    shelf,
    policy,
    bytesPerS: 1e9,
    sink: async () => cloud,
    // The second look comes after everything of the first was sent.
    isOnline: () => {
      if (isQuiet) stop.abort();
      isQuiet = cloud.failures === 0;
      return true;
    },
    clock: systemClock,
    log: createLogger('test', 'silent'),
    lookEveryMs: 1,
  });
  await uploader.run(stop.signal);
}

t.test('boxes are handed over whole, in parts that go on, newest first; asked ones before all', async (t) => {
  const shelf = new BoxShelf(t.testdir());
  shelf.prepare();
  const contents = new Map(['box-1', 'box-2', 'box-3'].map((id, i) => [id, randomBytes(CHUNK_BYTES * i + 1000)]));
  for (const [id, bytes] of contents) writeFileSync(shelf.pathOf(id), bytes);
  const none = new FakeCloud();
  await upload('on_request', none, shelf);
  t.same(none.order, [], 'nobody asked');
  const cloud = new FakeCloud();
  cloud.asked = ['box-2', 'not-here'];
  cloud.failures = 1;
  await upload('auto', cloud, shelf);
  t.equal(cloud.order.at(0), 'box-2');
  t.same([...cloud.boxes.keys()].sort(), ['box-1', 'box-2', 'box-3']);
  for (const [id, bytes] of contents) t.ok(cloud.boxes.get(id)?.equals(bytes), id);
  t.ok(cloud.chunks <= 7, 'no part was sent twice');
  t.notOk(shelf.list().some((box) => box.exported_at === null));
  const again = new FakeCloud();
  await upload('auto', again, shelf);
  t.same(again.order, [], 'what is there stays there');
  again.asked = ['box-2'];
  await upload('on_request', again, shelf);
  t.same(again.order, ['box-2'], 'unless somebody asks');
});
