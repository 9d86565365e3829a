/** A broken invariant: a bug of ours, not bad input. Nothing catches it but the process's last handler. */
export class InvariantError extends Error {
  override readonly name = 'InvariantError';
}

/** Ends the operation when something that must hold does not. Not for input: that is a `DomainError`. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new InvariantError(message);
}

/** Proves at compile time that a union was handled whole. */
export function assertNever(value: never): never {
  throw new InvariantError(`unhandled value ${JSON.stringify(value)}`);
}
