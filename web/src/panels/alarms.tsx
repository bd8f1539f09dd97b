/** The alarms: open ones first by priority, a group with its members as one row, and what closed last. */
import { signal, useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { AcknowledgedBy, Acknowledging } from "../components/acknowledging";
import { Badge } from "../components/badge";
import { Panel } from "../components/panel";
import { closedRows, newRows, openCount, openRows, seriesOf, STANDING_MS, unacknowledgedCount, valueText, type Row } from "../model/alarms";
import type { Alarm } from "../model/contract";
import { age, integer } from "../model/number";
import { moment, utc } from "../model/time";
import { alarms, flood, now, zone } from "../state/store";
import { selected, toggleSeries } from "../state/view";

const SHOWN = 8;
const CLOSED_SHOWN = 2;

const RESTING_MS = 5_000;

/** The order of the rows while the pointer moves among them, and a little longer. */
const held = signal<string[] | null>(null);
let resting = 0;

function letGo(): void {
  clearTimeout(resting);
  held.value = null;
}

function hold(): void {
  if (held.peek() === null) held.value = openRows(alarms.peek()?.alarms ?? []).map((row) => row.alarm.alert);
  clearTimeout(resting);
  resting = window.setTimeout(letGo, RESTING_MS);
}

export function AlarmsPanel(): JSX.Element | null {
  const all = useSignal(false);
  const current = alarms.value;
  if (current === null) return null;
  const rows = openRows(current.alarms, held.value);
  const fresh = newRows(current.alarms, held.value);
  const listed = all.value ? rows : rows.slice(0, SHOWN);
  const hidden = rows.length - listed.length;
  return (
    <Panel id="alarms" title="Alarms" note={<Counts />}>
      <div onPointerMove={hold} onPointerLeave={letGo}>
        {rows.length === 0 ? (
          <p class="muted">No alarm is open.</p>
        ) : (
          <ul class="alarms" aria-label="Open alarms">
            {listed.map((row) => (
              <OpenAlarm key={row.alarm.alert} row={row} />
            ))}
          </ul>
        )}
        {fresh > 0 ? <p class="muted alarms-new">{integer(fresh)} more came meanwhile; they are shown when the pointer rests or leaves.</p> : null}
        {current.more > 0 ? <p class="muted">{integer(current.more)} more open alarms are not listed here.</p> : null}
        {hidden > 0 || all.value ? (
          <button type="button" class="small" aria-expanded={all.value} onClick={() => (all.value = !all.value)}>
            {all.value ? "fewer" : `${integer(hidden)} more open`}
          </button>
        ) : null}
        <Closed found={closedRows(current.alarms)} />
      </div>
    </Panel>
  );
}

function Counts(): JSX.Element {
  const current = alarms.value;
  const open = openCount(current);
  const unacknowledged = unacknowledgedCount(current);
  return (
    <>
      {flood.value ? <strong>flood</strong> : null}
      <span class={open === 0 ? "muted" : ""}>{open === 0 ? "none open" : `${integer(open)} open`}</span>
      {unacknowledged > 0 ? <span>{integer(unacknowledged)} unacknowledged</span> : null}
      <span class="muted">{integer(current?.opened_10min ?? 0)} in 10{"\u00a0"}min</span>
    </>
  );
}

function OpenAlarm({ row }: { row: Row }): JSX.Element {
  const { alarm } = row;
  const open = useSignal(false);
  const over = alarm.state === "closed";
  return (
    <li class={over ? "alarm alarm-over" : alarm.acknowledged ? "alarm" : "alarm unacknowledged"} data-alert={alarm.alert}>
      <Badge priority={alarm.priority} />
      <div class="alarm-body">
        <div class="alarm-line">
          <Subject alarm={alarm} />
          <When at_ms={alarm.opened_ms} />
        </div>
        <div class="alarm-line">
          <span class="alarm-text">{alarm.text}</span>
          {alarm.value !== null ? <Figures alarm={alarm} /> : null}
        </div>
        <Remarks alarm={alarm} />
        <AcknowledgedBy alarm={alarm} />
        <Acknowledging alarm={alarm} />
        {alarm.count > 0 ? (
          <>
            <button type="button" class="small" aria-expanded={open.value} onClick={() => (open.value = !open.value)}>
              {integer(alarm.standing)} of {integer(alarm.count)} still open
            </button>
            {open.value ? <Members alarm={alarm} inside={row.inside} /> : null}
          </>
        ) : null}
      </div>
    </li>
  );
}

function Subject({ alarm }: { alarm: Alarm }): JSX.Element {
  const key = seriesOf(alarm);
  if (key === null) return <strong class="alarm-subject">{alarm.subject}</strong>;
  return (
    <button type="button" class="link alarm-subject" aria-pressed={selected.value.includes(key)} title={`chart of ${key}`} onClick={() => toggleSeries(key)}>
      {alarm.subject}
    </button>
  );
}

function Figures({ alarm }: { alarm: Alarm }): JSX.Element {
  const worst = alarm.worst !== null && alarm.worst !== alarm.value ? `, worst ${valueText(alarm.worst, alarm.unit)}` : "";
  return (
    <span class="part-figure" data-raw={alarm.value ?? undefined} title={alarm.limit === null ? undefined : `limit ${valueText(alarm.limit, alarm.unit)}`}>
      {valueText(alarm.value, alarm.unit)}
      <span class="muted">{worst}</span>
    </span>
  );
}

function When({ at_ms }: { at_ms: number }): JSX.Element {
  return (
    <time class="condition-since muted" dateTime={utc(at_ms)} title={utc(at_ms)}>
      {moment(at_ms, now.value, zone.value)}, {age(Math.max(0, (now.value - at_ms) / 1000))}
    </time>
  );
}

/** What else an operator has to know: where, and what makes the alarm unlike others. */
function Remarks({ alarm }: { alarm: Alarm }): JSX.Element | null {
  const found = [
    alarm.place !== null && alarm.place !== alarm.subject ? alarm.place : null,
    alarm.note,
    alarm.state === "closed" ? "closed" : null,
    alarm.state === "open" && now.value - alarm.opened_ms >= STANDING_MS ? "standing" : null,
    alarm.watched ? null : `nobody watches it any more: flow ${alarm.flow} is not running`,
  ].filter((text) => text !== null);
  return found.length > 0 ? <div class="muted alarm-remarks">{found.join(", ")}</div> : null;
}

function Members({ alarm, inside }: { alarm: Alarm; inside: Alarm[] }): JSX.Element {
  const told = new Set(inside.map((member) => member.alert));
  const rest = alarm.members.filter((member) => !told.has(member.alert));
  const unlisted = alarm.count - alarm.members.length;
  return (
    <ul class="alarm-members" aria-label={`Alerts in ${alarm.subject}`}>
      {inside.map((member) => (
        <li key={member.alert}>
          <Subject alarm={member} /> <Figures alarm={member} />
        </li>
      ))}
      {rest.map((member) => (
        <li key={member.alert}>{member.subject}</li>
      ))}
      {unlisted > 0 ? <li class="muted">{integer(unlisted)} more</li> : null}
    </ul>
  );
}

function Closed({ found }: { found: Alarm[] }): JSX.Element | null {
  const all = useSignal(false);
  if (found.length === 0) return null;
  const listed = all.value ? found : found.slice(0, CLOSED_SHOWN);
  return (
    <>
      <h3 class="alarms-closed muted">Closed</h3>
      <ul class="alarms" aria-label="Closed alarms">
        {listed.map((alarm) => (
          <li key={alarm.alert} class="alarm alarm-over" data-alert={alarm.alert}>
            <span class="alarm-priority muted">{alarm.priority}</span>
            <div class="alarm-body">
              <div class="alarm-line">
                <Subject alarm={alarm} />
                <time class="condition-since muted" dateTime={utc(alarm.closed_ms ?? 0)} title={utc(alarm.closed_ms ?? 0)}>
                  {moment(alarm.closed_ms ?? 0, now.value, zone.value)}, after {age(Math.max(0, ((alarm.closed_ms ?? 0) - alarm.opened_ms) / 1000))}
                </time>
              </div>
              <div class="alarm-line">
                <span class="alarm-text">{alarm.text}</span>
                {alarm.worst !== null ? <span class="part-figure muted">worst {valueText(alarm.worst, alarm.unit)}</span> : null}
                <Acknowledging alarm={alarm} />
              </div>
              {alarm.note !== null ? <div class="muted alarm-remarks">{alarm.note}</div> : null}
              <AcknowledgedBy alarm={alarm} />
            </div>
          </li>
        ))}
      </ul>
      {found.length > CLOSED_SHOWN ? (
        <button type="button" class="small" aria-expanded={all.value} onClick={() => (all.value = !all.value)}>
          {all.value ? "fewer" : `${integer(found.length - CLOSED_SHOWN)} more closed`}
        </button>
      ) : null}
    </>
  );
}
