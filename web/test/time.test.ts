import { describe, expect, it } from "vitest";
import { clock, date, instantOf, isRepeated, knownZone, moment, offsetText, quarterHoursOfDay, tickLabels, ticks, utc } from "../src/model/time";

const at = (text: string): number => Date.parse(text);
const HOUR = 3_600_000;

describe("local clocks", () => {
  it("shows the zone's time, not the browser's", () => {
    const instant = at("2026-11-23T13:05:09Z");
    expect(clock(instant, "UTC")).toBe("13:05:09");
    expect(clock(instant, "Europe/Berlin")).toBe("14:05:09");
    expect(clock(instant, "America/New_York")).toBe("08:05:09");
    expect(clock(instant, "Asia/Kolkata")).toBe("18:35:09");
  });

  it("writes offsets with a true minus sign and half hours", () => {
    const instant = at("2026-11-23T13:05:09Z");
    expect(offsetText(instant, "UTC")).toBe("+00:00");
    expect(offsetText(instant, "Europe/Berlin")).toBe("+01:00");
    expect(offsetText(instant, "America/New_York")).toBe("\u221205:00");
    expect(offsetText(instant, "Asia/Kolkata")).toBe("+05:30");
  });

  it("shows the offset beside both passes of the hour that autumn repeats", () => {
    expect(clock(at("2026-10-25T00:30:00Z"), "Europe/Berlin")).toBe("02:30:00 +02:00");
    expect(clock(at("2026-10-25T01:30:00Z"), "Europe/Berlin")).toBe("02:30:00 +01:00");
    expect(clock(at("2026-11-01T05:15:00Z"), "America/New_York")).toBe("01:15:00 \u221204:00");
    expect(clock(at("2026-11-01T06:15:00Z"), "America/New_York")).toBe("01:15:00 \u221205:00");
  });

  it("shows no offset outside the repeated hour, not even at its edges", () => {
    expect(clock(at("2026-10-24T23:59:59Z"), "Europe/Berlin")).toBe("01:59:59");
    expect(clock(at("2026-10-25T02:00:00Z"), "Europe/Berlin")).toBe("03:00:00");
    expect(isRepeated(at("2026-03-29T01:00:00Z"), "Europe/Berlin")).toBe(false);
    expect(isRepeated(at("2026-10-25T00:30:00Z"), "Asia/Kolkata")).toBe(false);
    expect(isRepeated(at("2026-10-25T00:30:00Z"), "UTC")).toBe(false);
  });

  it("gives the date only for another day than today", () => {
    const now = at("2026-11-23T13:00:00Z");
    expect(moment(at("2026-11-23T00:00:00Z"), now, "Europe/Berlin")).toBe("01:00:00");
    expect(moment(at("2026-11-22T22:59:59Z"), now, "Europe/Berlin")).toBe("2026-11-22 23:59:59");
    expect(date(at("2026-11-22T23:00:00Z"), "Europe/Berlin")).toBe("2026-11-23");
  });

  it("falls back to UTC for a zone that the browser does not know", () => {
    expect(knownZone("Europe/Berlin")).toBe("Europe/Berlin");
    expect(knownZone("Mars/Olympus")).toBe("UTC");
  });

  it("drops zero fractions from UTC stamps only", () => {
    expect(utc(at("2026-11-23T13:05:09Z"))).toBe("2026-11-23T13:05:09Z");
    expect(utc(at("2026-11-23T13:05:09.250Z"))).toBe("2026-11-23T13:05:09.250Z");
  });
});

