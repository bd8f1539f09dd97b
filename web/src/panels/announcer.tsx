/** The page's live regions: new abnormal conditions, gathered for 5 s; assertive for priority 1 only. */
import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect } from "preact/hooks";
import { abnormal } from "../state/store";

const GATHER_MS = 5_000;

export function Announcer(): JSX.Element {
  const polite = useSignal("");
  const assertive = useSignal("");
  useEffect(() => {
    let known = new Set<string>();
    const timer = setInterval(() => {
      const current = abnormal.peek();
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
