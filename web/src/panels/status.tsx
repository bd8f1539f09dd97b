/** What is abnormal, is the data current and complete: conditions, freshness, exact counts. */
import type { JSX } from "preact";
import { useSignal } from "@preact/signals";
import { Badge } from "../components/badge";
import { Panel } from "../components/panel";
import { age, bytes, integer, percent } from "../model/number";
import { clock } from "../model/time";
import { abnormal, older, overview, zone } from "../state/store";
import { toggleSeries, selected } from "../state/view";

export function AbnormalPanel(): JSX.Element | null {
  if (overview.value === null) return null;
  const found = abnormal.value;
  return (
    <Panel id="abnormal" title="Abnormal" note={<span class={found.length === 0 ? "muted" : ""}>{found.length === 0 ? "none" : found.length}</span>}>
      {found.length === 0 ? (
        <p class="muted">No condition asks for an action.</p>
      ) : (
        <ul class="conditions">
          {found.map((condition) => (
            <li key={condition.id}>
              <Badge priority={condition.priority} />
              <span class="condition-text">
                {condition.target ? <a href={`#${condition.target}`}>{condition.text}</a> : condition.text}
                {condition.detail ? <span class="condition-detail"> {condition.detail}</span> : null}
              </span>
              {condition.since_ms !== null ? <span class="condition-since muted">since {clock(condition.since_ms, zone.value)}</span> : null}
            </li>
          ))}
        </ul>
      )}
    </Panel>
  );
}

const STALE_SHOWN = 3;

export function FreshnessPanel(): JSX.Element | null {
  const all = useSignal(false);
  const current = overview.value;
  if (current === null) return null;
  const { fresh, total, oldest_age_s } = current.fresh;
  const stale = current.stale ?? [];
  const listed = all.value ? stale : stale.slice(0, STALE_SHOWN);
  return (
    <Panel
      id="freshness"
      title="Fresh"
      note={
        <>
          <span>
            <strong>{integer(fresh)}</strong> of {integer(total)} series
          </span>
          <strong>{percent(fresh, total)}</strong>
          <span class="muted">oldest {age(older(oldest_age_s))}</span>
        </>
      }
    >
      <svg class="fresh-bar" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">
        <rect x="0" y="0" width="100" height="6" class="fresh-all" />
        <rect x="0" y="0" width={total > 0 ? (fresh / total) * 100 : 0} height="6" class="fresh-part" />
      </svg>
      {listed.length > 0 ? (
        <ul class="stale-list" aria-label="Stale series, oldest first">
          {listed.map((series) => (
            <li key={series.key}>
              <button type="button" class="link" aria-pressed={selected.value.includes(series.key)} onClick={() => toggleSeries(series.key)}>
                {series.key}
              </button>
              <span class="stale-age">{age(older(series.age_s))}</span>
            </li>
          ))}
        </ul>
      ) : null}
      {stale.length > STALE_SHOWN ? (
        <button type="button" class="small" aria-expanded={all.value} onClick={() => (all.value = !all.value)}>
          {all.value ? "fewer" : `${stale.length - STALE_SHOWN} more stale`}
        </button>
      ) : null}
    </Panel>
  );
}

export function CountsPanel(): JSX.Element | null {
  const current = overview.value;
  if (current === null) return null;
  const { counts, log, node } = current;
  const rows: [string, number, string][] = [
    ["received", counts.received, "messages that the sources took in"],
    ["stored", counts.stored, "readings made durable"],
    ["dead letters", counts.dead_letters, "what could not become a reading; kept with its reason"],
    ["duplicates", counts.duplicates, "same series, time and value again; counted once"],
    ["late", counts.late, "readings that came after their window had closed"],
    ["revisions", counts.revisions, "windows computed again from the log"],
    ["ahead of clock", counts.ahead, "time too far ahead of arrival: flagged, outside windows"],
    ["invalid", counts.invalid, "readings whose source marks them invalid"],
    ["events", counts.events, "alarms, wills and other happenings"],
  ];
  return (
    <Panel id="counts" title="Counts" note={<span class="muted">since {clock(node.started_ms, zone.value)}</span>}>
      <dl class="counts">
        {rows.map(([name, count, meaning]) => (
          <div key={name} title={meaning}>
            <dt>{name}</dt>
            <dd data-raw={count}>{integer(count)}</dd>
          </div>
        ))}
        <div title="size of the journal on disk, age of the newest commit">
          <dt>journal</dt>
          <dd>{bytes(log.bytes)}</dd>
        </div>
      </dl>
    </Panel>
  );
}
