import t from 'tap';
import { Gathered } from './gathered.ts';

interface Question {
  readonly keys: readonly string[];
  readonly answer: (found: ReadonlyMap<string, number>) => void;
  readonly fail: (error: Error) => void;
}

/** A store whose answers come when the test says so. */
function rig(): { reads: Gathered<string, number>; questions: Question[]; turn: () => Promise<void> } {
  const questions: Question[] = [];
  const reads = new Gathered<string, number>(
    (keys) => new Promise((answer, fail) => questions.push({ keys, answer, fail })),
  );
  const turn = (): Promise<void> => new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
  return { reads, questions, turn };
}

t.test('reads of one moment go out as one question, each key once', async (t) => {
  const { reads, questions, turn } = rig();
  const found = Promise.all(['a', 'b', 'a', 'none'].map((key) => reads.read(key)));
  await turn();
  t.same(
    questions.map(({ keys }) => keys),
    [['a', 'b', 'none']],
  );
  questions[0]?.answer(
    new Map([
      ['a', 1],
      ['b', 2],
    ]),
  );
  t.same(await found, [1, 2, 1, undefined]);
});

t.test('a read never gets the answer to a question that was asked before it', async (t) => {
  const { reads, questions, turn } = rig();
  const early = reads.read('a');
  await turn();
  const late = reads.read('a');
  await turn();
  t.equal(questions.length, 2);
  questions[0]?.answer(new Map([['a', 1]]));
  questions[1]?.answer(new Map([['a', 2]]));
  t.same(await Promise.all([early, late]), [1, 2]);
});

t.test('with two questions on their way, what comes then waits and goes out together', async (t) => {
  const { reads, questions, turn } = rig();
  const first = [reads.read('a')];
  await turn();
  first.push(reads.read('b'));
  await turn();
  const rest = ['c', 'd', 'c'].map((key) => reads.read(key));
  await turn();
  t.equal(questions.length, 2);
  questions[1]?.answer(new Map([['b', 2]]));
  await turn();
  t.same(questions[2]?.keys, ['c', 'd'], 'the slow first one holds nobody up');
  questions[2]?.answer(
    new Map([
      ['c', 3],
      ['d', 4],
    ]),
  );
  t.same(await Promise.all(rest), [3, 4, 3]);
  questions[0]?.answer(new Map([['a', 1]]));
  t.same(await Promise.all(first), [1, 2]);
});

t.test('a failure reaches those who asked that question, and nobody after them', async (t) => {
  const { reads, questions, turn } = rig();
  const failing = Promise.allSettled([reads.read('a'), reads.read('b')]);
  await turn();
  questions[0]?.fail(new Error('away'));
  t.same(
    (await failing).map(({ status }) => status),
    ['rejected', 'rejected'],
  );
  const next = reads.read('a');
  await turn();
  questions[1]?.answer(new Map([['a', 1]]));
  t.equal(await next, 1);
});
