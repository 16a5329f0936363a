// The page as a whole: its head, its views, its keys.
import { signal } from "@preact/signals";
import { html, render } from "htm/preact";
import { useEffect, useRef } from "preact/hooks";
import "uplot/dist/uPlot.min.css";
import "./page.css";
import { Asking } from "./act.js";
import { Curves } from "./curves.js";
import { Diff, Log } from "./log.js";
import { Now } from "./now.js";
import { at, go, view } from "./place.js";
import { theme, turn } from "./theme.js";
import { stepBy, Time, toLive } from "./time.js";
import { Why } from "./why.js";
import { begin, head, move, session, trouble, world } from "./world.js";
import { cut } from "./words.js";

const VIEWS = { now: ["Now", Now], curves: ["Curves", Curves], log: ["Log", Log], diff: ["Changes", Diff] };
const helped = signal(false);

const KEYS = [
  ["← →", "one event back, one on", (event) => ({ ArrowLeft: -1, ArrowRight: 1 })[event.key], stepBy],
  ["PageUp PageDown", "a twentieth of the log", (event) => ({ PageUp: -1, PageDown: 1 })[event.key], (way) => stepBy(way * Math.max(1, Math.round(head.peek() / 20)))],
  ["Home", "the beginning", (event) => event.key === "Home", () => move(0)],
  ["End", "live", (event) => event.key === "End", toLive],
  ["1 2 3 4", Object.values(VIEWS).map(([title]) => title).join(", "), (event) => Object.keys(VIEWS)[Number(event.key) - 1], (name) => go({ view: name })],
  ["/", "search", (event) => event.key === "/", () => document.getElementById("search")?.focus()],
  ["Enter", "in a cell: why it is so; the arrows walk through a table", () => false, null],
  ["Esc", "close", (event) => event.key === "Escape", () => (helped.value ? (helped.value = false) : go({ why: null }))],
  ["?", "this list", (event) => event.key === "?", () => (helped.value = !helped.value)],
];

addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input:not([type=checkbox]):not([type=range]), select, textarea, dialog");
  if (event.ctrlKey || event.metaKey || event.altKey || !session.value || (typing && event.key !== "Escape")) return;
  if (event.target.closest?.("dialog")) return;
  // A long table scrolls by its own keys.
  if (event.target.closest?.(".tall") && /^(Page|Home|End)/.test(event.key)) return;
  for (const [, , asked, does] of KEYS) {
    const what = asked(event);
    if (what) {
      event.preventDefault();
      does(what);
      return;
    }
  }
});

function Help() {
  const box = useRef(null);
  useEffect(() => box.current.showModal(), []);
  return html`<dialog ref=${box} aria-label="keys" onClose=${() => (helped.value = false)}>
    <h2>Keys</h2>
    <dl>${KEYS.map(([keys, what]) => html`<dt key=${keys}><kbd>${keys}</kbd></dt><dd>${what}</dd>`)}</dl>
    <button type="button" onClick=${() => box.current.close()}>close</button>
  </dialog>`;
}

function App() {
  if (!session.value) {
    return html`<main class="alone"><h1>refold</h1><p class=${trouble.value ? "wrong" : "note"} role="status">${trouble.value ?? "opening …"}</p></main>`;
  }
  const [, View] = VIEWS[view.value] ?? VIEWS.now;
  return html`<header>
      <h1>refold <span class="note" title=${session.value.store}>${cut(session.value.store, 60)}</span></h1>
      <nav aria-label="views">${Object.entries(VIEWS).map(
        ([name, [title]]) => html`<a key=${name} href=${`?view=${name}`} aria-current=${view.value === name ? "page" : null}
          onClick=${(event) => { event.preventDefault(); go({ view: name }); }}>${title}</a>`,
      )}</nav>
      <span class="right">
        ${session.value.read_only && html`<span class="note">read-only</span>`}
        <button type="button" onClick=${turn}>${theme.value === "dark" ? "light" : "dark"}</button>
        <button type="button" aria-label="keys" onClick=${() => (helped.value = true)}>?</button>
      </span>
      <${Time} />
    </header>
    ${trouble.value && html`<p class="wrong" role="alert">${trouble.value}</p>`}
    <div class="body">
      <main class=${at.value === null ? "" : "past"}>${world.value ? html`<${View} />` : html`<p class="note" role="status">reading the store …</p>`}</main>
      <${Why} />
    </div>
    <${Asking} />
    ${helped.value && html`<${Help} />`}`;
}

render(html`<${App} />`, document.body);
begin();
