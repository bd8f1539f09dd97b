/**
 * What the page knows, as signals: the newest overview, the connection, the node's clock, latest values.
 *
 * The clock is the node's: every message carries the node's time, and between messages the browser's
 * monotonic clock carries it on, so a wrong clock on the viewer's desk shows nothing wrong here.
 */
import { batch as together, computed, signal, type Signal } from "@preact/signals";
import { conditions, RECENT_MS, type Baseline } from "../model/abnormal";
import { isFlood } from "../model/alarms";
import type { Alarms, Batch, LastValue, Overview } from "../model/contract";
import { knownZone } from "../model/time";

export type ConnectionState = "connecting" | "live" | "disconnected" | "unauthorised";

export interface Connection {
  state: ConnectionState;
  since_ms: number;
  why: string | null;
}

export const overview = signal<Overview | null>(null);
export const overviewProblem = signal<{ message: string; reference: string | null; since_ms: number } | null>(null);
/** Alarms as they stand; null before the node has told them, and where there are none to tell. */
export const alarms = signal<Alarms | null>(null);
/** Whether alarms come faster than anybody can read them. */
export const flood = signal(false);
export const connection = signal<Connection>({ state: "connecting", since_ms: Date.now(), why: null });
/** Counts successful connections: whoever depends on continuity loads again when it changes. */
export const connectionCount = signal(0);

const anchor = { node_ms: Date.now(), monotonic_ms: performance.now() };

/** The node's time now, ms since the epoch. */
export function nodeNow(): number {
  return anchor.node_ms + performance.now() - anchor.monotonic_ms;
}

/** The node's time, moving on once a second. */
export const now = signal(nodeNow());

/** Take over the node's time from a message. */
export function heardTime(now_ms: number): void {
  anchor.node_ms = now_ms;
  anchor.monotonic_ms = performance.now();
  if (Math.abs(now.peek() - now_ms) > 1500) now.value = now_ms;
}

/** Start the clock that moves `now` on, on the node's full seconds. */
export function startClock(): void {
  const tick = (): void => {
    now.value = nodeNow();
    setTimeout(tick, 1000 - (nodeNow() % 1000) + 5);
  };
  tick();
}

/** Seconds since the newest overview was true: what to add to the ages in it. */
export const overviewAge_s = computed(() => (overview.value === null ? 0 : Math.max(0, (now.value - overview.value.now_ms) / 1000)));

/** An age from the newest overview, as it is by now. */
export function older(age_s: number | null | undefined): number | null {
  return age_s == null ? null : age_s + Math.floor(overviewAge_s.value);
}

export const zone = computed(() => knownZone(overview.value?.node.timezone ?? "UTC"));
export const isConnected = computed(() => connection.value.state === "live");
/** True while nothing on the page can be taken as current. */
export const isCut = computed(() => connection.value.state === "disconnected" || connection.value.state === "unauthorised");

export function setConnection(state: ConnectionState, why: string | null = null): void {
  const before = connection.peek();
  // Since when does not move while the same state lasts: attempts to reconnect come and go.
  const since_ms = before.state === state ? before.since_ms : nodeNow();
  if (before.state !== state || before.why !== why) connection.value = { state, since_ms, why };
}

const SAMPLE_MS = 5_000;
const history: Baseline[] = [];

function remember(next: Overview): void {
  const last = history[history.length - 1];
  if (last && (next.counts.received < last.counts.received || next.now_ms < last.at_ms)) history.length = 0;
  if (history.length === 0 || next.now_ms - history[history.length - 1]!.at_ms >= SAMPLE_MS) {
    history.push({ at_ms: next.now_ms, counts: next.counts });
  }
  while (history.length > 1 && history[1]!.at_ms <= next.now_ms - RECENT_MS) history.shift();
}

export const abnormal = computed(() => {
  const current = overview.value;
  return current === null ? [] : conditions(current, history[0] ?? null);
});

/** Which streams of windows the charts can show; the first one unless the view says otherwise. */
export const windowStreams = computed(() => overview.value?.window_streams ?? (overview.value?.flows ?? []).map((flow) => flow.to));

const latest = new Map<string, Signal<LastValue | null>>();

/** The latest value of a series, as far as the page has heard of one. */
export function latestOf(key: string): Signal<LastValue | null> {
  let found = latest.get(key);
  if (!found) {
    found = signal<LastValue | null>(null);
    latest.set(key, found);
  }
  return found;
}

/** Forget the values of all series but these. */
export function keepLatest(keys: ReadonlySet<string>): void {
  for (const key of latest.keys()) if (!keys.has(key)) latest.delete(key);
}

/** Keep a value unless a newer one is known already. */
export function offerLatest(key: string, value: LastValue): void {
  const known = latestOf(key);
  const before = known.peek();
  if (before === null || value.time_ms >= before.time_ms) known.value = value;
}

export function takeOverview(next: Overview): void {
  together(() => {
    remember(next);
    overview.value = next;
    overviewProblem.value = null;
  });
}

/** Take over the alarms. A node that never had one, and has no alert, shows no list of them. */
export function takeAlarms(next: Alarms): void {
  together(() => {
    const has = next.revision > 0 || (overview.peek()?.flows ?? []).some((flow) => flow.to === "alarms");
    alarms.value = has ? next : null;
    flood.value = isFlood(next.opened_10min, flood.peek());
  });
}

export function takeValues(rows: NonNullable<Batch["values"]>): void {
  together(() => {
    for (const [key, time_ms, value, quality, arrived_ms] of rows) offerLatest(key, { time_ms, value, quality, arrived_ms });
  });
}
