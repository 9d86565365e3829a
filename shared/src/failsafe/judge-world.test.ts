import t from 'tap';
import {
  type CommLimits,
  classifyComm,
  classifyHost,
  type HealthFacts,
  RateMeter,
  stricterComm,
} from './classify-agent.ts';
import { insideM } from './classify-place.ts';
import type { Signals } from './classify-signals.ts';
import { type JudgeLimits, SignalJudge } from './judge.ts';
import { CLOSED, joints, judgeOf, LIMITS, OPEN, other, RETURNING } from './testing/judge-rig.ts';

const battery = (stateOfCharge: number, currentA = 1, voltageV = 50, temperatureC: number[] = []): Signals =>
  other('mcu/power', 'power', { power: { stateOfCharge, currentA, voltageV, temperatureC } });

t.test('a battery is critical below 5 %, low below 20 %, and neither while it charges', async (t) => {
  const at = (soc: number, currentA = 1): string[] => [
    judgeOf()(battery(soc, currentA), 0, 'battery_critical'),
    judgeOf()(battery(soc, currentA), 0, 'battery_low'),
  ];
  t.same([at(0.5), at(0.25)].flat(), ['clear', 'clear', 'clear', 'clear']);
  t.same(at(0.219), ['clear', 'fair']);
  t.same(at(0.2), ['clear', 'fair']);
  t.same(at(0.199), ['clear', 'bad']);
  t.same(at(0.151), ['clear', 'bad']);
  t.same(at(0.15), ['fair', 'bad']);
  t.same(at(0.05), ['fair', 'bad']);
  t.same(at(0.049), ['bad', 'bad']);
  t.same(at(0.01, -0.06), ['clear', 'clear'], 'charging');
  t.same(at(0.21, -0.06), ['clear', 'clear'], 'charging');
  t.same(at(0.1, -0.06), ['clear', 'clear'], 'charging');
  t.same(at(0.01, -0.05), ['bad', 'bad'], 'that little is noise');
  t.same(
    [at(0), at(1)],
    [
      ['bad', 'bad'],
      ['clear', 'clear'],
    ],
  );
  t.same([at(8), at(-0.01), at(1.01)].flat(), ['unknown', 'unknown', 'unknown', 'unknown', 'unknown', 'unknown']);
  t.equal(judgeOf()({ ...battery(0.01), stream: '/spare' }, 0, 'battery_critical'), 'none', 'not its battery');
});

t.test('a stream that is not what its name says is no battery and no IMU', async (t) => {
  const judge = new SignalJudge(LIMITS);
  for (const stream of ['mcu/power', 'mcu/imu', '/pose'])
    t.same(judge.judge(other(stream, 'temperature', { temperatureC: [20] }), 0, 1, OPEN), []);
});

t.test('a battery that never measured its charge is judged by its voltage; one that stops is broken', async (t) => {
  const judge = judgeOf();
  t.equal(judge(battery(Number.NaN), 0, 'battery_critical'), 'clear');
  t.equal(judge(battery(Number.NaN, 1, 39.9), 1, 'battery_critical'), 'bad');
  t.equal(judge(battery(0.5), 2, 'battery_critical'), 'clear');
  t.equal(judge(battery(Number.NaN), 3, 'battery_critical'), 'unknown');
  const { voltageMinV: _, ...power } = LIMITS.power;
  const free = judgeOf({ ...LIMITS, power });
  t.equal(free(battery(Number.NaN, 1, Number.NaN), 0, 'battery_critical'), 'none');
  t.equal(free(battery(Number.NaN, 1, Number.NaN), 0, 'battery_low'), 'none');
  t.equal(free(battery(Number.NaN, 1, 10), 1, 'battery_low'), 'clear');
  t.equal(free(battery(Number.NaN, 1, 10), 1, 'battery_critical'), 'none');
  t.equal(free(battery(Number.NaN, 1, Number.NaN), 2, 'battery_low'), 'unknown');
  t.equal(free(battery(0.5, 1, 10), 3, 'battery_critical'), 'clear');
  const volts = (voltageV: number): string => judgeOf()(battery(0.5, 1, voltageV), 0, 'battery_critical');
  t.same(
    [volts(40), volts(39.99), volts(0), volts(-0.1), volts(2000), volts(2000.1), volts(Number.NaN)],
    ['clear', 'bad', 'bad', 'unknown', 'clear', 'unknown', 'unknown'],
  );
  t.equal(judgeOf()(battery(0.5, 1, -1), 0, 'battery_low'), 'unknown');
});

