/** The parts at work: sources with their connections, flows with their lag, the newest dead letters. */
import type { JSX } from "preact";
import { Badge } from "../components/badge";
import { Empty, Panel } from "../components/panel";
import type { DeadLetter, FlowStatus, PartStatus, SourceStatus } from "../model/contract";
import { age, bytes, decimals, integer, significant } from "../model/number";
import { moment, utc } from "../model/time";
import { now, older, overview, zone } from "../state/store";

/** Normal is a plain grey word; anything else carries a shape as well. */
function State({ state }: { state: string }): JSX.Element {
  if (state === "running") return <span class="muted">running</span>;
  return (
    <span class="state-abnormal">
      <Badge priority={2} /> {state}
    </span>
  );
}

export function SourcesPanel(): JSX.Element | null {
  const current = overview.value;
  if (current === null) return null;
  return (
    <Panel id="sources" title="Sources and flows" note={<JournalState />}>
      {current.sources.length === 0 ? (
        <Empty>No source is configured. Add one under [sources] and start the node again.</Empty>
      ) : (
        <ul class="parts" aria-label="Sources">
          {current.sources.map((source) => (
            <SourceRow key={source.name} source={source} />
          ))}
        </ul>
      )}
      <Flows flows={current.flows} />
      <Processes parts={current.parts ?? []} />
    </Panel>
  );
}

function JournalState(): JSX.Element {
  const { log } = overview.value!;
  if (log.state === "ok") return <span class="muted">journal durable {age(older(log.durable_age_s))} ago</span>;
  return (
    <span class="state-abnormal">
      <Badge priority={1} /> journal {log.state}
    </span>
  );
}

function SourceRow({ source }: { source: SourceStatus }): JSX.Element {
  const last = source.last_reading_ms === null ? null : (now.value - source.last_reading_ms) / 1000;
  return (
    <li class="part">
      <div class="part-line">
        <strong>{source.name}</strong>
        <State state={source.state} />
        <span class="part-figure">
          {source.rate_per_s === null ? "—" : significant(source.rate_per_s, 3)}
          <span class="muted"> /s</span>
        </span>
      </div>
      <div class="part-line muted">
        <span>
          {source.type} {(source.address ?? "").replace(/^mqtts?:\/\//, "")}
          {source.connections !== null ? `, ${integer(source.connections)} ${source.connections === 1 ? "connection" : "connections"}` : ""}
        </span>
        <span class="part-figure">last {last === null ? "—" : age(last)}</span>
      </div>
    </li>
  );
}

function Flows({ flows }: { flows: FlowStatus[] }): JSX.Element {
  if (flows.length === 0) return <Empty>No flow is configured; there are no windows then.</Empty>;
  return (
    <ul class="parts parts-flows" id="flows" aria-label="Flows">
      {flows.map((flow) => (
        <FlowRow key={flow.name} flow={flow} />
      ))}
    </ul>
  );
}

/** Lag in seconds with one decimal while it is small. */
function lag(seconds: number | null): string {
  if (seconds === null) return "—";
  if (seconds < 0.1) return "<\u00a00.1\u00a0s";
  return seconds < 10 ? `${decimals(seconds, 1)}\u00a0s` : age(seconds);
}

function FlowRow({ flow }: { flow: FlowStatus }): JSX.Element {
  return (
    <li class="part">
      <div class="part-line">
        <strong>{flow.name}</strong>
        <State state={flow.state} />
        <span class="part-figure">
          <span class="muted">lag </span>
          {lag(flow.lag_s)}
        </span>
      </div>
      <div class="part-line muted">
        <span>flow to {flow.to}</span>
        <span class="part-figure">
          {integer(flow.rows)} rows, {integer(flow.revisions)} revisions
        </span>
      </div>
    </li>
  );
}

/** The node's processes, where it is more than one, or the one was started again. */
function Processes({ parts }: { parts: PartStatus[] }): JSX.Element | null {
  if (parts.length < 2 && parts.every((part) => part.restarts === 0 && part.state === "running")) return null;
  return (
    <ul class="parts parts-flows" id="processes" aria-label="Processes">
      {parts.map((part) => (
        <li key={part.name} class="part">
          <div class="part-line">
            <strong>{part.name}</strong>
            <State state={part.state} />
            <span class="part-figure muted">since {moment(part.since_ms, now.value, zone.value)}</span>
          </div>
          <div class="part-line muted">
            <span title={part.last_error ?? undefined}>
              {part.pid === null ? "no process" : `process ${part.pid}`}
              {part.last_error === null ? "" : `, ended before: ${part.last_error}`}
            </span>
            <span class="part-figure">
              {integer(part.restarts)} {part.restarts === 1 ? "restart" : "restarts"}
            </span>
          </div>
        </li>
      ))}
    </ul>
  );
}

export function LettersPanel(): JSX.Element | null {
  const current = overview.value;
  if (current === null) return null;
  const letters = current.dead_letters;
  return (
    <Panel
      id="letters"
      title="Dead letters"
      class="letters"
      note={<span class="muted">{letters.length === 0 ? "none" : `newest ${letters.length} of ${integer(current.counts.dead_letters)}`}</span>}
    >
      {letters.length === 0 ? (
        <p class="muted">{current.counts.received === 0 ? "No message has arrived yet." : "Every message became a reading."}</p>
      ) : (
        <ol class="letter-list" tabIndex={0} aria-label="Newest dead letters">
          {letters.map((letter, index) => (
            <Letter key={`${letter.time_ms} ${letter.topic} ${index}`} letter={letter} />
          ))}
        </ol>
      )}
    </Panel>
  );
}

function Letter({ letter }: { letter: DeadLetter }): JSX.Element {
  return (
    <li class="letter">
      <div class="letter-line">
        <time class="letter-time" dateTime={utc(letter.time_ms)} title={utc(letter.time_ms)}>
          {moment(letter.time_ms, now.value, zone.value)}
        </time>
        <span class="letter-topic">
          {letter.source} {letter.topic}
        </span>
        <span class="muted letter-size">{bytes(letter.payload_bytes)}</span>
      </div>
      <div class="letter-reason">{letter.reason}</div>
      <code class="letter-payload">{letter.payload === "" ? "(empty payload)" : printable(letter.payload)}</code>
    </li>
  );
}

/** Control characters as their Unicode pictures: a payload must not be able to hide or to move text. */
function printable(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2066-\u2069]/g, (character) => {
    const code = character.charCodeAt(0);
    return code < 0x20 ? String.fromCharCode(0x2400 + code) : "\ufffd";
  });
}
