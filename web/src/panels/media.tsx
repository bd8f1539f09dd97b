/**
 * Is supply meeting demand? One card a medium: its balance as a diagram, and the newest windows as a chart.
 *
 * The residual is what load and generation leave; it is shown as such and never split into flows that nobody
 * measured. Arrows stand still; their width follows the power, their direction is also a word.
 */
import { useRef } from "preact/hooks";
import type { JSX } from "preact";
import type { MediumPower } from "../model/contract";
import { age, integer, prefixFor, significant, unitText, type Prefix } from "../model/number";
import { isSuspect, qualityText } from "../model/quality";
import { Empty, Panel } from "../components/panel";
import { Value } from "../components/value";
import { ChartFigure } from "../chart/figure";
import type { ChartSettings } from "../chart/plot";
import { loadMedium, MEDIUM_COLUMNS, mediumTrack, stream } from "../state/session";
import { older, overview } from "../state/store";

const NAMES: Record<string, string> = { electricity: "Electricity", heat: "Heat", gas: "Gas", water: "Water" };

const ORDER = Object.keys(NAMES);

/** Media in the order in which utilities name them; unknown ones last. */
function place(medium: string): number {
  const at = ORDER.indexOf(medium);
  return at < 0 ? ORDER.length : at;
}

const SETTINGS: ChartSettings = {
  lines: [
    { name: "load", colour: 1 },
    { name: "generation", colour: 2, dash: [8, 3] },
    { name: "residual", colour: 3, dash: [2, 3] },
  ],
  band: null,
  zero: true,
  labels: true,
};

export function Media(): JSX.Element | null {
  const power = overview.value?.power ?? [];
  const measured = power.filter((medium) => medium.series > 0).sort((a, b) => place(a.medium) - place(b.medium));
  if (overview.value === null) return null;
  if (measured.length === 0) {
    return (
      <Panel id="power" title="Power" class="media-empty">
        <Empty>
          <p>
            <strong>No power is measured yet.</strong> The balance needs series of the quantity "power" with a medium; they come from the
            catalogue file or the mapping.
          </p>
          <NextStep />
        </Empty>
      </Panel>
    );
  }
  return (
    <div class={`media media-${Math.min(measured.length, 4)}`} id="power">
      {measured.map((medium) => (
        <MediumCard key={medium.medium} power={medium} />
      ))}
    </div>
  );
}

