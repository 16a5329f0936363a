// What there is: experiments, runs, workers, tasks, requests, contexts, pipelines.
import { computed, effect, signal } from "@preact/signals";
import { html } from "htm/preact";
import { get, latest } from "./api.js";
import { Ask } from "./act.js";
import { at, chosen, go, place } from "./place.js";
import { clock, keyOf, rowsOf, session, world } from "./world.js";
import { ago, colourOf, quoted, second } from "./words.js";
import { matching, Table } from "./table.js";
import { Line } from "./why.js";

const MANY = 30; // columns of parameters and metrics together

const of = (name, more = {}) => ({ name, value: (row) => row[name], ...more });
const status = of("status", { status: true });
const changed = {
  name: "updated_at",
  title: "changed",
  value: (row) => row.updated_at,
  shown: (value) => (world.value.at === null ? ago(value, clock.value) : second(value)),
};

const TABLES = {
  experiment: ["Experiments", [of("experiment_id", { title: "id" }), of("experiment_name", { title: "name" }), of("kind"), status, of("error"), changed]],
  worker: ["Workers", [of("worker_id", { title: "id" }), of("task", { title: "does" }), status, { ...changed, title: "heard of" }]],
  controller: ["Controller", [of("task", { title: "does" }), status, { ...changed, title: "heard of" }]],
  task: ["Tasks", [of("task_id", { title: "id" }), of("run_id", { title: "run" }), of("worker_id", { title: "worker" }), of("epoch"), of("chunk_id", { title: "chunk" }), status, of("error"), changed]],
  request: ["Requests", [of("ic_id", { title: "id" }), of("operation"), of("run_id", { title: "run" }), status, of("error"), changed]],
  pipeline: ["Pipelines", [of("pipeline_id", { title: "id" }), of("experiment_id", { title: "experiment" }), of("pipeline_name", { title: "name" }), of("pipeline_type", { title: "type" }), status, of("shards_completed", { title: "shards" }), of("total_samples_processed", { title: "samples" }), of("context_id", { title: "context" }), of("error"), changed]],
  pipeline_request: ["Requests about pipelines", [of("ic_id", { title: "id" }), of("operation"), of("pipeline_id", { title: "pipeline" }), status, of("error"), changed]],
  context: ["Contexts", [of("context_id", { title: "id" }), of("context_hash", { title: "hash" }), status, of("duration_seconds", { title: "seconds" }), of("error"), changed]],
  actor_task: ["Tasks of actors", [of("task_id", { title: "id" }), of("pipeline_id", { title: "pipeline" }), of("actor_id", { title: "actor" }), of("shard_id", { title: "shard" }), status, of("duration_seconds", { title: "seconds" }), of("error"), changed]],
};

const LOGS = ["task", "request", "pipeline_request", "actor_task"]; // there is always one more

const names = (rows, column) => [...new Set(rows.flatMap((row) => Object.keys(row[column] ?? {})))];

export const metricsOf = (rows) => names(rows, "metrics");

function runColumns(rows) {
  // As on the command line: parameters that are the same in all runs tell nothing.
  const params = names(rows, "params").filter(
    (name) => rows.length === 1 || new Set(rows.map((row) => JSON.stringify(row.params[name]))).size > 1,
  );
  const metrics = metricsOf(rows);
  const both = new Set(params.filter((name) => metrics.includes(name)));
  const kept = [
    ...params.map((name) => ({
      name: `params.${name}`,
      title: both.has(name) ? `params.${name}` : name,
      value: (row) => row.params[name],
      why: "config_digest",
    })),
    ...metrics.map((name) => ({
      name: `metrics.${name}`,
      title: both.has(name) ? `metrics.${name}` : name,
      value: (row) => row.metrics?.[name],
      why: "metrics",
    })),
  ];
  const columns = [
    of("run_id", { title: "id" }),
    of("experiment_id", { title: "experiment" }),
    of("run_name", { title: "name" }),
    status,
    of("current_epoch", { title: "epoch" }),
    { name: "current_chunk", title: "chunk", value: (row) => row.current_chunk, shown: (value, row) => (row.num_chunks ? `${value}/${row.num_chunks}` : value) },
    ...kept.slice(0, MANY),
    of("parent_run_id", { title: "clone of" }),
    changed,
  ];
  const left = kept.slice(MANY).map((column) => column.title);
  return { columns, left };
}

