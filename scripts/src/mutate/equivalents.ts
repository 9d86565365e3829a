import type { Mutation } from './mutations.ts';

/** A change that no test can notice, because the program does the same with it. */
interface Equivalence {
  readonly file: string;
  /** Part of the source line that is changed. */
  readonly line: string;
  /** The change as it is shown, or its beginning. */
  readonly words: string;
  readonly why: string;
}

/** Only what follows from the code around it. What is merely not tested does not belong here. */
const EQUIVALENTS: readonly Equivalence[] = [
  {
    file: 'evaluate.ts',
    line: "if (event.kind === 'trigger') latched =",
    words: "event.kind === 'trigger' → true",
    why: 'without a mode no cause is asked for',
  },
  {
    file: 'evaluate.ts',
    line: "cause.latched && rule?.clearing === 'auto'",
    words: "cause.latched && rule?.clearing === 'auto' → rule?.clearing",
    why: 'what is not latched has no words, and stays as it is',
  },
  {
    file: 'evaluate.ts',
    line: "event.kind === 'stored' && event.latchId",
    words: "event.kind === 'stored' && event.latchId === state.latchId → event.latchId",
    why: 'no other event has a motion epoch',
  },
  {
    file: 'evaluate.ts',
    line: 'severity(worst.action) > severity(floor) ?',
    words: 'severity(worst.action) > severity(floor) → severity(worst.action) >=',
    why: 'of equal severity are only equal actions',
  },
  {
    file: 'evaluate.ts',
    line: 'return rule ? latchTripped(stepSilence',
    words: 'rule ? latchTripped(stepSilence(cause, rule, state.nowMs, po… → (latchTripped',
    why: 'a state has a cause for each rule',
  },
  {
    file: 'evaluate.ts',
    line: 'if (cause) pairs.push',
    words: 'cause → true',
    why: 'a state has a cause for each rule',
  },
  {
    file: 'evaluate.ts',
    line: 'if (!state.causes.some((cause, i) => isOver',
    words: '!state.causes.some((cause, i) => isOver(cause, policy.rules[… → false',
    why: 'it saves a copy that would be equal',
  },
  {
    file: 'evaluate.ts',
    line: 'if (!state.causes.some((cause, i) => isOver',
    words: 'return state; → ;',
    why: 'it saves a copy that would be equal',
  },
  {
    file: 'classify-signals.ts',
    line: "worst.isBelow('fair')",
    words: "speedRadps >= limits.standstillRadps && worst.isBelow('fair'… → speedRadps",
    why: 'it saves words that would not be taken',
  },
  {
    file: 'classify-signals.ts',
    line: 'worst.isBelow(verdict)',
    words: 'worst.isBelow(verdict) → true',
    why: 'it saves words that would not be taken',
  },
  {
    file: 'classify-signals.ts',
    line: 'for (let i = 0; i < count; i++)',
    words: '0 → (-1)',
    why: 'before the first joint nothing is said, and nothing is wrong',
  },
  {
    file: 'classify-signals.ts',
    line: 'for (let i = 0; i < count; i++)',
    words: 'i < count → i <= count',
    why: 'behind the last joint nothing is said, and nothing is wrong',
  },
  {
    file: 'classify-agent.ts',
    line: 'rank(mission) > rank(limits.policy)',
    words: 'rank(mission) > rank(limits.policy) → rank(mission) >=',
    why: 'of equal rank are only equal policies',
  },
  {
    file: 'classify-body.ts',
    line: '<= QUATERNION_ERROR_MAX',
    words: 'Math.abs(length - 1) <= QUATERNION_ERROR_MAX → Math.abs(length - 1) < QUATERNION',
    why: 'no double is exactly 0.05 away from 1',
  },
  {
    file: 'classify-history.ts',
    line: 'declaredRateHz > 0 ? 1000 / declaredRateHz : 0',
    words: '0 → (-1)',
    why: 'the larger of it and a time that has passed is taken',
  },
  {
    file: 'classify-place.ts',
    line: 'isInside = !isInside',
    words: 'x < ((bx - ax) * (y - ay)) / (by - ay) + ax → x <=',
    why: 'they differ on the edge alone, where the distance is 0 and -0',
  },
  {
    file: 'classify-place.ts',
    line: 'isInside = !isInside',
    words: 'x < ((bx - ax) * (y - ay)) / (by - ay) + ax → x >=',
    why: 'a closed line is crossed as often, odd or even, on the left as on the right',
  },
  {
    file: 'classify-place.ts',
    line: 'lengthSquared || 1',
    words: '1 → 2',
    why: 'zero is divided by it',
  },
  {
    file: 'classify-place.ts',
    line: 'Math.round(turnDeg / 360)',
    words: '360 → ',
    why: 'a turn within a fence is near 0 or near 360, where a divisor of 359 or 361 rounds to the same',
  },
  {
    file: 'classify-place.ts',
    line: 'spanMs < SPEED_WINDOW_MS) return 0',
    words: '0 → (-1)',
    why: 'no speed and a negative one are both not too fast',
  },
];

/** Why a surviving mutant is no fault; `undefined`: it is one. */
export function equivalenceOf(mutant: Mutation & { readonly file: string }, text: string): string | undefined {
  const line = text.split('\n')[mutant.line - 1] ?? '';
  return EQUIVALENTS.find(
    (known) => known.file === mutant.file && line.includes(known.line) && mutant.words.startsWith(known.words),
  )?.why;
}
