/** "Fit" for all charts at once. */
import { signal } from "@preact/signals";

export const fitRequests = signal(0);

export function fitAll(): void {
  fitRequests.value += 1;
}
