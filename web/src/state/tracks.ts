/**
 * The data behind each chart: rows in time order, loaded once and carried on live.
 *
 * A track never invents a row: where the time to the next one is more than 2.5 times the expected interval the
 * line is broken and the span is reported as a gap. A later revision of a window replaces the earlier one;
 * when the page saw both, the earlier mean is kept for the reader.
 */
import { signal, type Signal } from "@preact/signals";
import type { Prefix } from "../model/number";
import { isSuspect } from "../model/quality";

export const GAP_FACTOR = 2.5;
/** Share of the usual number of series below which a sum counts as partial. */
export const COVERAGE_LEAST = 0.98;
const FILLING_WINDOWS = 3;
/** What has been measured but is still on its way is no gap. */
const ARRIVING_MS = 5_000;
const ROWS_MAX = 20_000;

/** One window or reading: its span, the values in column order, and what is odd about it. */
export interface Row {
  start: number;
  end: number;
  values: (number | null)[];
  count: number | null;
  revision: number;
  quality: number;
  replaced: number | null;
}

export interface Plot {
  /** Times (ms) of the points; a broken line has a point with nulls between its parts. */
  x: number[];
  /** One array per column, as long as `x`. */
  y: (number | null)[][];
  /** The row of each point, null at breaks. */
  rows: (Row | null)[];
  gaps: [number, number][];
  suspect: [number, number][];
  /** Sums over clearly fewer series than usual. */
  partial: [number, number][];
}

export type Load =
  | { state: "idle" | "loading" | "ready" }
  | { state: "failed"; since_ms: number; message: string; reference: string | null };

export class Track {
  readonly version: Signal<number> = signal(0);
  readonly load: Signal<Load> = signal<Load>({ state: "idle" });
  readonly resolution: Signal<string> = signal("");
  readonly unit: Signal<string | null> = signal<string | null>(null);
  /** The unit prefix that the chart of this track has chosen, for figures beside it. */
  readonly prefix: Signal<Prefix | null> = signal<Prefix | null>(null);
  /** Series that a sum can be expected to cover now. */
  expected = 0;
  private rows: Row[] = [];
  private interval_ms = 0;

  /** `summed`: rows are sums over `count` series, so that their coverage matters. */
  constructor(
    readonly columns: number,
    readonly summed = false,
  ) {}

  get size(): number {
    return this.rows.length;
  }

  get first(): number | null {
    return this.rows[0]?.start ?? null;
  }

  get last(): Row | null {
    return this.rows[this.rows.length - 1] ?? null;
  }

  /** Newest row that begins before `to`. */
  lastBefore(to: number): Row | null {
    return this.rows[this.place(to) - 1] ?? null;
  }

  /** Replace what is known between `from` and `to` by what the node says, keeping newer live rows. */
  merge(rows: Row[], from: number, to: number, interval_ms: number): void {
    const newest = rows[rows.length - 1]?.start ?? -Infinity;
    const live = this.rows.filter((row) => row.start > newest && row.start >= from && row.start <= to + 60_000);
    this.rows = [...rows, ...live];
    this.interval_ms = interval_ms || medianStep(this.rows);
    this.version.value += 1;
  }

  /** Add a live row, or replace the one with the same start by a later revision. */
  put(row: Row): void {
    const at = this.place(row.start);
    const known = this.rows[at];
    if (known && known.start === row.start) {
      if (row.revision < known.revision) return;
      const before = known.revision < row.revision ? (known.values[0] ?? null) : known.replaced;
      this.rows[at] = { ...row, replaced: before };
    } else {
      this.rows.splice(at, 0, row);
      this.interval_ms ||= row.end - row.start;
      if (this.rows.length > ROWS_MAX) this.rows.splice(0, this.rows.length - ROWS_MAX);
    }
    this.version.value += 1;
  }

  clear(): void {
    this.rows = [];
    this.version.value += 1;
  }

  /** What a chart from `from` to `to` draws; one row beyond each edge, so that lines reach the edge. */
  plot(from: number, to: number): Plot {
    const begin = Math.max(0, this.place(from) - 1);
    const end = Math.min(this.rows.length, this.place(to) + 1);
    const plot: Plot = { x: [], y: Array.from({ length: this.columns }, () => []), rows: [], gaps: [], suspect: [], partial: [] };
    const limit = this.interval_ms * GAP_FACTOR;
    const usual = this.rows.slice(begin, end).reduce((most, row) => Math.max(most, row.count ?? 0), this.expected);
    const least = this.summed ? COVERAGE_LEAST * usual : 0;
    let before: Row | null = null;
    for (let index = begin; index < end; index += 1) {
      const row = this.rows[index]!;
      if (before !== null && limit > 0 && row.start - before.start > limit) {
        plot.x.push((before.end + row.start) / 2);
        for (const column of plot.y) column.push(null);
        plot.rows.push(null);
        plot.gaps.push([before.end, row.start]);
      }
      plot.x.push((row.start + row.end) / 2);
      // The newest windows fill up while their series close one by one: until then their sums say nothing.
      const few = (row.count ?? 0) < least;
      const filling = few && to - row.end < FILLING_WINDOWS * (row.end - row.start);
      plot.y.forEach((column, number) => column.push(filling ? null : (row.values[number] ?? null)));
      if (few) extend(plot.partial, row.start, row.end);
      plot.rows.push(row);
      if (isSuspect(row.quality)) {
        const next = this.rows[index + 1]?.start ?? row.end;
        const until = Math.max(row.end, limit > 0 ? Math.min(next, row.start + limit) : next);
        extend(plot.suspect, row.start, until);
      }
      before = row;
    }
    if (before !== null && limit > 0 && end === this.rows.length && to - before.end > limit + ARRIVING_MS) plot.gaps.push([before.end, to]);
    return plot;
  }

  private place(start: number): number {
    let low = 0;
    let high = this.rows.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.rows[middle]!.start < start) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** Add a span, joined to the one before where they touch. */
function extend(spans: [number, number][], from: number, to: number): void {
  const open = spans[spans.length - 1];
  if (open && open[1] >= from) open[1] = to;
  else spans.push([from, to]);
}

function medianStep(rows: readonly Row[]): number {
  if (rows.length < 3) return 0;
  const steps = rows.slice(1).map((row, index) => row.start - rows[index]!.start);
  steps.sort((a, b) => a - b);
  return steps[steps.length >> 1]!;
}
