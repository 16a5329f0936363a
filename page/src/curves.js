// The curves of the chosen runs: one chart for each metric, one crosshair for all.
import { computed, effect, signal } from "@preact/signals";
import { html } from "htm/preact";
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import { get } from "./api.js";
import { at, chosen, go, place, view } from "./place.js";
import { rowsOf, world } from "./world.js";
import { colourOf, cut, dashOf, shown } from "./words.js";
import { metricsOf } from "./now.js";
import { theme } from "./theme.js";

const MOST = 40; // runs in a chart
const UNASKED = 8; // runs that are shown if nobody has chosen any
const WIDTH = 1000; // columns of pixels that the server thins to
const HEIGHT = 260;

const all = rowsOf("run");
const runs = computed(() => {
  const wanted = chosen.value.length
    ? all.value.filter((run) => chosen.value.includes(run.run_id))
    : all.value.filter((run) => Object.keys(run.metrics ?? {}).length).slice(0, UNASKED);
  return wanted.slice(0, MOST);
});
const metrics = computed(() => metricsOf(runs.value));
const axis = computed(() => place.value.x ?? "step");

// What was fetched, by run and metric: {position, points, count} or {position, wrong}.
const curves = signal(new Map());
let busy = false;

effect(() => {
  if (view.value === "curves" && world.value) fetchMissing();
});

// A curve is asked for again when its run has changed, one after the other.
async function fetchMissing() {
  if (busy) return;
  busy = true;
  for (let missing = nextMissing(); missing; missing = nextMissing()) {
    const { key, run, metric, moment } = missing;
    let told;
    try {
      told = await get("curve", { run: run.run_id, metric, at: moment, width: WIDTH });
    } catch (error) {
      told = { points: [], count: 0, wrong: error.message };
    }
    curves.value = new Map(curves.peek()).set(key, { ...told, position: run.position });
  }
  busy = false;
}

function nextMissing() {
  if (view.peek() !== "curves") return null;
  for (const run of runs.peek()) {
    for (const metric of metrics.peek()) {
      const key = `${run.run_id} ${metric}`;
      if (metric in (run.metrics ?? {}) && curves.peek().get(key)?.position !== run.position)
        return { key, run, metric, moment: at.peek() };
    }
  }
  return null;
}

const xOf = {
  step: ([step]) => step,
  time: ([, , time]) => time / 1000,
  since: ([, , time], run) => (time - Date.parse(run.created_at)) / 1000,
};

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function Chart({ metric }) {
  const box = useRef(null);
  const log = place.value.log === "yes";
  const shownRuns = runs.value.filter((run) => curves.value.get(`${run.run_id} ${metric}`)?.points.length);
  const x = axis.value;
  const tables = shownRuns.map((run) => {
    const points = curves.value.get(`${run.run_id} ${metric}`).points
      .map((point) => [xOf[x](point, run), typeof point[1] === "number" && (!log || point[1] > 0) ? point[1] : null])
      .sort(([a], [b]) => a - b);
    return [points.map(([at]) => at), points.map(([, value]) => value)];
  });
  const odd = shownRuns.flatMap((run) => {
    const points = curves.value.get(`${run.run_id} ${metric}`).points;
    const count = points.filter(([, value]) => typeof value !== "number").length;
    return count ? [`run ${run.run_id}: ${count}`] : [];
  });
  const thin = shownRuns.filter((run) => {
    const { points, count } = curves.value.get(`${run.run_id} ${metric}`);
    return count > points.length;
  });
  const key = JSON.stringify([shownRuns.map((run) => run.run_id), x, log, theme.value, tables]);
  useEffect(() => {
    if (!tables.length) return undefined;
    const ink = style("--ink");
    const grid = { stroke: style("--line"), width: 1 };
    const parent = box.current;
    const chart = new uPlot(
      {
        width: parent.clientWidth,
        height: HEIGHT,
        cursor: { sync: { key: "curves" } },
        scales: { x: { time: x === "time" }, y: { distr: log ? 3 : 1 } },
        axes: [{ stroke: ink, grid }, { stroke: ink, grid, size: 60, values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : shown(tick))) }],
        series: [
          { label: x },
          ...shownRuns.map((run) => ({
            label: `run ${run.run_id}`,
            stroke: style(colourOf(run.run_id)),
            dash: dashOf(run.run_id),
            width: 2,
            spanGaps: false,
            points: { show: tables.length < 10 && tables[0][0].length < 60, fill: style("--paper") },
            value: (_, value) => (value === null || value === undefined ? "–" : shown(value)),
          })),
        ],
      },
      // Steps that another run lacks are no gaps of this one.
      uPlot.join(tables.map(([xs, ys]) => [xs, ys]), tables.map(() => [0, 1])),
      parent,
    );
    const observer = new ResizeObserver(() => chart.setSize({ width: parent.clientWidth, height: HEIGHT }));
    observer.observe(parent);
    return () => {
      observer.disconnect();
      chart.destroy();
    };
  }, [key]);
  const last = shownRuns.map((run) => `run ${run.run_id} ${shown(run.metrics[metric])}`).join(", ");
  return html`<section class="chart" aria-label=${`${metric}: ${last}`}>
    <h2>${cut(metric)}</h2>
    <div ref=${box}></div>
    ${thin.length > 0 && html`<p class="note">thinned to what ${WIDTH} pixels show: ${thin.map((run) => `run ${run.run_id}`).join(", ")}</p>`}
    ${odd.length > 0 && html`<p class="note">values that are no numbers (NaN, infinite): ${odd.join(", ")}</p>`}
  </section>`;
}

export function Curves() {
  const left = all.value.length - runs.value.length;
  const wrong = [...new Set([...curves.value.values()].map(({ wrong: why }) => why).filter(Boolean))];
  return html`<div class="filters">
      <label>Over <select value=${axis.value} onChange=${(event) => go({ x: event.target.value }, { replace: true })}>
        <option value="step">step</option><option value="time">clock</option><option value="since">seconds since the run was made</option>
      </select></label>
      <label><input type="checkbox" checked=${place.value.log === "yes"} onChange=${(event) => go({ log: event.target.checked ? "yes" : null }, { replace: true })} /> logarithmic</label>
      <span class="note">${runs.value.length} runs${left > 0 ? `; ${left} more: choose them in the table of runs` : ""}</span>
    </div>
    ${wrong.map((why) => html`<p class="wrong" role="alert">${why}</p>`)}
    ${!metrics.value.length && html`<p class="note">no metrics as of this moment</p>`}
    ${metrics.value.map((metric) => html`<${Chart} key=${metric} metric=${metric} />`)}`;
}
