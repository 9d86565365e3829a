import type { AgentStatus, FailsafeView, HealthView, LaneView, SourceView } from '../local-api/status.ts';

const SECONDS_PER_DAY = 86_400;

/** The agent's status for a person. */
export function formatStatus(status: AgentStatus): string {
  const { robot, agent, link, certificate, outbox } = status;
  return [
    `robot        ${robot.tenant}.${robot.id}   agent ${agent.version}, pid ${agent.pid}, up ${duration(agent.uptime_s)}`,
    ...formatFailsafe(status.failsafe),
    ...formatHealth(status.health),
    `link         ${link.state}${link.url ? ` ${link.url}` : ''}, since ${link.since}${link.reason ? `\n             ${link.reason}` : ''}`,
    `certificate  ${certificate ? `valid until ${certificate.expires_at}` : 'none; run: outrider-edge enroll'}`,
    `outbox       ${percent(outbox.fill)} of ${bytes(outbox.size_bytes_max)}${outbox.full ? ', FULL' : ''}, ${waiting(outbox.lanes)}`,
    ...(outbox.samples_dropped > 0
      ? [`             ${outbox.samples_dropped} samples dropped in ${outbox.gap_records} records`]
      : []),
    ...(outbox.samples_thinned > 0 ? [`             ${outbox.samples_thinned} samples thinned out of old blocks`] : []),
    status.sources.length === 0 ? 'sources      none' : 'sources',
    ...status.sources.map(formatSource),
  ].join('\n');
}

/** The outbox for a person. */
export function formatQueue({ outbox, link }: AgentStatus): string {
  const rows = Object.entries(outbox.lanes).map(([lane, { records, samples, bytes: size, lag_s, max_seq }]) =>
    [
      lane.padEnd(10),
      String(records).padStart(9),
      String(samples).padStart(10),
      bytes(size).padStart(10),
      duration(lag_s).padStart(10),
      String(max_seq).padStart(10),
    ].join(' '),
  );
  return [
    `epoch ${outbox.epoch}, ${percent(outbox.fill)} of ${bytes(outbox.size_bytes_max)} used, link ${link.state}`,
    `committed ${outbox.samples_committed} samples, acknowledged ${outbox.samples_acknowledged}, dropped ${outbox.samples_dropped}`,
    'lane         records    samples      bytes     oldest   last seq',
    ...rows,
    ...formatBudget(link.budget),
  ].join('\n');
}

/** What the link may carry, where that is limited. */
function formatBudget({ telemetry, bytes_per_s_max, metered, sent_bytes }: AgentStatus['link']['budget']): string[] {
  if (telemetry === 'unlimited') return [];
  const why = metered ? 'the link is metered' : 'uplink.max_bytes_per_s';
  const how = telemetry === 'paused' ? 'telemetry waits' : `telemetry goes at ${bytes(bytes_per_s_max ?? 0)}/s at most`;
  return [`${how} (${why}); ${bytes(sent_bytes)} of it sent since the start. Events and states never wait.`];
}

/** The failsafe for a person, a line each. */
export function formatFailsafe(failsafe: FailsafeView | null): string[] {
  if (!failsafe) return ['failsafe     no guard answers (none runs while guard.enabled is false)'];
  const { phase, mode, action, gate_open, latch_id, mcu_state, causes } = failsafe;
  const gate = gate_open ? 'gate open, the robot may move' : 'gate closed';
  return [
    `failsafe     ${phase}${mode ? ` ${mode}` : ''}${action && action !== 'NONE' ? ` (${action})` : ''}, ${gate}${mcu_state ? `, MCU ${mcu_state}` : ''}`,
    ...(latch_id > 0 && phase === 'LATCHED'
      ? [`             latch ${latch_id}; to clear: outrider-edge failsafe recover`]
      : []),
    ...causes.map(
      ({ cause, action: what, latched, detail }) =>
        `             - ${cause}: ${what}${latched ? ', latched' : ''}${detail ? `, ${detail}` : ''}`,
    ),
  ];
}

/** The analyser's verdict for a person, a line each. */
export function formatHealth(health: HealthView | null | undefined): string[] {
  if (!health) return [];
  const { state, progress, health_score, anomaly_score, risk_level, alarm_since, signals } = health;
  if (state === 'learning') return [`health       learning what is normal, ${percent(progress)} done`];
  const anomaly = anomaly_score === null ? 'unknown' : anomaly_score.toFixed(2);
  return [
    `health       ${health_score.toFixed(2)}, anomaly ${anomaly}, risk ${risk_level}${alarm_since ? `, alarm since ${alarm_since}` : ''}`,
    ...signals
      .filter(({ cost }) => cost > 0)
      .map(({ signal, cost, since }) => `             - ${signal}: costs ${cost.toFixed(2)} since ${since}`),
  ];
}

function formatSource({
  source,
  stream,
  state,
  rate_hz,
  declared_rate_hz,
  percent: done,
  code,
  message,
}: SourceView): string {
  const rate = rate_hz === null ? '' : ` ${rate_hz} Hz${declared_rate_hz ? ` of ${declared_rate_hz}` : ''}`;
  const progress = done === null ? '' : ` ${done} %`;
  const remark = code || message ? `\n                 ${[code, message].filter(Boolean).join(': ')}` : '';
  return `  ${stream === null ? source : `  ${stream}`}: ${state}${rate}${progress}${remark}`;
}

function waiting(lanes: Readonly<Record<string, LaneView>>): string {
  const views = Object.values(lanes);
  const records = views.reduce((sum, lane) => sum + lane.records, 0);
  if (records === 0) return 'everything is in the cloud';
  const samples = lanes['telemetry']?.samples ?? 0;
  return `${records} records (${samples} samples) wait, the oldest since ${duration(Math.max(...views.map(({ lag_s }) => lag_s)))}`;
}

const percent = (ratio: number): string => `${(ratio * 100).toFixed(1)} %`;

/** A size for a person. */
export function bytes(count: number): string {
  if (count < 1024) return `${count} B`;
  if (count < 1024 * 1024) return `${(count / 1024).toFixed(1)} KiB`;
  return `${(count / 1024 / 1024).toFixed(1)} MiB`;
}

function duration(seconds: number): string {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 2 * SECONDS_PER_DAY) return `${(seconds / 3600).toFixed(1)} h`;
  return `${(seconds / SECONDS_PER_DAY).toFixed(1)} d`;
}
