import { readFileSync } from 'node:fs';
import protobuf from 'protobufjs';
import descriptor from 'protobufjs/ext/descriptor.js';

/** One .proto file as tools ask for it. */
export interface SchemaFile {
  readonly name: string;
  /** An encoded google.protobuf.FileDescriptorProto. */
  readonly bytes: Uint8Array;
  /** Full names of its services, methods, messages and enums. */
  readonly symbols: readonly string[];
  readonly services: readonly string[];
}

/** The gRPC services and their messages, described for server reflection. */
export function describeApiSchema(): SchemaFile[] {
  const json: unknown = JSON.parse(
    readFileSync(new URL('../../../generated/api-schema.json', import.meta.url), 'utf8'),
  );
  const { nested: packages } = (
    json as { nested: { grpc: { nested: { reflection: { nested: Record<string, unknown> } } } } }
  ).nested.grpc.nested.reflection;
  // The same service under the name that older tools ask for.
  packages['v1alpha'] = packages['v1'];
  const root = protobuf.Root.fromJSON(json as protobuf.INamespace);
  root.resolveAll();
  const { file: files = [] } = root.toDescriptor('proto3');
  return files.map((file) => {
    const scope = file.package ?? '';
    for (const message of file.messageType ?? []) qualify(message, scope);
    const services = (file.service ?? []).map(({ name }) => `${scope}.${name}`);
    const methods = (file.service ?? []).flatMap(({ name, method }) =>
      (method ?? []).map((each) => `${scope}.${name}.${each.name}`),
    );
    const messages = (file.messageType ?? []).flatMap((message) => namesOf(message, scope));
    return {
      name: file.name ?? '',
      bytes: descriptor.FileDescriptorProto.encode(file as never).finish(),
      symbols: [...services, ...methods, ...messages, ...(file.enumType ?? []).map(({ name }) => `${scope}.${name}`)],
      services,
    };
  });
}

type Message = descriptor.IDescriptorProto;

/** Type names in full, as protoc writes them: not every reader looks for relative ones. */
function qualify(message: Message, scope: string): void {
  const own = `${scope}.${message.name}`;
  const inner = new Set([...(message.nestedType ?? []), ...(message.enumType ?? [])].map(({ name }) => name));
  for (const field of message.field ?? []) {
    const { typeName } = field;
    if (!typeName || typeName.startsWith('.')) continue;
    field.typeName = `.${inner.has(typeName) ? own : scope}.${typeName}`;
  }
  for (const nested of message.nestedType ?? []) qualify(nested, own);
}

function namesOf(message: Message, scope: string): string[] {
  const own = `${scope}.${message.name}`;
  return [
    own,
    ...(message.enumType ?? []).map(({ name }) => `${own}.${name}`),
    ...(message.nestedType ?? []).flatMap((nested) => namesOf(nested, own)),
  ];
}