describe("calendar days", () => {
  it("counts 92 and 100 quarter-hours on the days of a clock change", () => {
    expect(quarterHoursOfDay(at("2026-03-29T10:00:00Z"), "Europe/Berlin")).toBe(92);
    expect(quarterHoursOfDay(at("2026-10-25T10:00:00Z"), "Europe/Berlin")).toBe(100);
    expect(quarterHoursOfDay(at("2026-03-08T15:00:00Z"), "America/New_York")).toBe(92);
    expect(quarterHoursOfDay(at("2026-11-01T15:00:00Z"), "America/New_York")).toBe(100);
  });

  it("counts 96 on every other day and in zones without clock changes", () => {
    expect(quarterHoursOfDay(at("2026-11-23T10:00:00Z"), "Europe/Berlin")).toBe(96);
    expect(quarterHoursOfDay(at("2026-10-25T10:00:00Z"), "Asia/Kolkata")).toBe(96);
    expect(quarterHoursOfDay(at("2026-03-29T10:00:00Z"), "UTC")).toBe(96);
  });

  it("takes the first of two passes and the moment after a skipped hour", () => {
    expect(utc(instantOf(at("2026-10-25T02:30:00Z"), "Europe/Berlin"))).toBe("2026-10-25T00:30:00Z");
    expect(utc(instantOf(at("2026-03-29T02:30:00Z"), "Europe/Berlin"))).toBe("2026-03-29T01:30:00Z");
    expect(utc(instantOf(at("2026-11-23T00:00:00Z"), "Asia/Kolkata"))).toBe("2026-11-22T18:30:00Z");
  });
});

describe("axis ticks", () => {
  it("stand on round local times, also where the offset is half an hour", () => {
    const found = ticks(at("2026-11-23T04:10:00Z"), at("2026-11-23T10:10:00Z"), 6, "Asia/Kolkata");
    expect(tickLabels(found, "Asia/Kolkata")).toEqual(["10:00", "11:00", "12:00", "13:00", "14:00", "15:00"]);
  });

  it("show both passes of the repeated hour with their offsets, an hour apart", () => {
    const found = ticks(at("2026-10-24T23:00:00Z"), at("2026-10-25T03:00:00Z"), 4, "Europe/Berlin");
    expect(tickLabels(found, "Europe/Berlin")).toEqual(["01:00", "02:00\n+02:00", "02:00\n+01:00", "03:00", "04:00"]);
    for (let index = 1; index < found.length; index += 1) expect(found[index]! - found[index - 1]!).toBe(HOUR);
  });

  it("skip the hour that spring skips", () => {
    const found = ticks(at("2026-03-29T00:00:00Z"), at("2026-03-29T03:00:00Z"), 3, "Europe/Berlin");
    expect(tickLabels(found, "Europe/Berlin")).toEqual(["01:00", "03:00", "04:00", "05:00"]);
  });

  it("come back to round local times after a clock change", () => {
    const found = ticks(at("2026-03-28T20:00:00Z"), at("2026-03-29T12:00:00Z"), 6, "Europe/Berlin");
    expect(tickLabels(found, "Europe/Berlin")).toEqual(["21:00", "03-29", "03:00", "06:00", "09:00", "12:00"]);
  });

  it("stand on local midnights over several days, clock change or not", () => {
    const found = ticks(at("2026-10-23T12:00:00Z"), at("2026-10-27T12:00:00Z"), 4, "Europe/Berlin");
    expect(found.map((tick) => clock(tick, "Europe/Berlin", false))).toEqual(["00:00", "00:00", "00:00", "00:00"]);
    expect(tickLabels(found, "Europe/Berlin")).toEqual(["10-24", "10-25", "10-26", "10-27"]);
  });

  it("never run backwards or away, whatever the span", () => {
    for (const zone of ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Asia/Kathmandu"]) {
      for (const span of [2_000, 60_000, 900_000, HOUR, 6 * HOUR, 24 * HOUR, 30 * 24 * HOUR]) {
        const from = at("2026-10-24T22:17:31Z");
        const found = ticks(from, from + span, 6, zone);
        expect(found.length).toBeLessThanOrEqual(8);
        for (let index = 0; index < found.length; index += 1) {
          expect(found[index]).toBeGreaterThanOrEqual(index === 0 ? from : found[index - 1]! + 1);
          expect(found[index]).toBeLessThanOrEqual(from + span);
        }
      }
    }
  });
});
