import { describe, expect, it } from "vitest";
import { closedRows, isFlood, newRows, openCount, openRows, seriesOf, unacknowledgedCount, valueText } from "../src/model/alarms";
import type { Alarm } from "../src/model/contract";

function alarm(alert: string, change: Partial<Alarm> = {}): Alarm {
  return {
    alert,
    state: "open",
    priority: 3,
    subject: `${alert}/power`,
    text: "above 90",
    condition: "above 90",
    flow: "hot",
    since_ms: 0,
    opened_ms: 1000,
    updated_ms: 1000,
    closed_ms: null,
    value: 91,
    limit: 90,
    worst: 92,
    unit: "kW",
    place: null,
    device: null,
    group: null,
    note: null,
    members: [],
    count: 0,
    standing: 0,
    suppressed: 0,
    watched: true,
    annunciation: "unacknowledged",
    acknowledged: null,
    stream: "alarms",
    ...change,
  };
}

const ids = (rows: { alarm: Alarm }[]): string[] => rows.map((row) => row.alarm.alert);

describe("open alarms", () => {
  it("are in order of priority, then the newest first", () => {
    const found = openRows([
      alarm("old", { opened_ms: 1 }),
      alarm("new", { opened_ms: 9 }),
      alarm("urgent", { priority: 1, opened_ms: 0 }),
      alarm("over", { state: "closed", closed_ms: 5 }),
      alarm("orphan", { priority: 1, watched: false }),
    ]);
    expect(ids(found)).toEqual(["urgent", "new", "old", "orphan"]);
  });

  it("that somebody has acknowledged stand behind those that nobody has", () => {
    const acknowledged = { by: "ada", at_ms: 5, note: null };
    const found = openRows([alarm("seen", { priority: 1, acknowledged }), alarm("new", { priority: 3 }), alarm("orphan", { priority: 1, watched: false })]);
    expect(ids(found)).toEqual(["new", "seen", "orphan"]);
    expect(unacknowledgedCount({ revision: 1, open: [1, 0, 1], more: 0, opened_10min: 0, alarms: [], unacknowledged: [0, 0, 1] })).toBe(1);
  });

  it("of a group stand in the row of the group, while that is open", () => {
    const group = alarm("g", { count: 7, standing: 7, opened_ms: 5 });
    const member = alarm("m", { group: "g", priority: 1 });
    expect(openRows([member, group])).toEqual([{ alarm: group, inside: [member] }]);
    expect(ids(openRows([member, { ...group, state: "closed" }]))).toEqual(["m"]);
  });

  it("do not move while their order is held, and those that came are counted", () => {
    const held = ["b", "a"];
    const now = [alarm("a", { opened_ms: 1 }), alarm("b", { opened_ms: 2, state: "closed", closed_ms: 9 }), alarm("c", { priority: 1 })];
    expect(ids(openRows(now, held))).toEqual(["b", "a"]);
    expect(newRows(now, held)).toBe(1);
    expect(newRows(now, null)).toBe(0);
  });

  it("are counted by the node, those that are not listed among them", () => {
    expect(openCount(null)).toBe(0);
    expect(openCount({ revision: 1, open: [1, 2, 300], more: 203, opened_10min: 0, alarms: [], unacknowledged: [1, 0, 7] })).toBe(303);
  });
});

describe("closed alarms", () => {
  it("are told the last one first", () => {
    const found = closedRows([alarm("a", { state: "closed", closed_ms: 1 }), alarm("b"), alarm("c", { state: "closed", closed_ms: 3 })]);
    expect(found.map((one) => one.alert)).toEqual(["c", "a"]);
    const group = alarm("g", { state: "closed", closed_ms: 9, count: 4 });
    expect(closedRows([...found, alarm("m", { state: "closed", closed_ms: 8, group: "g" }), group]).map((one) => one.alert)).toEqual(["g", "c", "a"]);
  });
});

describe("a flood", () => {
  it("begins with ten alarms in ten minutes and lasts until there are fewer than five", () => {
    expect(isFlood(9, false)).toBe(false);
    expect(isFlood(10, false)).toBe(true);
    expect(isFlood(5, true)).toBe(true);
    expect(isFlood(4, true)).toBe(false);
  });
});

describe("an alarm", () => {
  it("tells its value in its unit, and a dash where there is none", () => {
    expect(valueText(91.239, "kW")).toBe("91.24\u00a0kW");
    expect(valueText(null, "kW")).toBe("—");
  });

  it("leads to the chart of its series, and a group or a device to none", () => {
    expect(seriesOf(alarm("a"))).toBe("a/power");
    expect(seriesOf(alarm("g", { count: 3 }))).toBeNull();
    expect(seriesOf(alarm("d", { subject: "meter-7", device: "meter-7" }))).toBeNull();
  });
});
