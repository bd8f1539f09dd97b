import { describe, expect, it } from "vitest";
import { extent, HeldRange } from "../src/chart/scale";

describe("the vertical range", () => {
  it("expands at once, with ten per cent of headroom", () => {
    const range = new HeldRange();
    expect(range.update(0, 100, 0, false)).toEqual([-10, 110]);
    expect(range.update(0, 200, 1, false)).toEqual([-20, 220]);
  });

  it("shrinks only after 30 s below 60 %", () => {
    const range = new HeldRange();
    const wide = range.update(0, 100, 0, false);
    expect(range.update(40, 60, 1_000, false)).toEqual(wide);
    expect(range.update(40, 60, 30_000, false)).toEqual(wide);
    expect(range.update(40, 60, 31_000, false)).toEqual([38, 62]);
  });

  it("starts the 30 s again when the data fill the range in between", () => {
    const range = new HeldRange();
    const wide = range.update(0, 100, 0, false);
    range.update(40, 60, 1_000, false);
    range.update(5, 95, 20_000, false);
    expect(range.update(40, 60, 32_000, false)).toEqual(wide);
  });

  it("fits at once when asked", () => {
    const range = new HeldRange();
    range.update(0, 100, 0, false);
    range.fit();
    expect(range.update(40, 60, 1, false)).toEqual([38, 62]);
  });

  it("keeps zero in sight for power, without headroom below it", () => {
    expect(new HeldRange().update(50, 100, 0, true)).toEqual([0, 110]);
    expect(new HeldRange().update(-100, -50, 0, true)).toEqual([-110, 0]);
  });

  it("shows a constant value off the edges", () => {
    const [low, high] = new HeldRange().update(50, 50, 0, false);
    expect(low).toBeLessThan(50);
    expect(high).toBeGreaterThan(50);
  });

  it("knows no extent where there are no values", () => {
    expect(extent([[null, null], []])).toEqual([null, null]);
    expect(extent([[1, null, -3], [7]])).toEqual([-3, 7]);
  });
});
