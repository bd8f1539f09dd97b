import { describe, expect, it } from "vitest";
import { Track, type Row } from "../src/state/tracks";

const MINUTE = 60_000;
const row = (minute: number, mean: number, more: Partial<Row> = {}): Row => ({
  start: minute * MINUTE,
  end: (minute + 1) * MINUTE,
  values: [mean],
  count: 6,
  revision: 0,
  quality: 0,
  replaced: null,
  ...more,
});

function loaded(rows: Row[]): Track {
  const track = new Track(1);
  track.merge(rows, 0, 100 * MINUTE, MINUTE);
  return track;
}

describe("a track", () => {
  it("breaks the line and names the gap where windows are missing", () => {
    const plot = loaded([row(0, 1), row(1, 2), row(5, 3), row(6, 4)]).plot(0, 7 * MINUTE);
    expect(plot.y[0]).toEqual([1, 2, null, 3, 4]);
    expect(plot.gaps).toEqual([[2 * MINUTE, 5 * MINUTE]]);
  });

  it("keeps the line over one late window, up to 2.5 intervals", () => {
    const plot = loaded([row(0, 1), row(2, 2)]).plot(0, 3 * MINUTE);
    expect(plot.y[0]).toEqual([1, 2]);
    expect(plot.gaps).toEqual([]);
  });

  it("reports the time since the last window as a gap once it is too long", () => {
    const track = loaded([row(0, 1), row(1, 2)]);
    expect(track.plot(0, 4 * MINUTE).gaps).toEqual([]);
    expect(track.plot(0, 6 * MINUTE).gaps).toEqual([[2 * MINUTE, 6 * MINUTE]]);
  });

  it("replaces a window by its later revision and remembers the mean that stood before", () => {
    const track = loaded([row(0, 10), row(1, 20)]);
    track.put(row(1, 21, { revision: 1 }));
    const plot = track.plot(0, 3 * MINUTE);
    expect(plot.y[0]).toEqual([10, 21]);
    expect(plot.rows[1]).toMatchObject({ revision: 1, replaced: 20 });
  });

  it("is not set back by an earlier revision that arrives late", () => {
    const track = loaded([row(0, 10, { revision: 2 })]);
    track.put(row(0, 9, { revision: 1 }));
    expect(track.plot(0, MINUTE).y[0]).toEqual([10]);
  });

  it("puts rows in time order however they come", () => {
    const track = loaded([row(0, 1)]);
    track.put(row(2, 3));
    track.put(row(1, 2));
    expect(track.plot(0, 3 * MINUTE).y[0]).toEqual([1, 2, 3]);
  });

  it("keeps live rows that are newer than the answer of a request under way", () => {
    const track = loaded([row(0, 1)]);
    track.put(row(3, 4));
    track.merge([row(0, 1), row(1, 2), row(2, 3)], 0, 4 * MINUTE, MINUTE);
    expect(track.plot(0, 4 * MINUTE).y[0]).toEqual([1, 2, 3, 4]);
  });

  it("never turns a missing value into a number", () => {
    const plot = loaded([row(0, 1), row(1, 0, { values: [null] }), row(2, 3)]).plot(0, 3 * MINUTE);
    expect(plot.y[0]).toEqual([1, null, 3]);
  });

  it("does not draw the newest sum while most of its series are still to come, and marks it as partial", () => {
    const track = new Track(1, true);
    track.merge([row(0, 100, { count: 50 }), row(1, 101, { count: 50 }), row(2, 30, { count: 15 })], 0, 9 * MINUTE, MINUTE);
    const plot = track.plot(0, 3 * MINUTE);
    expect(plot.y[0]).toEqual([100, 101, null]);
    expect(plot.partial).toEqual([[2 * MINUTE, 3 * MINUTE]]);
    track.put(row(2, 99, { count: 50 }));
    expect(track.plot(0, 3 * MINUTE).y[0]).toEqual([100, 101, 99]);
    expect(track.plot(0, 3 * MINUTE).partial).toEqual([]);
  });

  it("keeps an earlier sum over fewer series in the line, marked as partial", () => {
    const track = new Track(1, true);
    const counts = [50, 30, 50, 50, 50, 50];
    track.merge(counts.map((count, minute) => row(minute, 2 * count, { count })), 0, 9 * MINUTE, MINUTE);
    const plot = track.plot(0, 6 * MINUTE);
    expect(plot.y[0]).toEqual([100, 60, 100, 100, 100, 100]);
    expect(plot.partial).toEqual([[MINUTE, 2 * MINUTE]]);
  });

  it("measures coverage by the series that are fresh now when no window is complete yet", () => {
    const track = new Track(1, true);
    track.expected = 2000;
    track.merge([row(0, 3.5, { count: 12 })], 0, 9 * MINUTE, MINUTE);
    expect(track.plot(0, 2 * MINUTE).y[0]).toEqual([null]);
    expect(track.plot(0, 2 * MINUTE).partial).toEqual([[0, MINUTE]]);
  });

  it("joins neighbouring suspect readings to one span", () => {
    const plot = loaded([row(0, 1), row(1, 2, { quality: 1 }), row(2, 3, { quality: 0x80 }), row(3, 4)]).plot(0, 4 * MINUTE);
    expect(plot.suspect).toEqual([[MINUTE, 3 * MINUTE]]);
  });
});
