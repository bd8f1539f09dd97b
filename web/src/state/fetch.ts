/** Requests to the node's HTTP interface, relative to the page's own address. */
import type { AcknowledgeAnswer, MediumWindowsAnswer, Overview, ReadingsAnswer, SeriesAnswer, SeriesWindowsAnswer } from "../model/contract";
import { token } from "./token";

/** What the node (or the way to it) answered instead of data. */
export class RequestFailure extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly reference: string | null,
  ) {
    super(message);
  }
}

const TIMEOUT_MS = 15_000;

function get<Answer>(path: string, query: Record<string, string | number>, abort?: AbortSignal): Promise<Answer> {
  const address = new URL(`api/v1/${path}`, document.baseURI);
  for (const [name, value] of Object.entries(query)) address.searchParams.set(name, String(value));
  return ask(address, {}, {}, abort);
}

function post<Answer>(path: string, body: object): Promise<Answer> {
  const address = new URL(`api/v1/${path}`, document.baseURI);
  return ask(address, { method: "POST", body: JSON.stringify(body) }, { "Content-Type": "application/json" });
}

async function ask<Answer>(address: URL, how: RequestInit, more: Record<string, string>, abort?: AbortSignal): Promise<Answer> {
  const headers: Record<string, string> = { Accept: "application/json", ...more };
  if (token.peek() !== null) headers["Authorization"] = `Bearer ${token.peek()}`;
  const limit = AbortSignal.timeout(TIMEOUT_MS);
  let response: Response;
  try {
    response = await fetch(address, { ...how, headers, cache: "no-store", signal: abort ? AbortSignal.any([abort, limit]) : limit });
  } catch (problem) {
    if (abort?.aborted) throw problem;
    throw new RequestFailure(0, limit.aborted ? `no answer within ${TIMEOUT_MS / 1000} s` : "the node cannot be reached", null);
  }
  if (response.ok) return (await response.json()) as Answer;
  let message = `${response.status} ${response.statusText}`;
  let reference: string | null = null;
  try {
    const body = (await response.json()) as { error?: string; detail?: string; reference?: string };
    message = [body.error, body.detail].filter(Boolean).join(": ") || message;
    reference = body.reference ?? null;
  } catch {
    // Not JSON: the status line has to do.
  }
  throw new RequestFailure(response.status, message, reference);
}

export const fetchOverview = (): Promise<Overview> => get("overview", {});

/** Durable when it answers. */
export const acknowledgeAlarms = (alerts: readonly string[], by: string, note: string): Promise<AcknowledgeAnswer> =>
  post("alarms/acknowledge", { alerts, by, note });

export const searchSeries = (match: string, limit: number, abort?: AbortSignal): Promise<SeriesAnswer> =>
  get("series", { match, limit }, abort);

export const fetchReadings = (series: string, from: number, to: number, points: number): Promise<ReadingsAnswer> =>
  get("readings", { series, from: Math.floor(from), to: Math.ceil(to), max_points: points });

export const fetchSeriesWindows = (stream: string, series: string, from: number, to: number): Promise<SeriesWindowsAnswer> =>
  get("windows", { stream, series, from: Math.floor(from), to: Math.ceil(to) });

export const fetchMediumWindows = (stream: string, medium: string, from: number, to: number): Promise<MediumWindowsAnswer> =>
  get("windows", { stream, medium, from: Math.floor(from), to: Math.ceil(to) });
