/** The page's live regions: new abnormal conditions, gathered for 5 s; assertive for priority 1 only. */
import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect } from "preact/hooks";
import { openRows } from "../model/alarms";
import type { Alarms } from "../model/contract";
import { abnormal, alarms } from "../state/store";

const GATHER_MS = 5_000;

/** Open alarms as what is to be announced: each once, a group as one. */
function alarmConditions(known: Alarms | null): { id: string; priority: number; text: string }[] {
  return openRows(known?.alarms ?? []).map(({ alarm }) => ({
    id: alarm.alert,
    priority: alarm.priority,
    text: `alarm, ${alarm.subject}: ${alarm.text}`,
  }));
}

export function Announcer(): JSX.Element {
  const polite = useSignal("");
  const assertive = useSignal("");
  useEffect(() => {
    let known = new Set<string>();
    const timer = setInterval(() => {
      const current = [...alarmConditions(alarms.peek()), ...abnormal.peek()];
      const fresh = current.filter((condition) => !known.has(condition.id));
      known = new Set(current.map((condition) => condition.id));
      if (fresh.length === 0) return;
      const text = fresh.map((condition) => `Priority ${condition.priority}: ${condition.text}`).join(". ");
      if (fresh.some((condition) => condition.priority === 1)) assertive.value = text;
      else polite.value = text;
    }, GATHER_MS);
    return () => clearInterval(timer);
  }, []);
  return (
    <div class="sr-only">
      <div aria-live="polite">{polite.value}</div>
      <div aria-live="assertive">{assertive.value}</div>
    </div>
  );
}
