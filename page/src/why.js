// Why a cell holds what it does: the chain of causes, and the history of its row.
import { computed, effect, signal } from "@preact/signals";
import { html } from "htm/preact";
import { get, latest } from "./api.js";
import { at, cell, go } from "./place.js";
import { session, world } from "./world.js";
import { cut, quoted, second, shown } from "./words.js";

const answer = signal(null); // {reason, history, wrong}

// Asked again only when something has happened to the row.
const changed = computed(() => {
  const rows = world.value?.rows[cell.value?.entity];
  return rows?.get(Number(cell.value.key))?.position ?? rows?.get(cell.value.key)?.position;
});

const ask = latest(async (asked, moment) => {
  const question = { entity: asked.entity, key: asked.key, at: moment };
  const told = await Promise.all([get("why", { ...question, column: asked.column }), get("history", question)])
    .then(([reason, history]) => ({ asked, reason, history }))
    .catch((error) => ({ asked, wrong: error.message }));
  if (asked === cell.peek() && moment === at.peek()) answer.value = told;
});

const isThere = computed(() => world.value !== null);

effect(() => {
  changed.value;
  if (cell.value && isThere.value) ask(cell.value, at.value);
  else answer.value = null;
});

export const to = (position) => (event) => {
  event.preventDefault();
  go({ at: position });
};

export function Position({ position }) {
  return html`<a href=${`?at=${position}`} onClick=${to(position)} title="look at this moment">${position}</a>`;
}

export function Changes({ columns }) {
  return html`<span class="changes">${Object.entries(columns).map(
    ([name, [before, after]], index) =>
      html`${index ? ", " : ""}<b>${name}</b> ${before !== null && html`${cut(shown(before))} → `}${cut(shown(after))}`,
  )}</span>`;
}

function Event({ event, children }) {
  const { actor } = event.metadata;
  return html`<${Position} position=${event.position} />
    ${" "}<span class="type">${event.type}</span>${actor && html` by <b>${cut(actor)}</b>`}
    <span class="note">${" in "}${event.stream}, ${second(event.recorded_at)}</span>${children}`;
}

export function Why() {
  const asked = cell.value;
  if (!asked) return null;
  const told = answer.value;
  const { entity, key, column } = asked;
  const moment = at.value === null ? "" : ` --at ${at.value}`;
  const line = `refold why ${entity} ${key} ${column}${moment} --store ${quoted(session.value.store)}`;
  return html`<aside class="why" aria-label="why">
    <button type="button" class="close" aria-label="close" onClick=${() => go({ why: null })}>✕</button>
    <h2>Why is ${column} of ${entity} ${key} so?</h2>
    ${!told && html`<p class="note">looking back …</p>`}
    ${told?.wrong && html`<p class="wrong" role="alert">${told.wrong}</p>`}
    ${told?.reason && told.asked === asked && html`
      <p class="value">${shown(told.reason.value)}</p>
      <ol class="chain">${told.reason.links.map(
        ({ event, processed }, index) => html`<li key=${event.position}>
          ${index ? "because of " : "since "}<${Event} event=${event} />
          ${processed && html`<div class="note">processed by <${Event} event=${processed} /></div>`}
        </li>`,
      )}</ol>
      <p class="note">${told.reason.lost ? `because of ${told.reason.lost}` : told.reason.links.length < 2 ? "no cause of it was noted" : ""}</p>
      <h3>History of ${entity} ${key}</h3>
      <ol class="history">${told.history.slice(0, 200).map(
        (event) => html`<li key=${event.position} class=${column in event.change.columns ? "own" : ""}>
          <${Event} event=${event} /><div><${Changes} columns=${event.change.columns} /></div>
        </li>`,
      )}</ol>
      ${told.history.length > 200 && html`<p class="note">the last 200 of ${told.history.length}${told.history.length === 1000 ? " or more" : ""}</p>`}`}
    <${Line} text=${line} />
  </aside>`;
}

// Each view offers the command that tells the same.
export function Line({ text }) {
  const copy = () => navigator.clipboard?.writeText(text);
  return html`<p class="line"><code>${text}</code> <button type="button" onClick=${copy}>copy</button></p>`;
}