t.test('a voltage sags against that of the last half minute', async (t) => {
  const judge = judgeOf();
  const at = (voltageV: number, atMs: number): string => judge(battery(0.9, 1, voltageV), atMs, 'battery_low');
  t.equal(at(60, 0), 'clear');
  t.equal(at(51, 100), 'clear', '15 % is allowed');
  t.equal(at(50.9, 200), 'bad');
  for (let ms = 1000; ms <= 120_000; ms += 1000) at(50.9, ms);
  t.equal(at(50.9, 121_000), 'clear', 'it has become the usual');
  t.equal(at(43, 121_100), 'bad');
  t.equal(at(60, 121_200), 'clear');
  const steady = judgeOf();
  t.equal(steady(battery(0.9, 1, 60), 1_000_000, 'battery_low'), 'clear', 'the first one is the usual');
  t.equal(steady(battery(0.9, 1, 50), 1_000_100, 'battery_low'), 'bad');
  t.equal(steady(battery(0.9, 1, 50), 1_012_000, 'battery_low'), 'bad', 'not yet after 12 s: 56.7 V');
  t.equal(steady(battery(0.9, 1, 50), 1_042_000, 'battery_low'), 'clear');
});

t.test(
  'a sag by the time constant of half a minute, to the millisecond, and the first voltage at any time',
  async (t) => {
    // After exactly one time constant the usual voltage is 50 + 10 / e; 15 % less of it is a sag.
    const usualV = 50 + 10 * Math.exp(-1);
    for (const [offV, verdict] of [
      [1e-6, 'clear'],
      [-1e-6, 'bad'],
    ] as const) {
      const judge = judgeOf();
      judge(battery(0.9, 1, 60), 7, 'battery_low');
      judge(battery(0.9, 1, 50), 30_007, 'battery_low');
      t.equal(judge(battery(0.9, 1, usualV * 0.85 + offV), 30_008, 'battery_low'), verdict);
    }
    const back = judgeOf();
    back(battery(0.9, 1, 60), 60_000, 'battery_low');
    t.equal(back(battery(0.9, 1, 50), 0, 'battery_low'), 'bad', 'a time before the last one');
    t.equal(back(battery(0.9, 1, 50.9), 1, 'battery_low'), 'bad', 'changes nothing');
  },
);

t.test('a battery that says one thing and not the other', async (t) => {
  const { voltageMinV: _, ...power } = LIMITS.power;
  const free = judgeOf({ ...LIMITS, power });
  t.equal(free(battery(0.5, 1, Number.NaN), 0, 'battery_low'), 'clear', 'no voltage ever');
  t.equal(free(battery(0.5, 1, Number.NaN), 1, 'battery_critical'), 'clear');
  const wrong = judgeOf();
  wrong(battery(0.9, 1, 60), 0, 'battery_low');
  t.equal(wrong(battery(0.9, 1, -1), 1, 'battery_low'), 'unknown');
  t.equal(wrong(battery(0.9, 1, 50.9), 2, 'battery_low'), 'bad', 'what cannot be is not what is usual');
});

t.test('batteries and cells that are too hot', async (t) => {
  const at = (...celsius: number[]): string =>
    judgeOf()(battery(0.9, 1, 50, celsius), 0, 'thermal_shutdown', 'mcu/power battery');
  t.same([at(44.9), at(45), at(55), at(55.1), at(65), at(65.1)], ['clear', 'fair', 'fair', 'bad', 'bad', 'severe']);
  t.same([at(20, 56, 30), at(Number.NaN), at(251), at(-61)], ['bad', 'unknown', 'unknown', 'unknown']);
  t.same([at(250), at(-60)], ['severe', 'clear']);
  t.equal(at(), 'none');
});

