import { join } from 'node:path';
import { sampleFlagNames } from '@outrider/shared/telemetry';
import t from 'tap';
import { csvMappingSchema } from '../src/sources/options.ts';
import { refusal, replayAll } from './replay-recordings.ts';

t.test('a CSV becomes samples in SI units, and its odd rows are flagged', async (t) => {
  const dir = t.testdir({
    'robot.csv': [
      't;pos;vel;amps;temp;soc',
      '2022-10-26T08:17:21.847Z;90;-0,5;-2,5;300,15;50',
      '2022-10-26T08:17:21.887Z;90,5;;1e-3;NaN;800',
      '2022-10-26T08:17:21.927Z;x;1;1;1;1',
      '2022-10-26T08:17:21.967Z;1',
      'yesterday;1;1;1;1;1',
      '2022-10-26T08:17:22.007Z;-7,39E-1;0;0;273,15;0',
    ].join('\r\n'),
    'plain.csv': '0,1.5\n1,2.5\n',
  });
  const columns = csvMappingSchema.parse({
    delimiter: ';',
    decimal: ',',
    time: { column: 't' },
    streams: [
      {
        stream: 'arm',
        kind: 'joint_state',
        rate_hz: 25,
        names: ['j'],
        fields: { velocity: ['vel'], position: [{ column: 'pos', unit: 'deg' }] },
      },
      {
        stream: 'battery',
        kind: 'power',
        fields: {
          current: [{ column: 'amps', negate: true }],
          temperature: [{ column: 'temp', unit: 'K' }],
          state_of_charge: [{ column: 'soc', unit: 'percent' }],
        },
      },
    ],
  });
  const { samples, positions } = await replayAll({ file: join(dir, 'robot.csv'), columns });
  const arm = samples.filter((sample) => sample.layout.stream === 'arm');
  const power = samples.filter((sample) => sample.layout.stream === 'battery');
  t.equal(samples.length, 12);
  t.equal(positions.at(-1), 12);
  t.match(arm[0], {
    layout: {
      kind: 'joint_state',
      names: ['j'],
      declaredRateHz: 25,
      fields: [{ name: 'position' }, { name: 'velocity' }],
    },
  });
  t.strictSame([...(arm[0]?.values ?? [])], [Math.PI / 2, -0.5]);
  t.equal(arm[0]?.stampNs, BigInt(Date.parse('2022-10-26T08:17:21.847Z')) * 1_000_000n);
  t.strictSame([...(power[0]?.values ?? [])], [2.5, 0.5, 300.15 - 273.15]);
  t.strictSame(
    arm.map((sample) => sampleFlagNames(sample.flags).filter((flag) => flag !== 'replayed')),
    [[], ['nonFinite'], ['noStamp', 'malformed'], ['noStamp', 'malformed'], ['noStamp', 'malformed'], []],
  );
  t.match(
    arm.map((sample) => sample.text),
    [
      undefined,
      undefined,
      /line 4: column 'pos': "x" is not a number/,
      /line 5: has 2 columns, 'vel'/,
      /line 6: "yesterday" is not a time/,
      undefined,
    ],
  );
  t.strictSame(sampleFlagNames(power[1]?.flags ?? 0), ['nonFinite', 'outOfRange', 'replayed'], '800 %');

  const plain = csvMappingSchema.parse({
    header: false,
    rate_hz: 4,
    start: '2024-01-01T00:00:00Z',
    streams: [{ stream: 's', kind: 'temperature', fields: { temperature: [2] } }],
  });
  const rows = (await replayAll({ file: join(dir, 'plain.csv'), columns: plain })).samples;
  t.match(rows, [{ stampNs: 0n, values: Float64Array.of(1.5) }, { values: Float64Array.of(2.5) }]);
  t.equal((rows[1]?.receivedNs ?? 0n) - (rows[0]?.receivedNs ?? 0n), 250_000_000n, 'spaced by the given rate');
  const seconds = csvMappingSchema.parse({ ...plain, time: { column: 1, unit: 's' } });
  t.equal(
    (await replayAll({ file: join(dir, 'plain.csv'), columns: seconds })).samples[1]?.stampNs,
    BigInt(Date.parse('2024-01-01T00:00:01Z')) * 1_000_000n,
  );

  const wrong = csvMappingSchema.parse({
    ...columns,
    streams: [{ stream: 's', kind: 'temperature', fields: { temperature: ['nope'] } }],
  });
  await refusal(
    t,
    { file: join(dir, 'robot.csv'), columns: wrong },
    /no column nope \(columns\.streams\[0\]\.fields\.temperature\); it has t, pos/,
  );
  t.throws(
    () => csvMappingSchema.parse({ streams: [{ stream: 's', kind: 'imu', fields: { orientation: [1, 2] } }] }),
    /orientation has 4 values, not 2/,
  );
  t.throws(
    () => csvMappingSchema.parse({ streams: [{ stream: 's', kind: 'imu', fields: { voltage: [1] } }] }),
    /has no field 'voltage'/,
  );
});
