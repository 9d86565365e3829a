import './plain-numbers.ts';

export { outrider } from '#messages';