const place = (at: number[], frame = 'map'): Signals => other('/pose', 'pose', { place: { frame, at } });

t.test('the distance to the edge of a fence', async (t) => {
  const corners = LIMITS.geofence?.corners ?? [];
  const at = (x: number, y: number): number => insideM(corners, [x, y]);
  t.same([at(5, 5), at(1, 5), at(5, 9), at(11, 5), at(-2, 5), at(13, 14), at(0, 5)], [5, 1, 1, -1, -2, -5, 0]);
  t.equal(insideM([...corners].reverse(), [1, 5]), 1, 'either way round');
  const concave = [
    [0, 0],
    [10, 0],
    [10, 10],
    [5, 1],
    [0, 10],
  ] as const;
  t.ok(insideM(concave, [5, 5]) < 0);
  t.ok(insideM(concave, [1, 5]) > 0);
  t.ok(insideM(concave, [9, 5]) > 0);
  t.equal(
    insideM(
      [
        [0, 0],
        [0, 0],
        [10, 0],
        [10, 10],
        [0, 10],
      ],
      [1, 5],
    ),
    1,
    'a corner twice',
  );
});

t.test('geofence: outside is bad while armed; stopped outside it waits for a way back', async (t) => {
  const at = (x: number, gate = OPEN): string => judgeOf()(place([x, 5]), 0, 'geofence_lock', '/pose', gate);
  t.same([at(5), at(9.79), at(9.81), at(10), at(10.01)], ['clear', 'clear', 'fair', 'fair', 'bad']);
  t.same([at(10.01, CLOSED), at(5, CLOSED)], ['fair', 'clear']);
  const bad = (values: number[], frame?: string): string =>
    judgeOf()(place(values, frame), 0, 'geofence_lock', '/pose', CLOSED);
  t.same(
    [bad([Number.NaN, 5]), bad([5, Number.POSITIVE_INFINITY]), bad([5]), bad([5, 5], 'odom'), bad([200_000, 0])],
    ['unknown', 'unknown', 'unknown', 'unknown', 'unknown'],
  );
  const half = { frame: 'map', corners: LIMITS.geofence?.corners ?? [], marginM: 0.5 } as const;
  const exact = judgeOf({ ...LIMITS, geofence: half });
  t.same([exact(place([9.5, 5]), 0, 'geofence_lock'), exact(place([10, 5]), 1, 'geofence_lock')], ['clear', 'fair']);
  t.equal(judgeOf({ ...LIMITS, geofence: undefined })(place([99, 99]), 0, 'geofence_lock'), 'none');
});

t.test('geofence: back inwards slowly, and not any other way [I22]', async (t) => {
  const run = (...steps: readonly (readonly [number, number])[]): string => {
    const judge = judgeOf();
    judge(place([steps[0]?.[1] ?? 0, 5]), 0, 'geofence_lock', '/pose', CLOSED);
    return steps.map(([ms, x]) => judge(place([x, 5]), ms, 'geofence_lock', '/pose', RETURNING)).join(' ');
  };
  t.equal(run([100, 11], [1000, 10.9], [2000, 10.8], [12_000, 9.79], [14_000, 9.7]), 'fair fair fair clear clear');
  t.equal(run([100, 11], [1000, 11.04], [2000, 11.051]), 'fair fair severe', 'outwards, beyond wavering');
  t.equal(run([100, 11], [5000, 10.5], [6000, 10.56]), 'fair fair severe', 'outwards from its best');
  t.equal(run([500, 11], [1000, 10.93]), 'fair fair');
  t.equal(run([500, 11], [1000, 10.9]), 'fair severe', '0.2 m/s');
  t.equal(run([100, 11], [499, 10.5]), 'fair fair', 'too short to call it a speed');
  t.equal(run([500, 11], [600, 10.96], [700, 10.92], [1001, 10.88]), 'fair fair fair severe', '0.24 m/s over 0.5 s');
  const judge = judgeOf();
  const at = (ms: number, x: number, gate: typeof OPEN): string =>
    judge(place([x, 5]), ms, 'geofence_lock', '/pose', gate);
  at(0, 10.5, RETURNING);
  at(9000, 12, CLOSED);
  t.equal(at(18_000, 12, RETURNING), 'fair', 'carried away while stopped, it starts anew');
});

