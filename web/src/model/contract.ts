/**
 * The JSON that the node sends: `/api/v1/*` and `/api/v1/ws`.
 *
 * Times are ms since the epoch (UTC), ages seconds, power W. Missing is null, never 0.
 */

export interface NodeInfo {
  name: string;
  timezone: string;
  version: string;
  started_ms: number;
}

export interface MediumPower {
  medium: string;
  load_w: number | null;
  generation_w: number | null;
  residual_w: number | null;
  series: number;
  fresh: number;
  quality: number;
  oldest_age_s: number | null;
}

export interface Freshness {
  fresh: number;
  total: number;
  oldest_age_s: number | null;
}

export interface Counts {
  received: number;
  stored: number;
  dead_letters: number;
  late: number;
  revisions: number;
  ahead: number;
  duplicates: number;
  invalid: number;
  events: number;
}

export interface SourceStatus {
  name: string;
  type: string;
  address: string | null;
  state: string;
  since_ms: number | null;
  last_error: string | null;
  received: number;
  readings: number;
  dead_letters: number;
  rate_per_s: number | null;
  connections: number | null;
  last_reading_ms: number | null;
}

export interface FlowStatus {
  name: string;
  to: string;
  state: string;
  lag_s: number | null;
  rows: number;
  late: number;
  revisions: number;
  ahead: number;
  last_error?: string | null;
}

export interface LogStatus {
  bytes: number;
  segments: number;
  state: string;
  durable_age_s: number | null;
}

export interface DeadLetter {
  time_ms: number;
  source: string;
  topic: string;
  reason: string;
  payload: string;
  payload_bytes: number;
}

export interface StaleSeries {
  key: string;
  medium: string | null;
  time_ms: number;
  age_s: number;
}

/** Rows of a source in one stream: handed_over = found + the five that are accounted for + difference. */
export interface RowAccount {
  stream: string;
  handed_over: number;
  found: number;
  evicted: number;
  quarantined: number;
  cut: number;
  lost: number;
  conflict: number;
  difference: number;
}

/** A stretch of time in which messages may have been lost that nobody could count. */
export interface UnknownRange {
  from_ms: number;
  to_ms: number;
  reason: string;
}

/** received = accepted + rejected + ignored + dropped + difference_messages, in messages. */
export interface SourceAccount {
  source: string;
  counted: boolean;
  since_ms: number;
  received: number;
  accepted: number;
  rejected: number;
  ignored: number;
  dropped: number;
  difference_messages: number;
  rows: RowAccount[];
  unknown: UnknownRange[];
}

export interface Accounts {
  at_ms: number;
  closes: boolean;
  sources: SourceAccount[];
}

/** A process of the node. */
export interface PartStatus {
  name: string;
  pid: number | null;
  state: string;
  since_ms: number;
  restarts: number;
  last_error: string | null;
}

export interface Overview {
  node: NodeInfo;
  now_ms: number;
  power: MediumPower[];
  fresh: Freshness;
  counts: Counts;
  sources: SourceStatus[];
  flows: FlowStatus[];
  log: LogStatus;
  dead_letters: DeadLetter[];
  stale?: StaleSeries[];
  parts?: PartStatus[];
  accounts?: Accounts | null;
  /** Streams of windows, which charts can show. */
  window_streams?: string[];
}

/** An alarm as its newest event tells it; `count` and what follows are those of a group alarm. */
export interface Alarm {
  alert: string;
  state: "open" | "closed";
  priority: 1 | 2 | 3;
  subject: string;
  text: string;
  condition: string;
  flow: string;
  since_ms: number;
  opened_ms: number;
  updated_ms: number;
  closed_ms: number | null;
  value: number | null;
  limit: number | null;
  worst: number | null;
  unit: string | null;
  place: string | null;
  device: string | null;
  group: string | null;
  note: string | null;
  members: { subject: string; alert: string }[];
  count: number;
  standing: number;
  suppressed: number;
  watched: boolean;
  /** The states of IEC 62682: open or over, and whether somebody takes care of it. */
  annunciation: "unacknowledged" | "acknowledged" | "returned" | "normal";
  acknowledged: { by: string; at_ms: number; note: string | null } | null;
  stream: string;
}

export interface AcknowledgeAnswer {
  acknowledged: string[];
  already: string[];
  unknown: string[];
}

/** Alarms as they stand: `open` counts by priority 1, 2, 3, `unacknowledged` those of them; `more` open ones are not listed. */
export interface Alarms {
  revision: number;
  open: number[];
  more: number;
  opened_10min: number;
  alarms: Alarm[];
  unacknowledged: number[];
}

export interface LastValue {
  time_ms: number;
  value: number | null;
  quality: number;
  arrived_ms: number | null;
}

export interface SeriesEntry {
  key: string;
  id: number;
  unit: string | null;
  quantity: string | null;
  medium: string | null;
  device: string | null;
  place: string | null;
  owner: string | null;
  external?: Record<string, string> | null;
  interval_s?: number | null;
  last: LastValue | null;
}

export interface SeriesAnswer {
  total: number;
  of: number;
  series: SeriesEntry[];
}

export interface ReadingsAnswer {
  series: string;
  unit: string | null;
  resolution: string;
  points: {
    time_ms: number[];
    mean: (number | null)[];
    min: (number | null)[];
    max: (number | null)[];
    count: number[];
    quality: number[];
  };
  truncated: boolean;
}

export interface SeriesWindowsAnswer {
  stream: string;
  series: string;
  unit: string | null;
  window_ms: number;
  rows: {
    start_ms: number[];
    count: (number | null)[];
    mean: (number | null)[];
    min: (number | null)[];
    max: (number | null)[];
    revision: number[];
  };
}

export interface MediumWindowsAnswer {
  stream: string;
  medium: string;
  unit: string;
  window_ms: number;
  rows: {
    start_ms: number[];
    load: (number | null)[];
    generation: (number | null)[];
    net: (number | null)[];
    series: number[];
  };
}

/** [key, time_ms, value, quality, arrived_ms] */
export type ValueRow = [string, number, number | null, number, number | null];
/** [key, start_ms, end_ms, count, mean, min, max, revision] */
export type WindowRow = [string, number, number, number | null, number | null, number | null, number | null, number];
/** [medium, start_ms, load, generation, net, series] */
export type MediumRow = [string, number, number | null, number | null, number | null, number];

export interface Welcome {
  type: "welcome";
  heartbeat_s: number;
  node: NodeInfo;
}

export interface Batch {
  type: "batch";
  seq: number;
  now_ms: number;
  overview?: Overview | null;
  values?: ValueRow[];
  windows?: WindowRow[];
  media?: MediumRow[];
  alarms?: Alarms | null;
}

export interface Heartbeat {
  type: "heartbeat";
  now_ms: number;
}

export interface ServerError {
  type: "error";
  error: string;
  detail?: string;
}

export type ServerMessage = Welcome | Batch | Heartbeat | ServerError;
