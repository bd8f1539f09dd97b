/**
 * Joins the live connection, the requests and the tracks: which charts exist, what they load, what comes in.
 */
import { batch as together, computed, effect, signal } from "@preact/signals";
import type { Batch, ReadingsAnswer, SeriesEntry, SeriesWindowsAnswer } from "../model/contract";
import { fetchMediumWindows, fetchOverview, fetchReadings, fetchSeriesWindows, RequestFailure, searchSeries } from "./fetch";
import { LiveSocket } from "./socket";
import * as store from "./store";
import { token } from "./token";
import { Track, type Row } from "./tracks";
import { rangeMs, selected, view } from "./view";

const POINTS_MAX = 600;
const RAW_REFRESH_MS = 15_000;
const SPAN_LEAST_MS = 180_000;
const EDGE_MS = 20_000;
/** Columns of a medium's track. */
export const MEDIUM_COLUMNS = ["load", "generation", "residual"] as const;

const media = new Map<string, Track>();
const series = new Map<string, { windows: Track; raw: Track }>();
const described = new Map<string, ReturnType<typeof signal<SeriesEntry | null | undefined>>>();
const earliest = signal<number | null>(null);

export const stream = computed(() => view.value.stream ?? store.windowStreams.value[0] ?? null);

const mediumNames = computed(() => (store.overview.value?.power ?? []).map((power) => power.medium).join("\n"));

/** From and to of all charts: one time window for the page. A young log does not leave most of a chart empty. */
export const shown = computed(() => {
  const { range } = view.value;
  if (range.kind === "fixed") return { from: range.from, to: range.to };
  const to = Math.ceil(store.now.value / 1000) * 1000;
  const span = rangeMs(range);
  const first = earliest.value;
  const known = first === null ? span : Math.max(SPAN_LEAST_MS, to - first + EDGE_MS);
  return { from: to - Math.min(span, known), to };
});

/** How long the windows behind the power charts are, in words. */
export const windowResolution = computed(() => {
  for (const medium of mediumNames.value.split("\n")) {
    const text = medium ? mediumTrack(medium).resolution.value : "";
    if (text) return text;
  }
  return "";
});

export function mediumTrack(medium: string): Track {
  let track = media.get(medium);
  if (!track) {
    track = new Track(MEDIUM_COLUMNS.length, true);
    track.unit.value = "W";
    media.set(medium, track);
  }
  return track;
}

export function seriesTracks(key: string): { windows: Track; raw: Track } {
  let tracks = series.get(key);
  if (!tracks) {
    tracks = { windows: new Track(3), raw: new Track(3) };
    series.set(key, tracks);
  }
  return tracks;
}

/** What the catalogue says of a series: undefined while asking, null when there is none of this key. */
export function description(key: string): ReturnType<typeof signal<SeriesEntry | null | undefined>> {
  let found = described.get(key);
  if (!found) {
    found = signal<SeriesEntry | null | undefined>(undefined);
    described.set(key, found);
    void describe(key);
  }
  return found;
}

/** Keep an entry, so that a selected series is described at once. */
function noteEntry(entry: SeriesEntry): void {
  const known = described.get(entry.key);
  if (known) known.value = entry;
  else described.set(entry.key, signal<SeriesEntry | null | undefined>(entry));
  if (entry.last) store.offerLatest(entry.key, entry.last);
}

/** A search has answered: what earlier searches brought along and nobody selected is forgotten. */
export function noteAnswer(entries: readonly SeriesEntry[]): void {
  const keys = new Set([...selected.peek(), ...entries.map((entry) => entry.key)]);
  for (const key of described.keys()) if (!keys.has(key)) described.delete(key);
  store.keepLatest(keys);
  for (const entry of entries) noteEntry(entry);
}

async function describe(key: string): Promise<void> {
  try {
    const answer = await searchSeries(key, 50);
    const entry = answer.series.find((candidate) => candidate.key === key) ?? null;
    if (entry) noteEntry(entry);
    else described.get(key)!.value = null;
  } catch (problem) {
    if (problem instanceof RequestFailure && problem.status === 401) refused();
    described.delete(key);
  }
}

