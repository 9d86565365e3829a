/** Converts degrees to radians. */
export const degToRad = (deg: number): number => (deg * Math.PI) / 180;

/** Converts radians to degrees. */
export const radToDeg = (rad: number): number => (rad * 180) / Math.PI;

/** Converts a 0–1 ratio (our inside unit for state of charge) to a 0–100 percentage (WIA's wire). */
export const ratioToPercentage = (ratio: number): number => ratio * 100;

/** Converts kelvin to degrees Celsius. */
export const kelvinToCelsius = (kelvin: number): number => kelvin - 273.15;
