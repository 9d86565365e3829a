import { DomainError } from '@outrider/shared/errors';
import type { Clock } from '@outrider/shared/time';
import type { BoxSink } from '../blackbox/uploader.ts';
import { exchange } from './cloud-client.ts';

/** The cloud's routes for recordings, with the robot's own API key over a connection that the pinned authority vouches for. */
export function cloudBoxSink(options: {
  readonly httpUrl: string;
  readonly robotId: string;
  readonly apiKey: string;
  readonly ca: string | undefined;
  readonly clock: Clock;
}): BoxSink {
  const { httpUrl, robotId } = options;
  const call = async (method: 'GET' | 'POST', path: string, body?: object): Promise<Record<string, unknown>> => {
    const url = new URL(`/api/v1/robots/${encodeURIComponent(robotId)}/${path}`, httpUrl);
    const answer = await exchange(url, { ...options, method, payload: body && JSON.stringify(body) });
    if (answer.status !== 200)
      throw new DomainError('unavailable', `${url.pathname}: ${answer.status} ${answer.body.slice(0, 200)}`);
    const parsed: unknown = JSON.parse(answer.body);
    return typeof parsed === 'object' && parsed !== null ? { ...parsed } : {};
  };
  return {
    async wanted() {
      const { box_ids } = await call('GET', 'blackbox-requests');
      return Array.isArray(box_ids) ? box_ids.filter((id) => typeof id === 'string') : [];
    },
    async send(boxId, { data, ...chunk }) {
      const body = { ...chunk, data: Buffer.from(data).toString('base64') };
      const { received, complete } = await call('POST', `blackboxes/${encodeURIComponent(boxId)}/chunks`, body);
      if (typeof received !== 'number' || received < 0 || received > chunk.size)
        throw new DomainError('unavailable', 'the cloud does not say how much of the recording it has');
      return { received, complete: complete === true };
    },
  };
}
