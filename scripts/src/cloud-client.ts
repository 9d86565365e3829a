/** What the control plane writes once it is ready. */
export interface CloudReady {
  readonly http_url: string;
  readonly https_url: string;
  readonly mqtt_url: string;
  readonly grpc_url: string;
  readonly ca_file: string;
  readonly pid: number;
}

/** The first client and the first person, made on the first start. */
export interface Bootstrap {
  readonly client_id: string;
  readonly client_secret: string;
  readonly admin_user: string;
  readonly admin_password: string;
}

/** A small client of the control plane's HTTP API, with a token that it fetches once. */
export class CloudClient {
  readonly #ready: CloudReady;
  readonly #bootstrap: Bootstrap;
  #token: string | undefined;

  constructor(ready: CloudReady, bootstrap: Bootstrap) {
    this.#ready = ready;
    this.#bootstrap = bootstrap;
  }

  async token(): Promise<string> {
    if (this.#token !== undefined) return this.#token;
    const { client_id, client_secret } = this.#bootstrap;
    const reply = await fetch(`${this.#ready.http_url}/api/v1/auth/token`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ client_id, client_secret, grant_type: 'client_credentials' }),
    });
    if (!reply.ok) throw new Error(`no token: ${reply.status} ${await reply.text()}`);
    this.#token = ((await reply.json()) as { access_token: string }).access_token;
    return this.#token;
  }

  /** Any request with the token. The caller looks at the status. */
  async request(method: string, path: string, body?: unknown): Promise<Response> {
    return fetch(`${this.#ready.http_url}${path}`, {
      method,
      headers: { authorization: `Bearer ${await this.token()}`, 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
  }

  /** @throws Error with the answer when the status is not 2xx. */
  async get<T>(path: string): Promise<T> {
    const reply = await this.request('GET', path);
    if (!reply.ok) throw new Error(`GET ${path}: ${reply.status} ${await reply.text()}`);
    return (await reply.json()) as T;
  }

  /** Registers a robot and returns its API key. */
  async registerRobot(robotId: string): Promise<string> {
    const reply = await this.request('POST', '/v1/robots', {
      robot_descriptor: {
        robot_id: robotId,
        robot_name: `Demo robot ${robotId}`,
        robot_type: 'mobile_manipulator',
        manufacturer: 'Outrider',
        model: 'host firmware',
        capabilities: {
          mobility: { type: 'differential_drive' },
          manipulation: { type: 'serial_manipulator', dof: 30 },
        },
      },
    });
    if (!reply.ok) throw new Error(`registration of ${robotId} failed: ${reply.status} ${await reply.text()}`);
    return ((await reply.json()) as { data: { api_key: string } }).data.api_key;
  }

  /** How many samples of each stream the control plane holds. */
  async sampleCounts(robotId: string): Promise<Map<string, number>> {
    const reply = await this.get<{ data: { streams: readonly { stream: string; samples: number }[] } }>(
      `/v1/robots/${robotId}/telemetry/counts`,
    );
    return new Map(reply.data.streams.map(({ stream, samples }) => [stream, samples]));
  }
}
