import './plain-numbers.ts';

export { google, grpc, outrider } from '#api-messages';
