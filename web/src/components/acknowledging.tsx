/** That somebody takes care of an alarm: who did, and the form to say so. Nothing is shown as done before the node says it is. */
import { signal, useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import type { Alarm } from "../model/contract";
import { moment, utc } from "../model/time";
import { acknowledgeAlarms, RequestFailure } from "../state/fetch";
import { isCut, now, zone } from "../state/store";

const NAME = "ringmain.operator";
const NAME_CHARACTERS_MAX = 100;
const NOTE_CHARACTERS_MAX = 500;

function stored(): string {
  try {
    return localStorage.getItem(NAME) ?? "";
  } catch {
    return "";
  }
}

/** What the person at this browser calls themselves. */
const operator = signal(stored());

function keepName(name: string): void {
  operator.value = name;
  try {
    localStorage.setItem(NAME, name);
  } catch {
    // Storage can be switched off; the name then lives as long as the page.
  }
}

/** Who acknowledged it, when, and what they added. */
export function AcknowledgedBy({ alarm }: { alarm: Alarm }): JSX.Element | null {
  const told = alarm.acknowledged;
  if (told === null) return null;
  return (
    <div class="muted alarm-remarks">
      acknowledged by {told.by}, <time dateTime={utc(told.at_ms)} title={utc(told.at_ms)}>{moment(told.at_ms, now.value, zone.value)}</time>
      {told.note === null ? "" : `: ${told.note}`}
    </div>
  );
}

/** The button of an alarm that nobody has acknowledged, and the form that it opens. */
export function Acknowledging({ alarm }: { alarm: Alarm }): JSX.Element | null {
  const open = useSignal(false);
  if (alarm.acknowledged !== null) return null;
  if (open.value) return <Form alarm={alarm} close={() => (open.value = false)} />;
  return (
    <button
      type="button"
      class="small acknowledge"
      disabled={isCut.value}
      aria-label={`Acknowledge ${alarm.subject}`}
      onClick={() => (open.value = true)}
    >
      Acknowledge
    </button>
  );
}

function Form({ alarm, close }: { alarm: Alarm; close: () => void }): JSX.Element {
  const name = useSignal(operator.peek());
  const note = useSignal("");
  const sending = useSignal(false);
  const failed = useSignal<string | null>(null);
  const form = useRef<HTMLFormElement>(null);
  useEffect(() => form.current?.querySelectorAll("input")[name.peek() === "" ? 0 : 1]?.focus(), []);
  const send = async (event: Event): Promise<void> => {
    event.preventDefault();
    sending.value = true;
    failed.value = null;
    try {
      const answer = await acknowledgeAlarms([alarm.alert], name.value, note.value);
      keepName(name.value.trim());
      if (answer.unknown.length > 0) failed.value = "the node does not know this alarm any more";
      // The row changes when the node tells the alarm as acknowledged.
    } catch (problem) {
      failed.value = problem instanceof RequestFailure ? problem.message : String(problem);
      sending.value = false;
    }
  };
  return (
    <form
      ref={form}
      class="acknowledging"
      aria-label={`Acknowledge ${alarm.subject}`}
      onSubmit={(event) => void send(event)}
      onKeyDown={(event) => (event.key === "Escape" ? close() : undefined)}
    >
      <label>
        Your name
        <input
          type="text"
          value={name.value}
          maxLength={NAME_CHARACTERS_MAX}
          required
          autocomplete="name"
          onInput={(event) => (name.value = event.currentTarget.value)}
        />
      </label>
      <label>
        Note
        <input
          type="text"
          value={note.value}
          maxLength={NOTE_CHARACTERS_MAX}
          autocomplete="off"
          onInput={(event) => (note.value = event.currentTarget.value)}
        />
      </label>
      <div class="acknowledging-buttons">
        <button type="submit" class="small" disabled={sending.value || isCut.value || name.value.trim() === ""}>
          {sending.value ? "sending" : "Acknowledge"}
        </button>
        <button type="button" class="small" onClick={close}>
          Cancel
        </button>
      </div>
      {failed.value !== null ? (
        <p role="alert" class="acknowledging-failed">
          Not acknowledged: {failed.value}
        </p>
      ) : null}
    </form>
  );
}
