/**
 * The ledger's sums: what was received is stored or accounted for, and what is neither is a difference.
 *
 * Messages and the rows made of them are two equations; sources that do not say what they received have none.
 */
import type { Accounts, RowAccount, SourceAccount } from "./contract";
import { integer } from "./number";

export interface Equation {
  received: number;
  stored: number;
  accounted: number;
  difference: number;
}

export interface OpenDifference {
  source: string;
  what: string;
}

const REASONS = ["evicted", "quarantined", "cut", "lost", "conflict"] as const;

function accountedRows(rows: RowAccount): number {
  return REASONS.reduce((sum, reason) => sum + rows[reason], 0);
}

function counted(accounts: Accounts): SourceAccount[] {
  return accounts.sources.filter((source) => source.counted);
}

/** Messages of all sources that count them. */
export function messages(accounts: Accounts): Equation {
  const sum: Equation = { received: 0, stored: 0, accounted: 0, difference: 0 };
  for (const source of counted(accounts)) {
    sum.received += source.received;
    sum.stored += source.accepted;
    sum.accounted += source.rejected + source.ignored + source.dropped;
    sum.difference += source.difference_messages;
  }
  return sum;
}

/** Rows (readings, events, dead letters) that those sources handed over. */
export function rows(accounts: Accounts): Equation {
  const sum: Equation = { received: 0, stored: 0, accounted: 0, difference: 0 };
  for (const source of counted(accounts)) {
    for (const stream of source.rows) {
      sum.received += stream.handed_over;
      sum.stored += stream.found;
      sum.accounted += accountedRows(stream);
      sum.difference += stream.difference;
    }
  }
  return sum;
}

/** Why something is not stored as it came: source, reason, how many of what. */
export function reasons(accounts: Accounts): { source: string; reason: string; count: number; unit: string }[] {
  const found: { source: string; reason: string; count: number; unit: string }[] = [];
  for (const source of counted(accounts)) {
    for (const [reason, count] of [
      ["rejected: became dead letters", source.rejected],
      ["ignored: nothing in them to store", source.ignored],
      ["dropped", source.dropped],
    ] as const) {
      if (count !== 0) found.push({ source: source.source, reason, count, unit: "messages" });
    }
    for (const stream of source.rows) {
      for (const reason of REASONS) {
        if (stream[reason] !== 0) {
          found.push({ source: source.source, reason: MEANING[reason], count: stream[reason], unit: `rows of ${stream.stream}` });
        }
      }
    }
  }
  return found;
}

const MEANING: Record<(typeof REASONS)[number], string> = {
  evicted: "evicted by retention",
  quarantined: "quarantined as damaged",
  cut: "cut from a torn end",
  lost: "lost with a segment",
  conflict: "refused as a conflict",
};

/** Sources whose account does not close, with what is missing. */
export function openDifferences(accounts: Accounts | null): OpenDifference[] {
  if (accounts === null) return [];
  const found: OpenDifference[] = [];
  for (const source of accounts.sources) {
    const open = source.rows.filter((stream) => stream.difference !== 0).map((stream) => `${integer(stream.difference)} rows of ${stream.stream}`);
    if (source.difference_messages !== 0) open.push(`${integer(source.difference_messages)} messages`);
    if (open.length > 0) found.push({ source: source.source, what: `${open.join(", ")} neither stored nor accounted for` });
  }
  if (found.length === 0 && !accounts.closes) {
    // A producer that does not say what it received: its rows are missed in their stream.
    found.push({ source: "the log", what: "rows of a stream neither stored nor accounted for" });
  }
  return found;
}