t.test('geofence: the words say where it is', async (t) => {
  const words = (x: number, gate = OPEN): string | undefined =>
    new SignalJudge(LIMITS).judge(place([x, 5]), 0, 0, gate).find(({ cause }) => cause === 'geofence_lock')?.detail;
  t.same([words(9.5), words(10.5), words(10)], ['0.50 m inside', '0.50 m outside', '0.00 m inside']);
  const judge = new SignalJudge(LIMITS);
  judge.judge(place([10.5, 5]), 0, 0, RETURNING);
  t.match(judge.judge(place([10.6, 5]), 100, 0, RETURNING), [{ detail: '0.60 m outside, not moving inwards slowly' }]);
});

t.test('geofence: latitude and longitude, also across the date line', async (t) => {
  const metre = 1 / 111_194.93;
  for (const [latitude, longitude] of [
    [52, 13],
    [-33, 179.9999],
    [60, -180],
    // 0.09 m before the line.
    [10, 179.9999992],
  ] as const) {
    const width = (10 * metre) / Math.cos((latitude * Math.PI) / 180);
    const wrap = (deg: number): number => (deg > 180 ? deg - 360 : deg < -180 ? deg + 360 : deg);
    const fence = {
      frame: 'wgs84',
      corners: [
        [latitude, longitude],
        [latitude, wrap(longitude + width)],
        [latitude + 10 * metre, wrap(longitude + width)],
        [latitude + 10 * metre, longitude],
      ],
      marginM: 0.2,
    } as const;
    const at = (north: number, east: number): string =>
      judgeOf({ ...LIMITS, geofence: fence })(
        place([latitude + north * metre, wrap(longitude + (east / 10) * width)], 'wgs84'),
        0,
        'geofence_lock',
        '/pose',
      );
    t.same(
      [at(5, 5), at(9.7, 5), at(9.9, 5), at(10.1, 5), at(5, 9.7), at(5, 9.9), at(5, 10.1), at(5, -0.1), at(5, 0.15)],
      ['clear', 'clear', 'fair', 'bad', 'clear', 'fair', 'bad', 'bad', 'fair'],
      `${latitude} ${longitude}`,
    );
    const judge = judgeOf({ ...LIMITS, geofence: fence });
    for (const broken of [
      [0, 0],
      [91, 0],
      [-91, 0],
      [0, 181],
      [0, -181],
      [Number.NaN, 0],
    ])
      t.equal(judge(place(broken, 'wgs84'), 0, 'geofence_lock', '/pose'), 'unknown', `${broken}`);
  }
  const equator = {
    frame: 'wgs84',
    corners: [
      [-1, -1],
      [-1, 1],
      [1, 1],
      [1, -1],
    ],
    marginM: 0,
  } as const;
  const judge = judgeOf({ ...LIMITS, geofence: equator });
  t.same(
    [
      [0, 0.5],
      [0.5, 0],
    ].map((at) => judge(place(at, 'wgs84'), 0, 'geofence_lock', '/pose')),
    ['clear', 'clear'],
    'only both zero is no fix',
  );
  t.equal(judge(place([0, 0], 'wgs84'), 0, 'geofence_lock', '/pose'), 'unknown', 'in the middle of the fence');
});

