/**
 * Alarms as an operator reads them: what is open by priority and age, members under their group, what closed last.
 *
 * Rows never move under the pointer: while `held` is given, its order stays; what is new comes when it is let go.
 */
import type { Alarm, Alarms } from "./contract";
import { MISSING, significant } from "./number";

/** Alarms in ten minutes from which on it is a flood, and below which it no longer is (EEMUA 191). */
export const FLOOD_FROM = 10;
export const FLOOD_UNTIL = 5;
/** Open for so long without an end it is a standing alarm. */
export const STANDING_MS = 86_400_000;

export interface Row {
  alarm: Alarm;
  /** Alarms with events of their own that a group alarm stands for. */
  inside: Alarm[];
}

/** Open alarms in order: unacknowledged ones, by priority, the newest first, unwatched ones last; those of an open group are inside its row. */
export function openRows(alarms: readonly Alarm[], held: readonly string[] | null = null): Row[] {
  const open = alarms.filter((alarm) => alarm.state === "open");
  const groups = new Set(open.filter((alarm) => alarm.count > 0).map((alarm) => alarm.alert));
  const inside = (alarm: Alarm): boolean => alarm.group !== null && groups.has(alarm.group);
  const rows = open
    .filter((alarm) => !inside(alarm))
    .sort((a, b) => Number(b.watched) - Number(a.watched) || known(a) - known(b) || a.priority - b.priority || b.opened_ms - a.opened_ms || (a.alert < b.alert ? -1 : 1))
    .map((alarm) => ({ alarm, inside: alarm.count > 0 ? open.filter((other) => other.group === alarm.alert) : [] }));
  if (held === null) return rows;
  const byId = new Map(alarms.map((alarm) => [alarm.alert, alarm]));
  const found = new Map(rows.map((row) => [row.alarm.alert, row]));
  return held.flatMap((id) => {
    const alarm = byId.get(id);
    return alarm ? [found.get(id) ?? { alarm, inside: [] }] : [];
  });
}

const known = (alarm: Alarm): number => Number(alarm.acknowledged !== null);

/** How many open alarms came since the order was held. */
export function newRows(alarms: readonly Alarm[], held: readonly string[] | null): number {
  if (held === null) return 0;
  return openRows(alarms).filter((row) => !held.includes(row.alarm.alert)).length;
}

/** Alarms that closed, the last one first, without those that belong to a group. */
export function closedRows(alarms: readonly Alarm[]): Alarm[] {
  const groups = new Set(alarms.filter((alarm) => alarm.count > 0).map((alarm) => alarm.alert));
  const inside = (alarm: Alarm): boolean => alarm.group !== null && groups.has(alarm.group);
  return alarms
    .filter((alarm) => alarm.state === "closed" && !inside(alarm))
    .sort((a, b) => (b.closed_ms ?? 0) - (a.closed_ms ?? 0));
}

/** How many are open in all. */
export function openCount(alarms: Alarms | null): number {
  return alarms === null ? 0 : alarms.open.reduce((sum, count) => sum + count, 0);
}

/** How many of them nobody has acknowledged. */
export function unacknowledgedCount(alarms: Alarms | null): number {
  return alarms === null ? 0 : alarms.unacknowledged.reduce((sum, count) => sum + count, 0);
}

/** Whether it is a flood, given whether it was one before. */
export function isFlood(opened10min: number, before: boolean): boolean {
  return opened10min >= FLOOD_FROM || (before && opened10min >= FLOOD_UNTIL);
}

/** A value with its unit, four significant digits. */
export function valueText(value: number | null, unit: string | null): string {
  if (value === null) return MISSING;
  return unit === null ? significant(value, 4) : `${significant(value, 4)}\u00a0${unit}`;
}

/** What an alarm is about, as far as it can be shown as a chart. */
export function seriesOf(alarm: Alarm): string | null {
  return alarm.count > 0 || alarm.subject === alarm.device ? null : alarm.subject;
}
