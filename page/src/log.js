// The log: events as they come, and what became of rows from one moment to another.
import { effect, signal } from "@preact/signals";
import { html } from "htm/preact";
import { get, latest } from "./api.js";
import { at, go, place, since, view } from "./place.js";
import { session, world } from "./world.js";
import { cut, quoted, second, shown } from "./words.js";
import { Changes, Line, Position } from "./why.js";

const page = signal(null); // {filters, events, until, damaged}
const MOST = 5_000; // events that are kept here
let asked = 0;

const filters = () => ({
  type: place.value.type,
  stream: place.value.stream,
  actor: place.value.actor,
});

async function load(more) {
  const number = ++asked;
  const { filters: wanted } = more;
  try {
    const answer = await get("log", { ...wanted, at: more.until ?? at.peek(), after: more.after, limit: more.after ? 1_000 : 200 });
    if (number !== asked) return;
    const before = page.peek()?.events ?? [];
    const events = more.after ? [...answer.events, ...before].slice(0, MOST) : [...(more.until ? before : []), ...answer.events];
    const until = more.after ? page.peek().until : answer.until;
    page.value = { key: more.key, events, until, damaged: answer.damaged };
  } catch (error) {
    if (number === asked) page.value = { key: more.key, events: [], until: null, damaged: error.message };
  }
}

effect(() => {
  if (view.value !== "log" || !world.value) return;
  const wanted = filters();
  const follows = at.value === null && place.value.follow !== "no";
  const key = JSON.stringify([wanted, at.value]);
  const position = world.value.position;
  const known = page.peek();
  if (known?.key !== key) load({ filters: wanted, key });
  else if (follows && known.events.length && position > known.events[0].position && position - known.events[0].position <= 1000)
    load({ filters: wanted, key, after: known.events[0].position });
  else if (follows && position !== known.events[0]?.position) load({ filters: wanted, key });
});

export function Log() {
  const { type, stream, actor } = filters();
  const set = (name) => (event) => go({ [name]: event.target.value }, { replace: true });
  const told = page.value;
  const older = () => load({ filters: filters(), key: told.key, until: told.until });
  const options = [
    type && `--type ${quoted(type)}`,
    stream && `--stream ${quoted(stream)}`,
    actor && `--actor ${quoted(actor)}`,
    at.value !== null && `--until ${at.value}`,
  ].filter(Boolean);
  return html`<div class="filters">
      <label>Type <select value=${type ?? ""} onChange=${set("type")}>
        <option value="">all</option>${session.value.types.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}
      </select></label>
      <label>Stream <input id="search" type="search" value=${stream ?? ""} placeholder="run-5" onChange=${set("stream")} /></label>
      <label>Actor <input type="search" value=${actor ?? ""} placeholder="worker-0" onChange=${set("actor")} /></label>
      <label><input type="checkbox" checked=${place.value.follow !== "no"} onChange=${(event) => go({ follow: event.target.checked ? null : "no" }, { replace: true })} /> follow</label>
    </div>
    ${told?.damaged && html`<p class="wrong" role="alert">${told.damaged}</p>`}
    ${!told && html`<p class="note">reading the log …</p>`}
    <ol class="log" aria-label="events, the latest first">${(told?.events ?? []).map(
      (event) => html`<li key=${event.position}><details>
        <summary><span class="position">${event.position}</span> <time>${second(event.recorded_at)}</time>${" "}
          <span class="stream">${cut(event.stream, 24)}</span> <b class="type">${event.type}</b>${" "}
          <span class="note">${event.metadata.actor && `by ${cut(event.metadata.actor)} `}${cut(fields(event), 120)}</span></summary>
        <pre>${JSON.stringify(event, null, 2)}</pre>
        <p>look at the moment <${Position} position=${event.position} /></p>
      </details></li>`,
    )}</ol>
    ${told?.until && html`<button type="button" onClick=${older}>older events</button>`}
    ${told && !told.events.length && !told.damaged && html`<p class="note">no events like that</p>`}
    <${Line} text=${["refold log --backwards --limit 200", ...options, "--store", quoted(session.value.store)].join(" ")} />`;
}

const fields = (event) =>
  Object.entries(event.data)
    .filter(([, value]) => value !== null && value !== false)
    .map(([name, value]) => `${name} ${shown(value)}`)
    .join(", ");

// --- from one moment to another --------------------------------------------------------------

const differences = signal(null);

const compare = latest(async (a, b) => {
  differences.value = await get("diff", { a, b })
    .then((changes) => ({ a, b, changes }))
    .catch((error) => ({ a, b, changes: [], wrong: error.message }));
});

effect(() => {
  if (view.value === "diff" && world.value) compare(since.value ?? 0, world.value.position);
});

const entityOf = (name) =>
  Object.entries(session.value.entities).find(([, { view: known }]) => known === name)?.[0] ?? name;

const SIGNS = { added: "+", changed: "~", removed: "−" };

export function Diff() {
  const told = differences.value;
  const position = world.value.position;
  const begin = since.value ?? 0;
  return html`<div class="filters">
      <label>From position <input id="search" type="number" min="0" max=${position} value=${begin} onChange=${(event) => go({ since: event.target.value }, { replace: true })} /></label>
      <span>to ${position}, the moment that is looked at${told && (told.a !== begin || told.b !== position) ? `; below: from ${told.a} to ${told.b}` : ""}</span>
    </div>
    ${!told && html`<p class="note">looking back …</p>`}
    ${told?.wrong && html`<p class="wrong" role="alert">${told.wrong}</p>`}
    <ol class="log">${(told?.changes ?? []).map(
      ({ view: name, key, kind, columns }) => html`<li key=${`${name} ${key}`} class=${`change ${kind}`}>
        <b><span aria-hidden="true">${SIGNS[kind]}</span> ${entityOf(name)} ${key} ${kind}</b>${" "}<${Changes} columns=${columns} />
      </li>`,
    )}</ol>
    ${told && !told.wrong && !told.changes.length && html`<p class="note">nothing differs</p>`}
    ${told?.changes.length === 1000 && html`<p class="note">the first 1,000 rows that differ</p>`}
    <${Line} text=${`refold diff ${begin} ${position} --store ${quoted(session.value.store)}`} />`;
}