t.test('geofence: to the millimetre where it is drawn, and on the border of what is believed', async (t) => {
  // 5 km from the edge, by the mean radius of the Earth.
  const degPerM = 180 / Math.PI / 6_371_008.8;
  const wide = (latitude: number, longitude: number): JudgeLimits => ({
    ...LIMITS,
    geofence: {
      frame: 'wgs84',
      corners: [
        [latitude, longitude],
        [latitude, longitude + 0.5],
        [latitude + 0.5, longitude + 0.5],
        [latitude + 0.5, longitude],
      ],
      marginM: 5000,
    },
  });
  const north = (metres: number, limits: JudgeLimits, latitude: number, longitude: number): string =>
    judgeOf(limits)(place([latitude + metres * degPerM, longitude + 0.25], 'wgs84'), 0, 'geofence_lock', '/pose');
  // Half a degree is 40 km wide at 50 degrees: the other edges are further away. At 90 a wrong wrap would tear it.
  for (const longitude of [13, 89.75]) {
    const limits = wide(50, longitude);
    t.same([north(5000.0003, limits, 50, longitude), north(4999.9997, limits, 50, longitude)], ['clear', 'fair']);
  }
  const border = (first: number, second: number, latitude: number, longitude: number): string =>
    judgeOf(wide(latitude, longitude))(place([first, second], 'wgs84'), 0, 'geofence_lock', '/pose');
  t.same([border(89.1, 10.1, 88.95, 10), border(90, 10.1, 89.45, 10)], ['fair', 'bad']);
  t.equal(border(90.1, 10.1, 89.45, 10), 'unknown', 'no latitude');
  t.equal(border(10.25, 180, 10, 179.75), 'clear', 'on the date line');
  t.equal(border(10.25, 180.1, 10, 179.75), 'unknown', 'no longitude');
  t.equal(border(10.25, -180, 10, 179.75), 'clear');
  const far = (x: number): string => judgeOf()(place([x, 5]), 0, 'geofence_lock', '/pose', CLOSED);
  t.same([far(100_009.5), far(100_010), far(100_010.5)], ['fair', 'fair', 'unknown']);
  const diamond = [
    [0, -5],
    [5, 0],
    [0, 5],
    [-5, 0],
  ] as const;
  t.ok(insideM(diamond, [0, 0]) > 3, 'level with two corners');
  t.ok(insideM([...diamond].reverse(), [0, 0]) > 3);
});

t.test('geofence: the way back, at its limits', async (t) => {
  const limits = { ...LIMITS, inwardSpeedMaxMps: 1 };
  const speed = (metres: number): string => {
    const judge = judgeOf(limits);
    judge(place([-8, 5]), 0, 'geofence_lock', '/pose', RETURNING);
    return judge(place([-8 + metres, 5]), 500, 'geofence_lock', '/pose', RETURNING);
  };
  t.same([speed(0.75), speed(0.7505)], ['fair', 'severe'], '1.5 m/s, and a thousandth more');
  const judge = judgeOf();
  judge(place([-1, 5]), 0, 'geofence_lock', '/pose', RETURNING);
  t.equal(judge(place([-1.05, 5]), 1000, 'geofence_lock', '/pose', RETURNING), 'fair', 'wavering by 5 cm');
  t.equal(judge(place([-1.06, 5]), 2000, 'geofence_lock', '/pose', RETURNING), 'severe');
  const closed = judgeOf();
  closed(place([-1, 5]), 0, 'geofence_lock', '/pose', { isOpen: false, isReturning: true });
  t.equal(
    closed(place([-3, 5]), 1000, 'geofence_lock', '/pose', { isOpen: false, isReturning: true }),
    'fair',
    'with the gate closed nothing is a way back',
  );
});

