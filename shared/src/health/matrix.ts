/**
 * Inverse of a symmetric positive definite matrix through its Cholesky factor.
 *
 * @param matrix `size`×`size`, row by row. Left as it is.
 * @returns `undefined` when the matrix is not positive definite.
 */
export function invertPositive(matrix: Float64Array, size: number): Float64Array | undefined {
  const lower = new Float64Array(size * size);
  for (let row = 0; row < size; row += 1) {
    for (let column = 0; column <= row; column += 1) {
      let sum = matrix[row * size + column] as number;
      for (let k = 0; k < column; k += 1)
        sum -= (lower[row * size + k] as number) * (lower[column * size + k] as number);
      if (row === column) {
        if (!(sum > 0)) return undefined;
        lower[row * size + row] = Math.sqrt(sum);
      } else lower[row * size + column] = sum / (lower[column * size + column] as number);
    }
  }
  const inverse = new Float64Array(size * size);
  const solved = new Float64Array(size);
  for (let unit = 0; unit < size; unit += 1) {
    for (let row = 0; row < size; row += 1) {
      let sum = row === unit ? 1 : 0;
      for (let k = unit; k < row; k += 1) sum -= (lower[row * size + k] as number) * (solved[k] as number);
      solved[row] = row < unit ? 0 : sum / (lower[row * size + row] as number);
    }
    for (let row = size - 1; row >= 0; row -= 1) {
      let sum = solved[row] as number;
      for (let k = row + 1; k < size; k += 1)
        sum -= (lower[k * size + row] as number) * (inverse[k * size + unit] as number);
      inverse[row * size + unit] = sum / (lower[row * size + row] as number);
    }
  }
  return inverse;
}

/** Share of the identity that is mixed in at the very least: signals that are exact copies still have an inverse. */
const SHRINK_MIN = 0.05;
/** Windows overlap, so that many of them say less than as many independent ones. */
const WINDOWS_PER_FACT = 4;

/**
 * Precision matrix (inverse covariance) of rows that are already centred and scaled, shrunk towards the identity the
 * more the fewer rows there are for its size.
 */
export function precisionOf(rows: readonly Float64Array[], size: number): Float64Array {
  const covariance = new Float64Array(size * size);
  for (const row of rows)
    for (let i = 0; i < size; i += 1) {
      const value = row[i] as number;
      if (value === 0) continue;
      for (let j = 0; j <= i; j += 1)
        covariance[i * size + j] = (covariance[i * size + j] as number) + value * (row[j] as number);
    }
  const facts = Math.max(1, rows.length / WINDOWS_PER_FACT);
  const shrink = Math.max(SHRINK_MIN, size / (size + facts));
  for (let i = 0; i < size; i += 1)
    for (let j = 0; j <= i; j += 1) {
      const value =
        ((1 - shrink) * (covariance[i * size + j] as number)) / Math.max(1, rows.length) + (i === j ? shrink : 0);
      covariance[i * size + j] = value;
      covariance[j * size + i] = value;
    }
  return invertPositive(covariance, size) ?? identity(size);
}

function identity(size: number): Float64Array {
  const matrix = new Float64Array(size * size);
  for (let i = 0; i < size; i += 1) matrix[i * size + i] = 1;
  return matrix;
}
