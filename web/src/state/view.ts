/**
 * What the page shows, kept in its address: time range, selected series, resolution.
 *
 * A link therefore opens the same view. `share` turns a relative range into absolute UTC, so that whoever
 * follows the link sees the same minutes.
 */
import { computed, signal } from "@preact/signals";

export const RANGES = [
  { name: "5m", text: "5 min", ms: 300_000 },
  { name: "15m", text: "15 min", ms: 900_000 },
  { name: "1h", text: "1 h", ms: 3_600_000 },
  { name: "6h", text: "6 h", ms: 21_600_000 },
  { name: "24h", text: "24 h", ms: 86_400_000 },
] as const;
export type RangeName = (typeof RANGES)[number]["name"];
export const SELECTED_MAX = 8;
const SPAN_MIN_MS = 2_000;
const SPAN_MAX_MS = 400 * 86_400_000;

export type Range = { kind: "last"; name: RangeName } | { kind: "fixed"; from: number; to: number };
export type Resolution = "windows" | "raw";

export interface View {
  range: Range;
  series: string[];
  resolution: Resolution;
  stream: string | null;
}

/** The view that an address (its `?...` part) describes; what cannot be read falls back to the default. */
export function parseView(search: string): View {
  const query = new URLSearchParams(search);
  const from = Date.parse(query.get("from") ?? "");
  const to = Date.parse(query.get("to") ?? "");
  const named = RANGES.find((range) => range.name === query.get("range"));
  const range: Range =
    Number.isFinite(from) && Number.isFinite(to) && to - from >= SPAN_MIN_MS
      ? { kind: "fixed", from, to }
      : { kind: "last", name: named?.name ?? "15m" };
  return {
    range,
    series: [...new Set(query.getAll("series").filter((key) => key !== ""))].slice(0, SELECTED_MAX),
    resolution: query.get("show") === "raw" ? "raw" : "windows",
    stream: query.get("stream"),
  };
}

/** The address of a view; defaults are left out. */
export function formatView(view: View): string {
  const query = new URLSearchParams();
  if (view.range.kind === "fixed") {
    query.set("from", new Date(view.range.from).toISOString());
    query.set("to", new Date(view.range.to).toISOString());
  } else if (view.range.name !== "15m") {
    query.set("range", view.range.name);
  }
  if (view.resolution === "raw") query.set("show", "raw");
  if (view.stream !== null) query.set("stream", view.stream);
  for (const key of view.series) query.append("series", key);
  const text = query.toString().replaceAll("%2F", "/").replaceAll("%3A", ":");
  return text ? `?${text}` : "";
}

export const view = signal<View>(parseView(globalThis.location?.search ?? ""));

export const selected = computed(() => view.value.series);

/** Change parts of the view, and the address with it. */
export function show(change: Partial<View>): void {
  view.value = { ...view.peek(), ...change };
  history.replaceState(null, "", location.pathname + formatView(view.peek()) + location.hash);
}

/** Select a series, or give it up when it is selected. Returns why it could not be, or null. */
export function toggleSeries(key: string): string | null {
  const { series } = view.peek();
  if (series.includes(key)) {
    show({ series: series.filter((other) => other !== key) });
  } else if (series.length >= SELECTED_MAX) {
    return `At most ${SELECTED_MAX} series are shown at a time; remove one first.`;
  } else {
    show({ series: [...series, key] });
  }
  return null;
}

export function rangeMs(range: Range): number {
  return range.kind === "fixed" ? range.to - range.from : RANGES.find((r) => r.name === range.name)!.ms;
}

/**
 * The range `factor` times as long around `centre`, an instant between `from` and `to` (what is shown now).
 * Zooming out as far as the present goes back to "the last ...", which moves on with time.
 */
export function zoom(factor: number, centre: number, from: number, to: number, now: number): Range {
  const span = Math.min(SPAN_MAX_MS, Math.max(SPAN_MIN_MS, (to - from) * factor));
  const share = to > from ? (centre - from) / (to - from) : 0.5;
  const start = Math.round(centre - span * share);
  const end = Math.round(start + span);
  if (factor <= 1 || end < now) return { kind: "fixed", from: start, to: end };
  const named = RANGES.find((range) => range.ms >= span * 0.99);
  return named ? { kind: "last", name: named.name } : { kind: "fixed", from: Math.round(now - span), to: Math.round(now) };
}

/** An address that shows these very minutes to whoever opens it, whenever. */
export function shareAddress(from: number, to: number): string {
  const fixed: View = { ...view.peek(), range: { kind: "fixed", from: Math.round(from), to: Math.round(to) } };
  return location.origin + location.pathname + formatView(fixed);
}