t.test('a stream below half its rate is slow', async (t) => {
  const run = (periodMs: number, rateHz: number, forMs: number): string[] => {
    const meter = new RateMeter();
    const found: string[] = [];
    for (let ms = 0; ms <= forMs; ms += periodMs) {
      const reading = meter.sample('s', ms, rateHz, LIMITS.host);
      if (reading) found.push(`${ms} ${reading.verdict}`);
    }
    return found;
  };
  t.same(run(20, 50, 6000), ['3000 clear', '6000 clear']);
  t.same(run(40, 50, 3000), ['3000 clear'], 'exactly half');
  t.same(run(50, 50, 6000), ['3000 bad', '6000 bad']);
  t.same(run(1, 1000, 3000), ['3000 clear']);
  t.same(run(10, 1, 10_000), ['10000 clear']);
  t.same(run(40, 50, 6000), ['3000 clear', '6000 clear'], 'exactly half, twice');
  const almost = new RateMeter();
  const counts = (fromMs: number): (string | undefined)[] => {
    const found: (string | undefined)[] = [];
    for (let i = 1; i < 1499; i++) almost.sample('s', fromMs + 2 * i, 1000, LIMITS.host);
    found.push(almost.sample('s', fromMs + 3000, 1000, LIMITS.host)?.verdict);
    return found;
  };
  almost.sample('s', 0, 1000, LIMITS.host);
  t.same([counts(0), counts(3000)].flat(), ['bad', 'bad'], '1499 of 3000 is less than half');
  const moody = new RateMeter();
  for (let ms = 0; ms <= 2000; ms += 10) moody.sample('s', ms, 50, LIMITS.host);
  moody.sample('s', 2010, 0, LIMITS.host);
  for (let ms = 2100; ms < 5010; ms += 100) moody.sample('s', ms, 50, LIMITS.host);
  t.match(moody.sample('s', 5010, 50, LIMITS.host), { verdict: 'bad', detail: 's comes at 10.3 Hz of 50' });
  const fine = new RateMeter();
  for (let ms = 0; ms < 3000; ms += 20) fine.sample('s', ms, 50, LIMITS.host);
  t.match(fine.sample('s', 3000, 50, LIMITS.host), { verdict: 'clear', detail: '' });
  t.same(run(2500, 1, 12_500), ['10000 bad'], 'ten periods of a slow stream');
  t.same(run(100, 0, 9000), [], 'without a promise there is nothing to keep');
  t.same(run(2000, 0.9, 60_000), [], 'too slow to count');
  t.equal(judgeOf()(joints(), 0, 'source_slow'), 'none');
  const judge = judgeOf();
  for (let ms = 0; ms < 3000; ms += 50) judge(joints(), ms, 'source_slow');
  t.equal(judge(joints(), 3000, 'source_slow'), 'bad');
  for (let ms = 0; ms <= 9000; ms += 50)
    t.equal(judge(other('/board', 'temperature', { temperatureC: [20] }), ms, 'source_slow'), 'none') || t.bailout();
});

const HEALTH: HealthFacts = {
  hasLink: true,
  isLinkUp: true,
  linkAgeMs: 0,
  missionPolicy: undefined,
  missionMaxMs: 0,
  diskFreeBytes: 1e9,
  clockQuality: 'good',
  receivedMs: 1000,
};
const comm = (facts: Partial<HealthFacts>, limits: Partial<CommLimits>, nowMs = 1000): string =>
  classifyComm({ ...HEALTH, ...facts }, nowMs, { policy: 'hold', lostMs: 3000, maxMs: 0, ...limits })
    .map(({ cause, verdict }) => `${cause} ${verdict}`)
    .join(', ');