function windowRows(answer: SeriesWindowsAnswer): Row[] {
  const { start_ms, count, mean, min, max, revision } = answer.rows;
  return start_ms.map((start, index) => ({
    start,
    end: start + answer.window_ms,
    values: [mean[index] ?? null, min[index] ?? null, max[index] ?? null],
    count: count[index] ?? null,
    revision: revision[index] ?? 0,
    quality: 0,
    replaced: null,
  }));
}

function rawRows(answer: ReadingsAnswer): Row[] {
  const { time_ms, mean, min, max, count, quality } = answer.points;
  return time_ms.map((start, index) => ({
    start,
    end: start,
    values: [mean[index] ?? null, min[index] ?? null, max[index] ?? null],
    count: count[index] ?? null,
    revision: 0,
    quality: quality[index] ?? 0,
    replaced: null,
  }));
}

const running = new WeakMap<Track, number>();

async function load(track: Track, job: () => Promise<void>): Promise<void> {
  const number = (running.get(track) ?? 0) + 1;
  running.set(track, number);
  const before = track.load.peek();
  if (before.state !== "ready") track.load.value = { state: "loading" };
  try {
    await job();
    if (running.get(track) === number) track.load.value = { state: "ready" };
  } catch (problem) {
    if (running.get(track) !== number) return;
    if (problem instanceof RequestFailure && problem.status === 401) refused();
    track.load.value = {
      state: "failed",
      since_ms: store.nodeNow(),
      message: problem instanceof Error ? problem.message : String(problem),
      reference: problem instanceof RequestFailure ? problem.reference : null,
    };
  }
}

function asked(): { from: number; to: number } {
  const { range } = view.peek();
  if (range.kind === "fixed") return { from: range.from, to: range.to };
  return { from: store.nodeNow() - rangeMs(range), to: store.nodeNow() + 60_000 };
}

export function loadMedium(medium: string): Promise<void> {
  const track = mediumTrack(medium);
  const from_stream = stream.peek();
  if (from_stream === null) return Promise.resolve();
  return load(track, async () => {
    const { from, to } = asked();
    const answer = await fetchMediumWindows(from_stream, medium, from, to);
    const { rows } = answer;
    const found = rows.start_ms.map((start, index) => mediumRow(start, answer.window_ms, [rows.load[index], rows.generation[index], rows.net[index]], rows.series[index]));
    together(() => {
      track.resolution.value = resolutionText(answer.window_ms);
      track.merge(found, from, to, answer.window_ms);
      noteEarliest();
    });
  });
}

function mediumRow(start: number, window_ms: number, values: (number | null | undefined)[], count: number | undefined): Row {
  return { start, end: start + window_ms, values: values.map((v) => v ?? null), count: count ?? null, revision: 0, quality: 0, replaced: null };
}

export function loadSeries(key: string): Promise<void> {
  const { windows, raw } = seriesTracks(key);
  if (view.peek().resolution === "raw" || stream.peek() === null) {
    return load(raw, async () => {
      const { from, to } = asked();
      const answer = await fetchReadings(key, from, to, POINTS_MAX);
      together(() => {
        raw.unit.value = answer.unit;
        raw.resolution.value = answer.resolution + (answer.truncated ? ", truncated" : "");
        raw.merge(rawRows(answer), from, to, 0);
      });
    });
  }
  return load(windows, async () => {
    const { from, to } = asked();
    const answer = await fetchSeriesWindows(stream.peek()!, key, from, to);
    together(() => {
      windows.unit.value = answer.unit;
      windows.resolution.value = resolutionText(answer.window_ms);
      windows.merge(windowRows(answer), from, to, answer.window_ms);
    });
  });
}

function resolutionText(window_ms: number): string {
  if (window_ms <= 0) return "";
  if (window_ms % 3_600_000 === 0) return `${window_ms / 3_600_000}\u00a0h windows`;
  if (window_ms % 60_000 === 0) return `${window_ms / 60_000}\u00a0min windows`;
  return `${window_ms / 1000}\u00a0s windows`;
}

function noteEarliest(): void {
  const firsts = [...media.values()].map((track) => track.first).filter((first) => first !== null);
  earliest.value = firsts.length > 0 ? Math.min(...firsts) : null;
}

