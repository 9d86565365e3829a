/**
 * Version of the wire in messages.proto. A cloud accepts batches of its own version and refuses others in its
 * hello reply with a sentence that says which side to update.
 *
 * History, one line a version:
 * 1: first published wire.
 */
export const PROTOCOL_VERSION = 1;