t.test('a lost link holds, slows or is ignored, by policy and for how long', async (t) => {
  t.equal(comm({ linkAgeMs: 3000 }, {}), 'comm_loss clear, comm_degraded clear');
  t.equal(comm({ linkAgeMs: 3001 }, {}), 'comm_loss bad, comm_degraded clear');
  t.equal(comm({ isLinkUp: false }, {}), 'comm_loss fair, comm_degraded clear', 'cut a moment ago');
  t.equal(comm({}, {}, 4001), 'comm_loss bad, comm_degraded clear', 'the age grows while nothing is reported');
  t.equal(comm({}, {}, 500), 'comm_loss clear, comm_degraded clear');
  t.equal(
    comm({ linkAgeMs: 3001 }, {}, 500),
    'comm_loss bad, comm_degraded clear',
    'a report is never younger than new',
  );
  t.equal(comm({ linkAgeMs: 3002 }, { policy: 'ignore', maxMs: 1 }), 'comm_loss bad, comm_degraded clear');
  t.equal(comm({ linkAgeMs: Number.NaN }, {}), 'comm_loss bad, comm_degraded clear');
  const derate = { policy: 'derate', maxMs: 60_000 } as const;
  t.equal(comm({ linkAgeMs: 3001 }, derate), 'comm_loss clear, comm_degraded bad');
  t.equal(comm({ linkAgeMs: 63_000 }, derate), 'comm_loss clear, comm_degraded bad');
  t.equal(comm({ linkAgeMs: 63_001 }, derate), 'comm_loss bad, comm_degraded bad');
  t.equal(comm({ isLinkUp: false }, derate), 'comm_loss clear, comm_degraded fair');
  t.equal(comm({ linkAgeMs: 9e9 }, { policy: 'derate' }), 'comm_loss clear, comm_degraded bad', 'without end');
  const ignore = { policy: 'ignore', maxMs: 60_000 } as const;
  t.equal(comm({ linkAgeMs: 63_000 }, ignore), 'comm_loss clear, comm_degraded clear');
  t.equal(comm({ linkAgeMs: 63_001, hasLink: false }, ignore), 'comm_loss bad, comm_degraded clear');
  t.equal(comm({ linkAgeMs: 9e9, isLinkUp: false }, { policy: 'ignore' }), 'comm_loss clear, comm_degraded clear');
  t.equal(comm({ linkAgeMs: 9e9, hasLink: false }, { policy: 'ignore' }), '', 'nothing to lose');
  t.equal(comm({ linkAgeMs: 9e9, hasLink: false }, {}), 'comm_loss bad, comm_degraded clear');
  const asked = { linkAgeMs: 9e9, hasLink: false, missionPolicy: 'hold' } as const;
  t.equal(comm(asked, { policy: 'ignore' }), 'comm_loss bad, comm_degraded clear');
  t.match(classifyComm({ ...HEALTH, linkAgeMs: 5000 }, 1000, { policy: 'hold', lostMs: 3000, maxMs: 0 }), [
    { detail: 'no link for 5 s', channel: 'link' },
    { detail: '' },
  ]);
  const cut = { ...HEALTH, isLinkUp: false, linkAgeMs: 2000 };
  t.match(classifyComm(cut, 1000, { policy: 'hold', lostMs: 3000, maxMs: 0 }), [{ detail: 'no link for 2 s' }]);
});

t.test('a mission may ask for a stricter policy, never for a looser one', async (t) => {
  const base = { policy: 'derate', lostMs: 3000, maxMs: 5000 } as const;
  t.equal(stricterComm(base, undefined, 1), base);
  t.match(stricterComm(base, 'ignore', 0), { policy: 'derate', maxMs: 5000, lostMs: 3000 });
  t.match(stricterComm(base, 'hold', 9000), { policy: 'hold', maxMs: 5000 });
  t.match(stricterComm(base, 'derate', 1000), { policy: 'derate', maxMs: 1000 });
  t.match(stricterComm({ ...base, maxMs: 0 }, 'ignore', 1000), { policy: 'derate', maxMs: 1000 });
  t.match(stricterComm({ ...base, maxMs: 0 }, 'ignore', 0), { maxMs: 0 });
  t.match(stricterComm({ ...base, maxMs: 0 }, 'ignore', 1), { maxMs: 1 });
});

t.test('disk and clock as the agent reports them', async (t) => {
  const host = (facts: Partial<HealthFacts>): string =>
    classifyHost({ ...HEALTH, ...facts }, LIMITS.host)
      .map(({ cause, verdict }) => `${cause} ${verdict}`)
      .join(', ');
  t.equal(host({}), 'disk_low clear, clock_bad clear');
  t.equal(host({ diskFreeBytes: 512e6, clockQuality: 'unsure' }), 'disk_low clear, clock_bad fair');
  t.equal(host({ diskFreeBytes: 511e6, clockQuality: 'bad' }), 'disk_low fair, clock_bad bad');
  t.equal(host({ diskFreeBytes: 256e6, clockQuality: '' }), 'disk_low fair');
  t.equal(host({ diskFreeBytes: 255e6, clockQuality: 'x' }), 'disk_low bad, clock_bad bad');
  t.equal(host({ diskFreeBytes: Number.NaN, clockQuality: '' }), '');
  const details = (facts: Partial<HealthFacts>): string[] =>
    classifyHost({ ...HEALTH, ...facts }, LIMITS.host).map(({ detail }) => detail);
  t.same(details({}), ['', '']);
  t.same(details({ diskFreeBytes: 300e6, clockQuality: 'unsure' }), ['300 MB free', 'the clock is unsure']);
  t.same(details({ diskFreeBytes: 100e6, clockQuality: 'bad' }), ['100 MB free', 'the clock is bad']);
});