function takeBatch(batch: Batch): void {
  together(() => {
    if (batch.overview) {
      store.takeOverview(batch.overview);
      for (const { medium, fresh } of batch.overview.power) mediumTrack(medium).expected = fresh;
    }
    if (batch.alarms) store.takeAlarms(batch.alarms);
    if (batch.values) {
      store.takeValues(batch.values);
      for (const [key, time_ms, value, quality] of batch.values) {
        const raw = series.get(key)?.raw;
        if (raw && raw.load.peek().state === "ready" && time_ms > (raw.last?.start ?? 0)) {
          raw.put({ start: time_ms, end: time_ms, values: [value, value, value], count: 1, revision: 0, quality, replaced: null });
        }
      }
    }
    for (const [key, start, end, count, mean, min, max, revision] of batch.windows ?? []) {
      const windows = series.get(key)?.windows;
      windows?.put({ start, end, values: [mean, min, max], count, revision, quality: 0, replaced: null });
      if (windows && end > start) windows.resolution.value = resolutionText(end - start);
    }
    if (batch.media && batch.media.length > 0) {
      for (const [medium, start, load_w, generation_w, net_w, count] of batch.media) {
        const track = media.get(medium);
        const known = track?.last;
        // Before the first window, how long windows are is asked of the node.
        if (known) track.put(mediumRow(start, known.end - known.start, [load_w, generation_w, net_w], count));
        else if (track?.load.peek().state === "ready") void loadMedium(medium);
      }
      noteEarliest();
    }
  });
}

function refused(): void {
  store.setConnection("unauthorised");
  socket.stop();
}

const socket = new LiveSocket(
  {
    connected: () => {
      store.setConnection("live");
      store.connectionCount.value += 1;
    },
    batch: takeBatch,
    heard: store.heardTime,
    lost: (why) => store.setConnection("disconnected", why),
    unauthorised: () => store.setConnection("unauthorised"),
  },
  () => token.peek(),
);

/** The first overview comes by HTTP at once; from then on the socket pushes it. */
export async function loadOverview(): Promise<void> {
  try {
    const first = await fetchOverview();
    store.heardTime(first.now_ms);
    store.takeOverview(first);
  } catch (problem) {
    if (problem instanceof RequestFailure && problem.status === 401) refused();
    else if (store.overview.peek() === null) {
      store.overviewProblem.value = {
        message: problem instanceof Error ? problem.message : String(problem),
        reference: problem instanceof RequestFailure ? problem.reference : null,
        since_ms: store.nodeNow(),
      };
    }
  }
}

/** Try again now, with the token that has just been given. */
export function signIn(): void {
  store.setConnection("connecting");
  socket.stop();
  socket.start();
  void loadOverview();
}

export const reconnectNow = (): void => socket.reconnectNow();

/** Connect, and keep every chart's data in step with the view. */
export function startSession(): void {
  store.startClock();
  void loadOverview();
  socket.start();
  const rangeKey = computed(() => JSON.stringify(view.value.range));
  effect(() => {
    void rangeKey.value;
    void store.connectionCount.value;
    if (stream.value === null) return;
    for (const medium of mediumNames.value.split("\n")) if (medium) void loadMedium(medium);
  });
  effect(() => {
    void rangeKey.value;
    void store.connectionCount.value;
    void view.value.resolution;
    void stream.value;
    const connected = store.overview.value !== null;
    if (connected) startLoadingSeries(selected.value);
  });
  effect(() => {
    socket.watch(selected.value, stream.value);
    for (const key of series.keys()) if (!selected.value.includes(key)) series.delete(key);
  });
  setInterval(() => {
    if (view.peek().range.kind === "fixed" || view.peek().resolution !== "raw" || !store.isConnected.peek()) return;
    for (const key of selected.peek()) if (seriesTracks(key).raw.resolution.peek() !== "raw") void loadSeries(key);
  }, RAW_REFRESH_MS);
}

let loadedFor = "";

function startLoadingSeries(keys: readonly string[]): void {
  // Overviews come every second; only a change of what is shown is a reason to load again.
  const wanted = JSON.stringify([keys, view.peek().range, view.peek().resolution, stream.peek(), store.connectionCount.peek()]);
  if (wanted === loadedFor) return;
  loadedFor = wanted;
  for (const key of keys) void loadSeries(key);
}
