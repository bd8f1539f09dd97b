/** The ledger: received = stored + accounted for, exact; what nobody can count as time ranges; any difference an alarm. */
import type { JSX } from "preact";
import { useSignal } from "@preact/signals";
import { Badge } from "../components/badge";
import { Panel } from "../components/panel";
import type { Accounts } from "../model/contract";
import { messages, reasons, rows, type Equation } from "../model/ledger";
import { integer } from "../model/number";
import { clock, moment, utc } from "../model/time";
import { now, overview, zone } from "../state/store";

const UNKNOWN_SHOWN = 3;

export function LedgerPanel(): JSX.Element | null {
  const open = useSignal(false);
  const current = overview.value;
  if (current === null || current.accounts === undefined) return null;
  const accounts = current.accounts;
  if (accounts === null) {
    return (
      <Panel id="ledger" title="Ledger">
        <p class="muted">The log is being counted for the first time.</p>
      </Panel>
    );
  }
  return (
    <Panel id="ledger" title="Ledger" note={<Closing accounts={accounts} />}>
      <EquationLine name="messages" first="received" equation={messages(accounts)} open={open.value} toggle={() => (open.value = !open.value)} />
      <EquationLine name="rows" first="handed over" equation={rows(accounts)} open={open.value} toggle={() => (open.value = !open.value)} />
      {open.value ? <Reasons accounts={accounts} /> : null}
      <Unknown accounts={accounts} />
    </Panel>
  );
}

function Closing({ accounts }: { accounts: Accounts }): JSX.Element {
  if (accounts.closes) return <span class="muted">closes, counted {clock(accounts.at_ms, zone.value)}</span>;
  return (
    <span class="state-abnormal">
      <Badge priority={1} /> does not close
    </span>
  );
}

interface LineProps {
  name: string;
  first: string;
  equation: Equation;
  open: boolean;
  toggle: () => void;
}

function EquationLine({ name, first, equation, open, toggle }: LineProps): JSX.Element {
  const { received, stored, accounted, difference } = equation;
  return (
    <p class="equation" id={`ledger-${name}`}>
      <span class="equation-name muted">{name}</span>
      <span class="equation-sum">
        <span class="equation-term">
          <span class="muted">{first} </span>
          <strong data-raw={received}>{integer(received)}</strong>
        </span>{" "}
        <span class="equation-term">
          <span class="muted">= stored </span>
          <strong data-raw={stored}>{integer(stored)}</strong>
        </span>{" "}
        <span class="equation-term">
          +{" "}
          <button type="button" class="link" aria-expanded={open} aria-controls="ledger-reasons" onClick={toggle}>
            accounted {integer(accounted)}
          </button>
        </span>
        {difference !== 0 ? (
          <>
            {" "}
            <span class="equation-term state-abnormal">
              + <Badge priority={1} /> missing {integer(difference)}
            </span>
          </>
        ) : null}
      </span>
    </p>
  );
}

function Reasons({ accounts }: { accounts: Accounts }): JSX.Element {
  const found = reasons(accounts);
  return (
    <div id="ledger-reasons">
      {found.length === 0 ? (
        <p class="muted">Everything that was received is stored.</p>
      ) : (
        <ul class="reasons" aria-label="What is accounted for">
          {found.map((one) => (
            <li key={`${one.source} ${one.reason} ${one.unit}`}>
              <span>
                {one.source}: {one.reason}
              </span>
              <span class="part-figure">
                {integer(one.count)} <span class="muted">{one.unit}</span>
              </span>
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}

function Unknown({ accounts }: { accounts: Accounts }): JSX.Element | null {
  const found = accounts.sources
    .flatMap((source) => source.unknown.map((range) => ({ ...range, source: source.source })))
    .sort((a, b) => b.to_ms - a.to_ms);
  if (found.length === 0) return null;
  return (
    <ul class="reasons unknown" aria-label="Of unknown size">
      {found.slice(0, UNKNOWN_SHOWN).map((range) => (
        <li key={`${range.source} ${range.from_ms}`}>
          <span title={range.reason}>
            {range.source}: unknown from{" "}
            <time dateTime={utc(range.from_ms)}>{moment(range.from_ms, now.value, zone.value)}</time> to{" "}
            <time dateTime={utc(range.to_ms)}>{moment(range.to_ms, now.value, zone.value)}</time>, {range.reason}
          </span>
        </li>
      ))}
      {found.length > UNKNOWN_SHOWN ? <li class="muted">{integer(found.length - UNKNOWN_SHOWN)} more</li> : null}
    </ul>
  );
}
