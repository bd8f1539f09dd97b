import { describe, expect, it } from "vitest";
import { formatView, parseView, zoom } from "../src/state/view";
import { retryDelayMs } from "../src/state/socket";

describe("the view in the address", () => {
  it("survives a round trip", () => {
    for (const address of ["", "?range=1h", "?show=raw&series=a/b&series=c", "?from=2026-10-25T00:00:00.000Z&to=2026-10-25T02:00:00.000Z&stream=readings.15m"]) {
      expect(formatView(parseView(address))).toBe(address);
    }
  });

  it("keeps keys with any character", () => {
    const series = ["a&b=c", "straße/zähler 7", "100%/p", "#1?"];
    const view = { ...parseView(""), series };
    expect(parseView(formatView(view)).series).toEqual(series);
  });

  it("falls back to the default for what it cannot read", () => {
    for (const address of ["?range=7y", "?from=yesterday&to=now", "?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "?show=pie&series="]) {
      expect(parseView(address)).toEqual(parseView(""));
    }
  });

  it("bounds and deduplicates the selected series", () => {
    const query = Array.from({ length: 30 }, (_, n) => `series=s${n % 12}`).join("&");
    expect(parseView(`?${query}`).series).toEqual(["s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7"]);
  });
});

describe("zoom", () => {
  const from = 0;
  const to = 900_000;
  const now = 900_000;

  it("in stops following the present and keeps the centre in place", () => {
    expect(zoom(0.5, 450_000, from, to, now)).toEqual({ kind: "fixed", from: 225_000, to: 675_000 });
    expect(zoom(0.5, 900_000, from, to, now)).toEqual({ kind: "fixed", from: 450_000, to: 900_000 });
  });

  it("out as far as the present follows it again", () => {
    expect(zoom(2, 450_000, from, to, now)).toEqual({ kind: "last", name: "1h" });
    expect(zoom(2, 300_000, 200_000, 400_000, now)).toEqual({ kind: "fixed", from: 100_000, to: 500_000 });
  });

  it("ends at two seconds", () => {
    const range = zoom(0.5, 1000, 0, 3000, now);
    expect(range.kind === "fixed" && range.to - range.from).toBe(2000);
  });
});

describe("reconnecting", () => {
  it("waits from 0.5 to 10 s, longer each time, never in step with others", () => {
    for (let attempt = 0; attempt < 20; attempt += 1) {
      for (const random of [0, 0.5, 0.999]) {
        const delay = retryDelayMs(attempt, random);
        expect(delay).toBeGreaterThanOrEqual(500);
        expect(delay).toBeLessThanOrEqual(10_000);
      }
      expect(retryDelayMs(attempt + 1, 0.5)).toBeGreaterThanOrEqual(retryDelayMs(attempt, 0.5));
    }
    expect(retryDelayMs(3, 0.9)).not.toBe(retryDelayMs(3, 0.1));
  });
});