/** How to send a first reading, with the address that this node listens on. */
function NextStep(): JSX.Element | null {
  const listener = overview.value?.sources.find((source) => source.type === "mqtt-listener" && source.address);
  if (!listener) return null;
  const [host, port] = (listener.address ?? "").replace(/^\w+:\/\//, "").split(":");
  return (
    <p>
      Send one: <code>{`mosquitto_pub -h ${host} -p ${port ?? "1883"} -q 1 -t meters/m1/power -m '{"t": ${Math.floor(Date.now() / 1000)}, "v": 230}'`}</code>
    </p>
  );
}

function MediumCard({ power }: { power: MediumPower }): JSX.Element {
  const held = useRef<Prefix | undefined>(undefined);
  const magnitude = Math.max(Math.abs(power.load_w ?? 0), Math.abs(power.generation_w ?? 0), Math.abs(power.residual_w ?? 0));
  const name = NAMES[power.medium] ?? power.medium;
  const track = mediumTrack(power.medium);
  // One prefix for the panel: the chart's, and until it has data, the same rule over the present figures.
  const prefix = track.prefix.value ?? prefixFor("W", magnitude / 2, held.current);
  held.current = prefix;
  const stale = power.fresh === 0;
  return (
    <Panel
      id={`medium-${power.medium}`}
      class="medium"
      title={
        <>
          {name} <span class="unit">[{unitText("W", prefix)}]</span>
        </>
      }
      note={
        <>
          {isSuspect(power.quality) ? <span class="word-abnormal">{qualityText(power.quality)}</span> : null}
          <span class={power.fresh < power.series ? "" : "muted"}>
            {power.fresh < power.series ? `${integer(power.fresh)} of ${integer(power.series)} series fresh` : `${integer(power.series)} series, all fresh`}
          </span>
          <span class="muted">oldest {age(older(power.oldest_age_s))}</span>
        </>
      }
    >
      <Balance power={power} prefix={prefix} name={name} stale={stale} />
      <ChartFigure
        title={`${name} power`}
        track={track}
        settings={SETTINGS}
        names={MEDIUM_COLUMNS}
        digits={3}
        counted="series"
        reload={() => void loadMedium(power.medium)}
        empty={
          stream.value === null ? (
            <Empty>No flow computes windows. Add [flows.minute] to the configuration.</Empty>
          ) : (
            <Empty>No closed window in this time yet. A window closes when its devices' time has passed its end.</Empty>
          )
        }
      />
    </Panel>
  );
}

interface BalanceProps {
  power: MediumPower;
  prefix: Prefix;
  name: string;
  stale: boolean;
}

interface Flow {
  name: string;
  word: string;
  watts: number | null;
  raw: number | null;
  measured: boolean;
}

function Balance({ power, prefix, name, stale }: BalanceProps): JSX.Element {
  const { load_w, generation_w, residual_w } = power;
  const oldest_age_s = older(power.oldest_age_s);
  const exporting = residual_w !== null && residual_w < 0;
  const residual: Flow = {
    name: "residual",
    word: residual_w === null ? "" : residual_w === 0 ? "balanced" : exporting ? "to export" : "to import",
    watts: residual_w === null ? null : Math.abs(residual_w),
    raw: residual_w,
    measured: false,
  };
  const supply: Flow[] = [
    { name: "own generation", word: "", watts: generation_w === null ? null : Math.abs(generation_w), raw: generation_w, measured: true },
    ...(exporting ? [] : [residual]),
  ];
  const use: Flow[] = [{ name: "load", word: "", watts: load_w, raw: load_w, measured: true }, ...(exporting ? [residual] : [])];
  const figure = (flow: Flow): JSX.Element => (
    <div key={flow.name} class={`flow flow-${flow.name === "load" ? "main" : "side"}`}>
      <span class="flow-name">
        {flow.name}
        {flow.word ? <span class="flow-word"> {flow.word}</span> : null}
      </span>
      <Value
        text={flow.watts === null ? "—" : `${significant(flow.watts / prefix.factor, 3)}\u00a0${unitText("W", prefix)}`}
        raw={flow.raw}
        stale={stale}
        age_s={oldest_age_s}
        size={flow.name === "load" ? "large" : "medium"}
      />
    </div>
  );
  return (
    <div class={`balance${exporting ? " balance-export" : ""}`}>
      <div class="balance-side">{supply.map(figure)}</div>
      <Diagram supply={supply} use={use} name={name} />
      <div class="balance-side balance-use">{use.map(figure)}</div>
    </div>
  );
}

const WIDTH = 150;
const HEIGHT = 88;
const LINE_MAX = 10;

/** Supply from the left to a busbar, use to the right; a dashed line is not measured. */
function Diagram({ supply, use, name }: { supply: Flow[]; use: Flow[]; name: string }): JSX.Element {
  const most = Math.max(1, ...[...supply, ...use].map((flow) => flow.watts ?? 0));
  const width = (flow: Flow): number => (flow.watts === null ? 0 : flow.watts === 0 ? 0.75 : Math.max(1.5, (flow.watts / most) * LINE_MAX));
  const height = (count: number, index: number): number => (count === 1 ? HEIGHT / 2 : index === 0 ? HEIGHT * 0.26 : HEIGHT * 0.76);
  const bus = WIDTH / 2;
  const line = (flow: Flow, y: number, from: number, to: number): JSX.Element | null => {
    const wide = width(flow);
    if (wide === 0) return null;
    const head = Math.max(5, wide * 0.95);
    return (
      <g key={flow.name} class={flow.measured ? "diagram-flow" : "diagram-flow diagram-residual"}>
        <line x1={from} x2={to - head - 1} y1={y} y2={y} stroke-width={wide} stroke-dasharray={flow.measured ? undefined : "5 3"} />
        {flow.watts === 0 ? null : <path d={`M${to - head - 1} ${y - head * 0.9}L${to - 1} ${y}L${to - head - 1} ${y + head * 0.9}Z`} />}
      </g>
    );
  };
  return (
    <svg class="diagram" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} aria-hidden="true" preserveAspectRatio="none">
      {supply.map((flow, index) => line(flow, height(supply.length, index), 0, bus - 3))}
      {use.map((flow, index) => line(flow, height(use.length, index), bus + 3, WIDTH))}
      <rect x={bus - 3} y={6} width={6} height={HEIGHT - 12} class="diagram-bus" data-medium={name} />
    </svg>
  );
}
