import { status } from '@grpc/grpc-js';
import { grpc } from '@outrider/shared/protocol/api-messages';
import type { SchemaFile } from '@outrider/shared/protocol/api-schema';
import type { Calls, Methods } from './calls.ts';

const { ServerReflectionRequest, ServerReflectionResponse } = grpc.reflection.v1;
type Answer = Omit<grpc.reflection.v1.ServerReflectionResponse.$Properties, 'valid_host' | 'original_request'>;

/** What the schema says, by the names that tools ask for. */
class SchemaIndex {
  readonly services: readonly string[];
  readonly #byName = new Map<string, SchemaFile>();
  readonly #bySymbol = new Map<string, SchemaFile>();

  constructor(files: readonly SchemaFile[]) {
    this.services = files.flatMap((file) => file.services).sort();
    for (const file of files) {
      this.#byName.set(file.name, file);
      for (const symbol of file.symbols) this.#bySymbol.set(symbol, file);
    }
  }

  answer(request: grpc.reflection.v1.ServerReflectionRequest): Answer {
    if (request.list_services != null)
      return { list_services_response: { service: this.services.map((name) => ({ name })) } };
    if (request.file_by_filename != null) return describe(this.#byName.get(request.file_by_filename));
    if (request.file_containing_symbol != null) return describe(this.#bySymbol.get(request.file_containing_symbol));
    if (request.all_extension_numbers_of_type != null)
      return this.#bySymbol.has(request.all_extension_numbers_of_type)
        ? { all_extension_numbers_response: { base_type_name: request.all_extension_numbers_of_type } }
        : describe(undefined);
    if (request.file_containing_extension != null) return describe(undefined);
    return { error_response: { error_code: status.INVALID_ARGUMENT, error_message: 'nothing was asked for' } };
  }
}

function describe(file: SchemaFile | undefined): Answer {
  return file
    ? { file_descriptor_response: { file_descriptor_proto: [file.bytes] } }
    : { error_response: { error_code: status.NOT_FOUND, error_message: 'there is no such file or symbol' } };
}

/** grpc.reflection.v1.ServerReflection, and v1alpha, whose messages are the same. */
export function reflectionService(calls: Calls): Methods {
  let index: Promise<SchemaIndex> | undefined;
  // Loaded when somebody asks: it needs all of protobufjs, which nothing else here does.
  const open = async (): Promise<SchemaIndex> => {
    const { describeApiSchema } = await import('@outrider/shared/protocol/api-schema');
    return new SchemaIndex(describeApiSchema());
  };
  return {
    ServerReflectionInfo: calls.duplex(
      {
        request: ServerReflectionRequest,
        reply: ServerReflectionResponse,
        access: 'certificate',
        throttle: 'never',
      },
      async (requests, _context, send) => {
        index ??= open();
        const schema = await index;
        for await (const request of requests)
          await send({ valid_host: request.host, original_request: request, ...schema.answer(request) });
      },
    ),
  };
}
