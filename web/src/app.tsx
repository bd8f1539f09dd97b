/** The Overview: the whole utility on one screen. What is shown where, and what replaces it when there is nothing. */
import type { JSX } from "preact";
import { useEffect, useErrorBoundary } from "preact/hooks";
import { Skeleton } from "./components/panel";
import { clock } from "./model/time";
import { age } from "./model/number";
import { AlarmsPanel } from "./panels/alarms";
import { Announcer } from "./panels/announcer";
import { Header } from "./panels/header";
import { HelpDialog } from "./panels/help";
import { LedgerPanel } from "./panels/ledger";
import { Media } from "./panels/media";
import { LettersPanel, SourcesPanel } from "./panels/parts";
import { SeriesPanel } from "./panels/series";
import { SignIn } from "./panels/sign-in";
import { AbnormalPanel, CountsPanel, FreshnessPanel } from "./panels/status";
import { Toolbar } from "./panels/toolbar";
import { loadOverview, reconnectNow } from "./state/session";
import { selected } from "./state/view";
import { alarms, connection, isCut, now, overview, overviewProblem, zone } from "./state/store";

const PLACES = [
  ["abnormal", "Abnormal"],
  ["power", "Power"],
  ["series", "Series"],
  ["freshness", "Data"],
  ["sources", "Sources"],
] as const;
const PLACES_WITH_ALARMS = [["alarms", "Alarms"], ...PLACES.slice(1)] as const;

function Banner(): JSX.Element | null {
  const { state, since_ms, why } = connection.value;
  if (state !== "disconnected") return null;
  return (
    <div class="banner" role="alert">
      <svg viewBox="0 0 20 20" class="banner-mark" aria-hidden="true">
        <path d="M4 4l12 12M16 4L4 16" />
      </svg>
      <span>
        <strong>Disconnected</strong> since {clock(since_ms, zone.value)}
        {why ? ` (${why})` : ""}. All values are {age((now.value - since_ms) / 1000)} old or older. Trying again.
      </span>
      <button type="button" onClick={reconnectNow}>
        Try now
      </button>
    </div>
  );
}

function Waiting(): JSX.Element {
  const problem = overviewProblem.value;
  return (
    <div class="waiting panel">
      {problem === null ? (
        <Skeleton lines={6} />
      ) : (
        <div role="alert">
          <p>
            <strong>No data from the node:</strong> {problem.message}
          </p>
          <p class="muted">
            since {clock(problem.since_ms, zone.value)}
            {problem.reference ? `, reference ${problem.reference}` : ""}
          </p>
          <button type="button" onClick={() => void loadOverview()}>
            Retry
          </button>
        </div>
      )}
    </div>
  );
}

export function App(): JSX.Element {
  const [broken, reset] = useErrorBoundary((problem) => console.error(problem));
  const cut = isCut.value;
  const name = overview.value?.node.name;
  useEffect(() => {
    document.title = `${cut ? "✕ " : ""}${name ? `${name} – ` : ""}Ringmain`;
  }, [cut, name]);
  if (broken) {
    return (
      <main class="waiting panel">
        <p>
          <strong>The page failed to draw:</strong> {String(broken)}
        </p>
        <button type="button" onClick={reset}>
          Draw again
        </button>
      </main>
    );
  }
  if (connection.value.state === "unauthorised") {
    return (
      <>
        <Header />
        <SignIn />
      </>
    );
  }
  return (
    <div class={cut ? "page cut" : "page"}>
      <a class="skip" href="#main">
        Skip to the overview
      </a>
      <Header />
      <Banner />
      <main id="main" class="main">
        {overview.value === null ? (
          <Waiting />
        ) : (
          <>
            <div class={selected.value.length === 0 ? "left left-tall" : "left"}>
              <Toolbar />
              <Media />
              <SeriesPanel />
            </div>
            <div class="right">
              <AlarmsPanel />
              <AbnormalPanel />
              <FreshnessPanel />
              <LedgerPanel />
              <CountsPanel />
              <SourcesPanel />
              <LettersPanel />
            </div>
          </>
        )}
      </main>
      <nav class="bottom" aria-label="Parts of the page">
        {(alarms.value === null ? PLACES : PLACES_WITH_ALARMS).map(([id, text]) => (
          <a key={id} href={`#${id}`}>
            {text}
          </a>
        ))}
      </nav>
      <HelpDialog />
      <Announcer />
    </div>
  );
}
