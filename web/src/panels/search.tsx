/**
 * Series search in the header: asked of the node while typing, drawn as a virtual list, driven by the keyboard.
 *
 * A combobox after the ARIA practices: focus stays in the field, arrows move the active option, Enter selects
 * (or gives up) a series, Escape closes.
 */
import { signal, useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import type { SeriesAnswer, SeriesEntry } from "../model/contract";
import { age, integer, quantity } from "../model/number";
import { RequestFailure, searchSeries } from "../state/fetch";
import { noteAnswer } from "../state/session";
import { latestOf, now } from "../state/store";
import { selected, toggleSeries } from "../state/view";

const DEBOUNCE_MS = 80;
const LIMIT = 200;
const OVERSCAN = 6;

export const searchOpen = signal(false);
let field: HTMLInputElement | null = null;

/** Put the keyboard into the search field. */
export function focusSearch(): void {
  field?.focus();
  field?.select();
  searchOpen.value = true;
}

interface Found {
  match: string;
  answer: SeriesAnswer;
}

export function SeriesSearch(): JSX.Element {
  const text = useSignal("");
  const found = useSignal<Found | null>(null);
  const problem = useSignal<string | null>(null);
  const active = useSignal(0);
  const notice = useSignal<string | null>(null);
  const top = useSignal(0);
  const list = useRef<HTMLDivElement>(null);
  const box = useRef<HTMLDivElement>(null);
  // Enter was pressed before the answer to what is typed had come: it holds for the first of that answer.
  const chooseFirst = useRef(false);
  const rowHeight = matchMedia("(max-width: 760px)").matches ? 52 : 44;

  const choose = (entry: SeriesEntry | undefined): void => {
    if (!entry) return;
    notice.value = toggleSeries(entry.key);
    // The chart of a series just selected comes into view behind the list.
    requestAnimationFrame(() => {
      const cards = document.querySelectorAll(".series-card");
      if (selected.peek().includes(entry.key)) cards[cards.length - 1]?.scrollIntoView({ block: "nearest" });
    });
  };

  useEffect(() => {
    if (!searchOpen.value) return;
    const abort = new AbortController();
    const match = text.value.trim();
    const timer = setTimeout(() => {
      searchSeries(match, LIMIT, abort.signal).then(
        (answer) => {
          noteAnswer(answer.series);
          found.value = { match, answer };
          problem.value = null;
          active.value = 0;
          top.value = 0;
          if (list.current) list.current.scrollTop = 0;
          if (chooseFirst.current) choose(answer.series[0]);
          chooseFirst.current = false;
        },
        (failure: unknown) => {
          if (abort.signal.aborted) return;
          problem.value = failure instanceof RequestFailure ? failure.message : String(failure);
        },
      );
    }, found.peek() === null ? 0 : DEBOUNCE_MS);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [text.value, searchOpen.value]);

  useEffect(() => {
    const outside = (event: PointerEvent): void => {
      if (!box.current?.contains(event.target as Node)) searchOpen.value = false;
    };
    addEventListener("pointerdown", outside);
    return () => removeEventListener("pointerdown", outside);
  }, []);

  const entries = found.value?.answer.series ?? [];
  const move = (to: number): void => {
    if (entries.length === 0) return;
    const index = Math.max(0, Math.min(entries.length - 1, to));
    active.value = index;
    const view = list.current;
    if (!view) return;
    if (index * rowHeight < view.scrollTop) view.scrollTop = index * rowHeight;
    else if ((index + 1) * rowHeight > view.scrollTop + view.clientHeight) view.scrollTop = (index + 1) * rowHeight - view.clientHeight;
  };
  const page = Math.max(1, Math.floor((list.current?.clientHeight ?? 400) / rowHeight) - 1);
  const onKeyDown = (event: KeyboardEvent): void => {
    const keys: Record<string, () => void> = {
      ArrowDown: () => move(searchOpen.peek() ? active.peek() + 1 : 0),
      ArrowUp: () => move(active.peek() - 1),
      PageDown: () => move(active.peek() + page),
      PageUp: () => move(active.peek() - page),
      Enter: () => {
        if (found.peek()?.match === text.peek().trim()) choose(entries[active.peek()]);
        else chooseFirst.current = true;
      },
      Escape: () => {
        chooseFirst.current = false;
        searchOpen.value = false;
        field?.blur();
      },
    };
    const action = keys[event.key];
    if (!action) return;
    event.preventDefault();
    if (event.key !== "Escape") searchOpen.value = true;
    action();
  };

  const first = Math.max(0, Math.floor(top.value / rowHeight) - OVERSCAN);
  const visible = Math.ceil((list.current?.clientHeight || 500) / rowHeight) + 2 * OVERSCAN;
  const open = searchOpen.value;
  return (
    <div
      class="search"
      ref={box}
      role="search"
      onFocusOut={(event) => {
        if (event.relatedTarget && !box.current?.contains(event.relatedTarget as Node)) searchOpen.value = false;
      }}
    >
      <input
        ref={(element) => {
          field = element;
        }}
        class="search-field"
        type="text"
        role="combobox"
        aria-label="Search series"
        aria-keyshortcuts="/"
        aria-expanded={open}
        aria-controls={open ? "search-list" : undefined}
        aria-autocomplete="list"
        aria-activedescendant={open && entries.length > 0 ? `option-${active.value}` : undefined}
        placeholder="Search series  /"
        autocomplete="off"
        spellcheck={false}
        value={text.value}
        onInput={(event) => {
          text.value = event.currentTarget.value;
          searchOpen.value = true;
        }}
        onFocus={() => (searchOpen.value = true)}
        onClick={() => (searchOpen.value = true)}
        onKeyDown={onKeyDown}
      />
      {open ? (
        <div class="search-panel">
          <p class="search-count" role="status">
            {problem.value !== null ? `Search failed: ${problem.value}` : countText(found.value)}
            {notice.value !== null ? <strong> {notice.value}</strong> : null}
          </p>
          <div
            id="search-list"
            class="search-list"
            role="listbox"
            aria-label="Series"
            aria-multiselectable="true"
            tabIndex={-1}
            ref={list}
            onScroll={(event) => (top.value = event.currentTarget.scrollTop)}
          >
            {entries.length > 0 ? <div class="search-space" role="presentation" style={{ height: `${entries.length * rowHeight}px` }} /> : null}
            {entries.slice(first, first + visible).map((entry, offset) => (
              <Option
                key={entry.key}
                entry={entry}
                index={first + offset}
                size={entries.length}
                active={first + offset === active.value}
                height={rowHeight}
                choose={() => {
                  active.value = first + offset;
                  choose(entry);
                  field?.focus();
                }}
              />
            ))}
          </div>
          {found.value !== null && entries.length === 0 ? <NoMatch found={found.value} /> : null}
        </div>
      ) : null}
    </div>
  );
}

function countText(found: Found | null): string {
  if (found === null) return "asking the node";
  const { total, of, series } = found.answer;
  const more = series.length < total ? `, the first ${integer(series.length)} listed: type more to narrow down` : "";
  return `${integer(total)} of ${integer(of)} series${more}`;
}

function NoMatch({ found }: { found: Found }): JSX.Element {
  return (
    <p class="empty">
      {found.answer.of === 0
        ? "The catalogue is empty: no reading has arrived yet."
        : `No series matches "${found.match}". Try part of a device or a place.`}
    </p>
  );
}

interface OptionProps {
  entry: SeriesEntry;
  index: number;
  size: number;
  active: boolean;
  height: number;
  choose: () => void;
}

function Option({ entry, index, size, active, height, choose }: OptionProps): JSX.Element {
  const last = latestOf(entry.key).value ?? entry.last;
  const chosen = selected.value.includes(entry.key);
  const about = [entry.medium, entry.quantity, entry.place, entry.device].filter(Boolean).join(" · ");
  return (
    <div
      id={`option-${index}`}
      class={`option${active ? " option-active" : ""}`}
      role="option"
      aria-selected={chosen}
      aria-setsize={size}
      aria-posinset={index + 1}
      style={{ top: `${index * height}px`, height: `${height}px` }}
      onMouseDown={(event) => event.preventDefault()}
      onClick={choose}
    >
      <span class="option-mark" aria-hidden="true">
        {chosen ? "✓" : ""}
      </span>
      <span class="option-key">{entry.key}</span>
      <span class="option-value">{last ? quantity(last.value, entry.unit, 3) : "—"}</span>
      <span class="option-about muted">{about || "not described"}</span>
      <span class="option-age muted">{last ? age((now.value - last.time_ms) / 1000) : "no value"}</span>
    </div>
  );
}
