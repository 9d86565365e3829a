/** proto3 does not send zeros: those of a vector are said all the same. */
const ZEROS = { x: 0, y: 0, z: 0 };
const VECTORS = new Set(['angular_velocity', 'linear_acceleration']);

/** A message as JSON has it, so that both doors check the same: what was not said is absent. */
export function said(value: unknown, key = ''): unknown {
  if (Array.isArray(value)) return value.map((item) => said(item));
  if (typeof value !== 'object' || value === null) return value;
  const given = Object.entries(value)
    .filter(([, item]) => item !== null && item !== undefined && item !== '' && !isEmptyList(item))
    .map(([name, item]) => [name, said(item, name)] as const);
  return { ...(VECTORS.has(key) ? ZEROS : {}), ...Object.fromEntries(given) };
}

const isEmptyList = (value: unknown): boolean => Array.isArray(value) && value.length === 0;
