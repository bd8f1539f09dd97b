/** The header of every page: node, connection, age of the oldest data, the utility's clock, search, help. */
import type { JSX } from "preact";
import { openCount, unacknowledgedCount } from "../model/alarms";
import { age, integer } from "../model/number";
import { clock, date, offsetText, utc } from "../model/time";
import { abnormal, alarms, connection, now, older, overview, zone } from "../state/store";
import { Badge } from "../components/badge";
import { SeriesSearch } from "./search";
import { openHelp } from "./help";

const WORDS = { connecting: "connecting", live: "live", disconnected: "disconnected", unauthorised: "not signed in" } as const;

/** Shape and word: a full dot while live, an open one while connecting, a cross when cut. */
function ConnectionMark(): JSX.Element {
  const { state, since_ms } = connection.value;
  return (
    <span class={`connection connection-${state}`} title={`${WORDS[state]} since ${clock(since_ms, zone.value)}`}>
      <svg viewBox="0 0 12 12" class="mark" aria-hidden="true">
        {state === "live" ? <circle cx="6" cy="6" r="4.5" class="mark-fill" /> : null}
        {state === "connecting" ? <circle cx="6" cy="6" r="4" class="mark-line" /> : null}
        {state === "disconnected" || state === "unauthorised" ? <path d="M2 2l8 8M10 2l-8 8" class="mark-line" /> : null}
      </svg>
      {WORDS[state]}
    </span>
  );
}

function AbnormalCounts(): JSX.Element | null {
  if (overview.value === null) return null;
  const found = abnormal.value;
  const unacknowledged = alarms.value?.unacknowledged ?? [];
  const open = openCount(alarms.value);
  const counted = ([1, 2, 3] as const).map(
    (priority) => [priority, found.filter((condition) => condition.priority === priority).length + (unacknowledged[priority - 1] ?? 0)] as const,
  );
  if (counted.every(([, count]) => count === 0)) {
    if (open === 0) return <span class="muted head-wide">nothing abnormal</span>;
    return (
      <a class="head-abnormal" href="#alarms">
        {integer(open)} acknowledged
      </a>
    );
  }
  return (
    <a class="head-abnormal" href={unacknowledgedCount(alarms.value) > 0 ? "#alarms" : "#abnormal"} title="what is abnormal, and alarms that nobody has acknowledged">
      <span class="sr-only">abnormal, and alarms that nobody has acknowledged:</span>
      {counted.map(([priority, count]) =>
        count > 0 ? (
          <span key={priority} class="head-count">
            <Badge priority={priority} /> {integer(count)}
          </span>
        ) : null,
      )}
    </a>
  );
}

export function Header(): JSX.Element {
  const current = overview.value;
  const at = now.value;
  return (
    <header class="head">
      <h1 class="head-name">
        <svg viewBox="0 0 32 32" class="head-mark" aria-hidden="true">
          <circle cx="16" cy="16" r="10" />
          <path d="M16 1v11M16 20v11" />
        </svg>
        <span class="head-product">Ringmain</span>
        <span class="head-node">{current?.node.name ?? ""}</span>
      </h1>
      <SeriesSearch />
      <div class="head-status">
        <AbnormalCounts />
        <ConnectionMark />
        <span class="head-oldest" title="age of the oldest latest value among all series">
          <span class="muted">
            oldest<span class="head-wide"> data</span>
          </span> {age(older(current?.fresh.oldest_age_s))}
        </span>
        <time class="head-clock" dateTime={utc(Math.floor(at / 1000) * 1000)} title={`${utc(Math.floor(at / 1000) * 1000)}, ${zone.value}`}>
          <span class="head-date">{date(at, zone.value)} </span>
          <span class="head-time">{clock(at, zone.value).slice(0, 8)}</span>{" "}
          <span class="muted">{offsetText(at, zone.value)}</span>
        </time>
        <button type="button" class="quiet" onClick={openHelp} aria-label="Keyboard help" aria-keyshortcuts="?">
          ?
        </button>
      </div>
    </header>
  );
}