// Conditions are answered by the store, in the words of the command line.
const condition = computed(() => place.value.where ?? "");
const found = signal({ ids: null, wrong: null });
const asOf = computed(() => world.value?.position);
const search = latest(async (where, moment) => {
  const answer = await get("found", { where, at: moment })
    .then((ids) => ({ ids: new Set(ids), wrong: null }))
    .catch((error) => ({ ids: null, wrong: error.message }));
  if (where === condition.peek() && moment === at.peek()) found.value = answer;
});
effect(() => {
  const where = condition.value;
  const position = asOf.value; // asked again when something has happened
  if (!where || position === undefined) {
    found.value = { ids: null, wrong: null };
    return;
  }
  search(where, at.peek());
});

function Choose({ row }) {
  const id = row.run_id;
  const isChosen = chosen.value.includes(id);
  const turn = () => {
    const ids = isChosen ? chosen.value.filter((one) => one !== id) : [...chosen.value, id];
    go({ runs: ids.join(",") }, { replace: true });
  };
  return html`<span class="choose"
    ><input type="checkbox" checked=${isChosen} aria-label=${`show the curves of run ${id}`} onChange=${turn}
    /><span class="swatch" style=${{ background: `var(${colourOf(id)})` }}></span
    ><${Ask} run=${row}
  /></span>`;
}

const runs = rowsOf("run");

export function Now() {
  const text = place.value.filter ?? "";
  const { columns, left } = runColumns(runs.value);
  const { ids, wrong } = found.value;
  const some = matching(ids ? runs.value.filter((run) => ids.has(run.run_id)) : runs.value, columns, text);
  const set = (name) => (event) => go({ [name]: event.target.value }, { replace: true });
  const others = Object.entries(TABLES);
  const cut = world.value.cut;
  const older = (entity) => (cut.includes(entity) ? "only the newest are shown" : null);
  return html`<div class="filters">
      <label>Search <input id="search" type="search" value=${text} placeholder="words in any cell" onInput=${set("filter")} /></label>
      <label>Runs where <input type="search" class="wide" value=${condition.value} placeholder="learning_rate > 0.01 and loss < 0.3" aria-invalid=${wrong ? "true" : null} onChange=${set("where")} /></label>
    </div>
    ${wrong && html`<p class="wrong" role="alert">${wrong}</p>`}
    ${others.slice(0, 1).map(simple)}
    <${Table}
      entity="run" title="Runs" columns=${columns} rows=${some} keyOf=${(row) => keyOf("run", row)}
      note=${left.length ? `not shown: ${left.join(", ")}` : older("run")}
      extra=${{ title: "", cell: (row) => html`<${Choose} row=${row} />` }} />
    ${others.slice(1).map(simple)}
    <${Line} text=${command()} />`;

  // What the table of runs shows, in the words of the command line.
  function command() {
    const sort = place.value["sort.run"];
    const by = sort && runColumns(runs.value).columns.find(({ name }) => name === sort.replace(/^-/, ""));
    const options = [
      condition.value && `--where ${quoted(condition.value)}`,
      by && `--sort=${quoted(`${sort.startsWith("-") ? "-" : ""}${by.name}`)}`,
      at.value !== null && `--at ${at.value}`,
    ];
    return ["refold runs", ...options.filter(Boolean), `--store ${quoted(session.value.store)}`].join(" ");
  }

  function simple([entity, [title, cells]]) {
    const all = [...(world.value.rows[entity]?.values() ?? [])];
    if (!all.length) return null;
    return html`<${Table} key=${entity} entity=${entity} title=${title} columns=${cells} note=${older(entity)} newestFirst=${LOGS.includes(entity)}
      rows=${matching(all, cells, text)} keyOf=${(row) => keyOf(entity, row)} />`;
  }
}
