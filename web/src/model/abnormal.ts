/**
 * What is abnormal now, derived from one overview: conditions that ask somebody to do something.
 *
 * Priorities as the portal standard has them: 1 data are being refused, 2 a part is not working,
 * 3 some data are missing or wrong. Normal states give nothing: there is no "OK".
 */
import type { Counts, Overview } from "./contract";
import { openDifferences } from "./ledger";
import { age, integer } from "./number";

export type Priority = 1 | 2 | 3;

export interface Condition {
  /** Stable as long as the condition lasts, so that it is announced once. */
  id: string;
  priority: Priority;
  text: string;
  detail: string | null;
  since_ms: number | null;
  /** Element of the page that shows more. */
  target: string | null;
}

/** How far back a counter's rise counts as "now". */
export const RECENT_MS = 300_000;
/** Dead letters that the node tells at a time. */
const LETTERS_TOLD = 20;
const FLOW_LAG_S = 10;

/** Counters at an earlier moment, to tell a rise from an old total. */
export interface Baseline {
  at_ms: number;
  counts: Counts;
}

const plural = (n: number, one: string, many: string): string => `${integer(n)} ${n === 1 ? one : many}`;

/** The conditions of an overview, most urgent first. `baseline` is null until the page has watched for a while. */
export function conditions(overview: Overview, baseline: Baseline | null): Condition[] {
  const found: Condition[] = [];
  const add = (
    id: string,
    priority: Priority,
    text: string,
    target: string | null,
    detail: string | null = null,
    since_ms: number | null = null,
  ): void => {
    found.push({ id, priority, text, detail, since_ms, target });
  };

  if (overview.log.state === "full") {
    add("log", 1, "Journal full", "sources", "nothing is acknowledged until space returns");
  } else if (overview.log.state !== "ok") {
    add("log", 1, `Journal ${overview.log.state}`, "sources", "nothing is acknowledged until it can be written");
  }
  for (const open of openDifferences(overview.accounts ?? null)) {
    add(`ledger ${open.source}`, 1, `Ledger of ${open.source} does not close`, "ledger", open.what);
  }
  for (const part of overview.parts ?? []) {
    if (part.state === "running") continue;
    add(`part ${part.name}`, part.name === "intake" ? 1 : 2, `Process ${part.name} ${part.state}`, "processes", part.last_error, part.since_ms);
  }
  for (const source of overview.sources) {
    if (source.state === "running") continue;
    add(`source ${source.name}`, 2, `Source ${source.name} ${source.state}`, "sources", source.last_error, source.since_ms);
  }
  for (const flow of overview.flows) {
    if (flow.state !== "running") add(`flow ${flow.name}`, 2, `Flow ${flow.name} ${flow.state}`, "flows", flow.last_error ?? null);
    else if (flow.lag_s !== null && flow.lag_s > FLOW_LAG_S) {
      add(`lag ${flow.name}`, 3, `Flow ${flow.name} lags ${age(flow.lag_s)}`, "flows");
    }
  }
  const { fresh, total, oldest_age_s } = overview.fresh;
  if (fresh < total) {
    const oldest = oldest_age_s === null ? null : `oldest ${age(oldest_age_s)}`;
    if (fresh === 0) add("stale", 2, "All series stale", "freshness", oldest);
    else add("stale", 3, `${plural(total - fresh, "series", "series")} stale`, "freshness", oldest);
  }
  const recent = overview.dead_letters.filter((letter) => letter.time_ms > overview.now_ms - RECENT_MS);
  const letters = Math.max(recent.length, rise(overview.counts.dead_letters, baseline?.counts.dead_letters));
  if (letters > 0) {
    // The node tells the newest ones only; before the page has watched for a while there may be more.
    const more = letters === recent.length && letters >= LETTERS_TOLD && letters < overview.counts.dead_letters;
    add("letters", 3, more ? `${integer(letters)}+ dead letters in 5\u00a0min` : `${plural(letters, "dead letter", "dead letters")} in 5\u00a0min`, "letters", recent[0] ? `newest from ${recent[0].source}` : null);
  }
  const ahead = rise(overview.counts.ahead, baseline?.counts.ahead);
  if (ahead > 0) add("ahead", 3, `${plural(ahead, "reading", "readings")} ahead of the clock in 5\u00a0min`, "counts", "a device's clock is wrong");
  const invalid = rise(overview.counts.invalid, baseline?.counts.invalid);
  if (invalid > 0) add("invalid", 3, `${plural(invalid, "reading", "readings")} marked invalid in 5\u00a0min`, "counts");
  return found.sort((a, b) => a.priority - b.priority);
}

function rise(now: number, before: number | undefined): number {
  return before === undefined ? 0 : Math.max(0, now - before);
}
