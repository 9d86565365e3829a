import t from 'tap';
import { openGround, type Replica, startReplica } from './ingest-rig.ts';
import { ingestSuite } from './ingest-suite.ts';

t.test('ingest on PGlite and the broker in this process', async (t) => {
  const ground = await openGround();
  let replica: Replica = await startReplica(ground);
  t.teardown(async () => {
    await replica.stop();
    await ground.close();
  });
  await ingestSuite(t, {
    ground,
    replica: () => replica,
    url: () => replica.url,
    async restart() {
      await replica.stop();
      replica = await startReplica(ground);
    },
  });
});
