import t from 'tap';
import { type Refusal, Suspicion } from './suspicion.ts';

const batch: Refusal = { lane: 'telemetry', from: 7, upto: 20, isAlone: false };
const alone = (from: number): Refusal => ({ lane: 'telemetry', from, upto: from, isAlone: true });
const times = (suspicion: Suspicion, count: number, refusal?: Refusal): boolean[] =>
  Array.from({ length: count }, () => suspicion.connectionLost(refusal));

t.test('five identical refusals make it careful, five of a record alone give it up', async (t) => {
  const suspicion = new Suspicion();
  t.notOk(times(suspicion, 4, batch).includes(true) || suspicion.isCautious);
  t.notOk(suspicion.connectionLost(batch), 'a batch is never given up');
  t.ok(suspicion.isCautious);
  suspicion.progressed('telemetry', 8);
  t.ok(suspicion.isCautious, 'the first ones of the batch are well, the bad one is still to come');
  t.same(times(suspicion, 5, alone(9)), [false, false, false, false, true]);
  t.notOk(suspicion.isCautious);
});

t.test('connections that end in other ways suspect nothing, however often', async (t) => {
  const suspicion = new Suspicion();
  t.notOk(times(suspicion, 100).includes(true) || suspicion.isCautious);
  for (let n = 0; n < 100; n += 1) {
    times(suspicion, 4, batch);
    suspicion.connectionLost(undefined);
  }
  t.notOk(suspicion.isCautious, 'never five in a row');
  times(suspicion, 5, batch);
  for (let n = 0; n < 100; n += 1) {
    t.notOk(times(suspicion, 4, alone(7)).includes(true));
    // Cut before the quiet time was over.
    t.notOk(suspicion.connectionLost(n % 2 === 0 ? undefined : batch));
  }
  t.ok(suspicion.isCautious);
});

t.test('what the cloud has is no longer suspected; another record starts from one', async (t) => {
  const suspicion = new Suspicion();
  times(suspicion, 5, batch);
  times(suspicion, 4, alone(7));
  suspicion.progressed('event', 1000);
  suspicion.progressed('telemetry', 7);
  t.same(times(suspicion, 4, alone(8)), [false, false, false, false]);
  t.same(times(suspicion, 4, alone(9)), [false, false, false, false]);
  suspicion.progressed('telemetry', 20);
  t.notOk(suspicion.isCautious, 'the whole batch went through');
});
