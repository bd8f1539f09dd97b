/** The access token of this tab, where the node asks for one. It leaves the browser towards this node only. */
import { signal } from "@preact/signals";

const KEY = "ringmain.token";

function stored(): string | null {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null;
  }
}

export const token = signal<string | null>(stored());

/** Keep a token for this tab, or forget it. */
export function keepToken(value: string | null): void {
  token.value = value;
  try {
    if (value === null) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, value);
  } catch {
    // Storage can be switched off; the token then lives as long as the page.
  }
}
