import { describe, expect, it } from "vitest";
import { conditions } from "../src/model/abnormal";
import type { Overview } from "../src/model/contract";
import { isSuspect, qualityText } from "../src/model/quality";

const NOW = 1_795_439_108_000;

function overview(change: Partial<Overview> = {}): Overview {
  return {
    node: { name: "n", timezone: "UTC", version: "0", started_ms: 0 },
    now_ms: NOW,
    power: [],
    fresh: { fresh: 44, total: 44, oldest_age_s: 3 },
    counts: { received: 9, stored: 9, dead_letters: 0, late: 0, revisions: 0, ahead: 0, duplicates: 0, invalid: 0, events: 0 },
    sources: [],
    flows: [],
    log: { bytes: 0, segments: 1, state: "ok", durable_age_s: 0 },
    dead_letters: [],
    ...change,
  };
}

describe("abnormal conditions", () => {
  it("are none in normal operation: there is no OK", () => {
    expect(conditions(overview(), null)).toEqual([]);
  });

  it("put a full journal before all else", () => {
    const found = conditions(
      overview({ log: { bytes: 1, segments: 1, state: "full", durable_age_s: 9 }, fresh: { fresh: 40, total: 44, oldest_age_s: 99 } }),
      null,
    );
    expect(found.map((condition) => condition.priority)).toEqual([1, 3]);
  });

  it("name a source that does not run, with its error and since when", () => {
    const source = { name: "city", type: "mqtt", address: "a", state: "restarting", since_ms: 7, last_error: "refused", received: 0, readings: 0, dead_letters: 0, rate_per_s: 0, connections: 0, last_reading_ms: null };
    expect(conditions(overview({ sources: [source] }), null)).toMatchObject([{ priority: 2, text: "Source city restarting", detail: "refused", since_ms: 7 }]);
  });

  it("alarm at a ledger that does not close, and at a process that is down", () => {
    const whole = { stream: "readings", handed_over: 10, found: 8, evicted: 2, quarantined: 0, cut: 0, lost: 0, conflict: 0, difference: 0 };
    const account = { source: "field", counted: true, since_ms: 0, received: 10, accepted: 9, rejected: 1, ignored: 0, dropped: 0, difference_messages: 0, rows: [whole], unknown: [] };
    const closing = { at_ms: NOW, closes: true, sources: [account] };
    expect(conditions(overview({ accounts: closing }), null)).toEqual([]);
    const open = { ...closing, closes: false, sources: [{ ...account, rows: [{ ...whole, found: 5, difference: 3 }] }] };
    expect(conditions(overview({ accounts: open }), null)).toMatchObject([
      { priority: 1, text: "Ledger of field does not close", detail: "3 rows of readings neither stored nor accounted for", target: "ledger" },
    ]);
    expect(conditions(overview({ accounts: { ...closing, closes: false } }), null)).toMatchObject([{ priority: 1, text: "Ledger of the log does not close" }]);
    const part = { name: "flows", pid: null, state: "backoff", since_ms: 5, restarts: 1, last_error: "killed by signal 9" };
    expect(conditions(overview({ parts: [part] }), null)).toMatchObject([{ priority: 2, text: "Process flows backoff", detail: "killed by signal 9" }]);
  });

  it("tell all stale from some stale", () => {
    expect(conditions(overview({ fresh: { fresh: 0, total: 44, oldest_age_s: 99 } }), null)).toMatchObject([{ priority: 2, text: "All series stale" }]);
    expect(conditions(overview({ fresh: { fresh: 43, total: 44, oldest_age_s: 99 } }), null)).toMatchObject([{ priority: 3, text: "1 series stale" }]);
  });

  it("count dead letters of the last five minutes only", () => {
    const letter = { time_ms: NOW - 10_000, source: "field", topic: "t", reason: "r", payload: "", payload_bytes: 0 };
    const counts = { ...overview().counts, dead_letters: 500 };
    expect(conditions(overview({ dead_letters: [{ ...letter, time_ms: NOW - 301_000 }], counts }), null)).toEqual([]);
    const two = [letter, { ...letter, time_ms: NOW - 301_000 }];
    expect(conditions(overview({ dead_letters: two, counts }), null)[0]?.text).toBe("1 dead letter in 5\u00a0min");
    const many = Array.from({ length: 20 }, () => letter);
    expect(conditions(overview({ dead_letters: many, counts }), null)[0]?.text).toBe("20+ dead letters in 5\u00a0min");
    const baseline = { at_ms: NOW - 300_000, counts: { ...counts, dead_letters: 458 } };
    expect(conditions(overview({ dead_letters: [letter], counts }), baseline)[0]?.text).toBe("42 dead letters in 5\u00a0min");
  });

  it("see a wrong clock by the rise of its counter", () => {
    const counts = { ...overview().counts, ahead: 12 };
    expect(conditions(overview({ counts }), { at_ms: 0, counts })).toEqual([]);
    expect(conditions(overview({ counts }), { at_ms: 0, counts: { ...counts, ahead: 2 } })[0]?.text).toBe("10 readings ahead of the clock in 5\u00a0min");
  });
});

describe("quality in words", () => {
  it("names validity, origin and flags", () => {
    expect(qualityText(0)).toBe("good");
    expect(qualityText(1)).toBe("questionable");
    expect(qualityText(3)).toBe("invalid");
    expect(qualityText(0x0008 | 0x0080)).toBe("good, estimated, clock wrong");
    expect(qualityText(0x0200)).toBe("good, time of arrival");
  });

  it("calls suspect what must not be taken at face value", () => {
    expect(isSuspect(0)).toBe(false);
    expect(isSuspect(0x0100)).toBe(false);
    expect(isSuspect(1)).toBe(true);
    expect(isSuspect(0x0080)).toBe(true);
  });
});
