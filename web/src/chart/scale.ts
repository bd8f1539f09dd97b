/**
 * The vertical range of a chart: expands at once with 10 % headroom, shrinks only after the data have needed
 * less than 60 % of it for 30 s, or when the reader asks to fit.
 */

const HEADROOM = 0.1;
const SHRINK_BELOW = 0.6;
const SHRINK_AFTER_MS = 30_000;

export class HeldRange {
  private held: [number, number] | null = null;
  private small_since: number | null = null;

  /** The range to show for data from `low` to `high` at time `now_ms`; `zero` keeps the zero line within it. */
  update(low: number | null, high: number | null, now_ms: number, zero: boolean): [number, number] {
    if (low === null || high === null) return this.held ?? (zero ? [0, 1] : [0, 1]);
    const wanted = withHeadroom(low, high, zero);
    if (this.held === null) return (this.held = wanted);
    const [bottom, top] = this.held;
    if (low < bottom || high > top || (zero && (bottom > 0 || top < 0))) {
      this.small_since = null;
      return (this.held = [Math.min(bottom, wanted[0]), Math.max(top, wanted[1])]);
    }
    if (wanted[1] - wanted[0] >= (top - bottom) * SHRINK_BELOW) {
      this.small_since = null;
    } else {
      this.small_since ??= now_ms;
      if (now_ms - this.small_since >= SHRINK_AFTER_MS) {
        this.small_since = null;
        this.held = wanted;
      }
    }
    return this.held;
  }

  /** Forget the held range: the next update fits the data. */
  fit(): void {
    this.held = null;
    this.small_since = null;
  }
}

function withHeadroom(low: number, high: number, zero: boolean): [number, number] {
  const bottom = zero ? Math.min(0, low) : low;
  const top = zero ? Math.max(0, high) : high;
  const span = top - bottom || Math.abs(top) * 0.02 || 1;
  return [
    zero && bottom === 0 ? 0 : bottom - span * HEADROOM,
    zero && top === 0 ? 0 : top + span * HEADROOM,
  ];
}

/** Smallest and largest number in the columns; null where there is none. */
export function extent(columns: readonly (readonly (number | null)[])[]): [number | null, number | null] {
  let low: number | null = null;
  let high: number | null = null;
  for (const column of columns) {
    for (const value of column) {
      if (value === null) continue;
      if (low === null || value < low) low = value;
      if (high === null || value > high) high = value;
    }
  }
  return [low, high];
}
