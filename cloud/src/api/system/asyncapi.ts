import { EVENT_SCHEMAS, type JsonSchema } from '@outrider/shared/event-schemas';
import { liveChannel } from './asyncapi-live.ts';

/** Where messages can be had. */
export interface MessageServers {
  readonly http: string;
  readonly mqtt: string;
  readonly version: string;
}

const BINDING = { mqtt: { qos: 1, retain: false, bindingVersion: '0.2.0' } };

/** `telemetry.ingested.v1` as a name that a component may have. */
const nameOf = (type: string): string => type.replaceAll('.', '_');

/** A schema as part of this document: its own name and dialect are said by the file that it is served as. */
function asPart({ $schema: _dialect, $id: _id, ...schema }: JsonSchema): JsonSchema {
  return schema;
}

/** The event bus and the live stream as AsyncAPI 3.0, made of the schemas that events are checked against. */
export function describeMessages({ http, mqtt, version }: MessageServers): JsonSchema {
  const channels: Record<string, unknown> = {};
  const operations: Record<string, unknown> = {};
  const messages: Record<string, unknown> = {};
  const schemas: Record<string, unknown> = {};
  for (const [type, schema] of EVENT_SCHEMAS) {
    const name = nameOf(type);
    const subject = (schema['required'] as string[]).includes('swarm_id') ? 'swarm_id' : 'robot_id';
    schemas[name] = asPart(schema);
    messages[name] = {
      name: type,
      title: type,
      contentType: 'application/json',
      payload: { $ref: `#/components/schemas/${name}` },
      bindings: { mqtt: { contentType: 'application/json', bindingVersion: '0.2.0' } },
    };
    channels[name] = {
      address: `events/{tenant_id}/${type}/{${subject}}`,
      title: type,
      servers: [{ $ref: '#/servers/mqtt' }],
      parameters: {
        tenant_id: { description: 'The tenant that the certificate is of.' },
        [subject]: { description: 'What the event is about.' },
      },
      messages: { [name]: { $ref: `#/components/messages/${name}` } },
    };
    operations[`publish_${name}`] = {
      action: 'send',
      channel: { $ref: `#/channels/${name}` },
      messages: [{ $ref: `#/channels/${name}/messages/${name}` }],
      bindings: BINDING,
    };
  }
  const live = liveChannel();
  return {
    asyncapi: '3.0.0',
    id: 'urn:outrider:events',
    info: {
      title: 'Outrider events and live stream',
      version,
      description:
        'Events are sent at least once, in order for each robot; what comes twice has the same event_id. The OpenAPI document of the HTTP API is at /openapi.json.',
      license: { name: 'Apache-2.0', url: 'https://www.apache.org/licenses/LICENSE-2.0' },
    },
    defaultContentType: 'application/json',
    servers: {
      mqtt: {
        host: new URL(mqtt).host,
        protocol: 'secure-mqtt',
        protocolVersion: '3.1.1',
        description:
          'Needs a certificate of `outrider-cloud event-client issue`; its common name has to be the client id. A listener that stops reading is disconnected.',
        security: [{ $ref: '#/components/securitySchemes/certificate' }],
      },
      live: {
        host: new URL(http).host,
        protocol: http.startsWith('https') ? 'wss' : 'ws',
        description: 'Server-sent events of the same messages with `Accept: text/event-stream`.',
        security: [{ $ref: '#/components/securitySchemes/bearer' }],
      },
    },
    channels: { ...channels, ...live.channels },
    operations: { ...operations, ...live.operations },
    components: {
      schemas: { ...schemas, ...live.schemas },
      messages: { ...messages, ...live.messages },
      securitySchemes: {
        certificate: { type: 'X509', description: 'A client certificate of this installation.' },
        bearer: {
          type: 'http',
          scheme: 'bearer',
          description: 'A token with telemetry:read, or a ticket in the query.',
        },
      },
    },
  };
}
