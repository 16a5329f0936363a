// The state of the store as it is shown: every row, and the position that all of them belong to.
import { computed, effect, signal } from "@preact/signals";
import { get, post, Refused } from "./api.js";
import { at, go } from "./place.js";

export const session = signal(null); // null: not let in yet
export const world = signal(null); // {position, time, rows: {entity: Map}, cut, at}
export const head = signal(0);
export const trouble = signal(null); // what the last question failed on
export const connection = signal({ word: "connecting", since: null, why: null });
export const clock = signal(Date.now()); // stands still while nothing arrives

export const keyOf = (entity, row) => row[session.peek().entities[entity].key];

export const rowsOf = (entity) => computed(() => [...(world.value?.rows[entity]?.values() ?? [])]);
export const live = computed(() => at.value === null);

function together(before, changed, gone) {
  if (!changed.length && !gone.length) return before;
  const rows = new Map(before);
  for (const key of gone) rows.delete(key);
  const isNew = changed.some(([key]) => !rows.has(key));
  for (const [key, row] of changed) rows.set(key, row);
  return isNew ? new Map([...rows].sort(([a], [b]) => a - b)) : rows;
}

function merged(before, answer) {
  const rows = {};
  for (const [entity, some] of Object.entries(answer.rows)) {
    const changed = some.map((row) => [keyOf(entity, row), row]);
    if (answer.whole) rows[entity] = new Map(changed);
    else rows[entity] = together(before.rows[entity], changed, answer.gone[entity] ?? []);
  }
  const cut = answer.whole ? answer.cut : before.cut;
  return { position: answer.position, time: answer.time, rows, cut };
}

// One question is under way at a time; the newest moment wins, and late answers are dropped.
let underway = null;
let patience = new AbortController();
let again = false;

// Kept until nothing more is to be asked.
export function refresh() {
  again = true;
  underway ??= ask().finally(() => (underway = null));
  return underway;
}

async function ask() {
  do {
    again = false;
    const asked = at.peek();
    const before = world.peek();
    const known = before?.position;
    if (known !== undefined && known === (asked ?? head.peek())) {
      if (before.at !== asked) world.value = { ...before, at: asked };
      continue;
    }
    try {
      const answer = await get("state", { at: asked, since: known }, patience.signal);
      if (asked !== at.peek()) {
        again = true;
        continue;
      }
      if (asked === null) head.value = Math.max(head.peek(), answer.position);
      world.value = { ...merged(before, answer), at: asked };
      trouble.value = null;
    } catch (error) {
      if (asked !== at.peek()) again = true;
      else fail(error);
    }
  } while (again);
}

export function fail(error) {
  trouble.value = error.message;
  if (error.status === 401) session.value = null;
}

// --- news: one stream for all tabs of a browser ---------------------------------------------

const SILENT = 12_000; // a heartbeat comes every 10 s
const POLL = 2_000;
let heard = 0;

function hear({ position, trouble: why }) {
  heard = Date.now();
  clock.value = heard;
  connection.value = why
    ? { word: "cut off", since: connection.peek().since ?? new Date(), why }
    : { word: "live", since: null, why: null };
  if (position > head.peek()) {
    head.value = position;
    if (at.peek() === null) refresh();
  }
}

function follow() {
  const name = `refold ${location.origin}${location.pathname}`;
  const channel = new BroadcastChannel(name);
  let last = null;
  let leads = false;
  channel.onmessage = ({ data }) => {
    if (data === "what is new?") leads && last && channel.postMessage(last);
    else hear(data);
  };
  const lead = () => {
    leads = true;
    const source = new EventSource("api/news");
    const tell = ({ data }) => {
      last = JSON.parse(data);
      hear(last);
      channel.postMessage(last);
    };
    source.addEventListener("news", tell);
    source.addEventListener("heartbeat", tell);
    source.onerror = () => {
      heard = 0;
      // The browser tries again by itself, unless the server answers with a refusal.
      if (source.readyState === EventSource.CLOSED) setTimeout(lead, POLL);
    };
  };
  if (navigator.locks) navigator.locks.request(name, () => (lead(), new Promise(() => {})));
  else lead();
  channel.postMessage("what is new?");
  setInterval(poll, POLL);
  setInterval(() => {
    if (connection.peek().word !== "cut off") clock.value = Date.now();
  }, 1_000);
}

async function poll() {
  if (Date.now() - heard < SILENT) return;
  try {
    const { position } = await get("head");
    connection.value = { word: "delayed", since: null, why: "asked every 2 s: no stream arrives" };
    if (position > head.peek()) head.value = position;
    if (at.peek() === null) refresh();
  } catch (error) {
    const since = connection.peek().since ?? new Date();
    connection.value = { word: "cut off", since, why: error.message };
    if (error instanceof Refused && error.status === 401) fail(error);
  }
}

// --- the beginning ---------------------------------------------------------------------------

// The token leaves the address bar before anything else happens.
export async function begin() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (location.hash) history.replaceState(null, "", location.pathname + location.search);
  try {
    if (token) await post("session", { token });
    session.value = await get("session");
    head.value = (await get("head")).position;
  } catch (error) {
    trouble.value = error.message;
    return;
  }
  document.title = `${session.value.store.split("/").at(-1)} · refold`;
  heard = Date.now();
  follow();
  effect(() => {
    // A first look back may take long: whoever goes back to the present does not wait for it.
    if (at.value === null) {
      patience.abort();
      patience = new AbortController();
    }
    refresh();
  });
}

export function move(position) {
  const bound = Math.max(0, Math.min(position, head.peek()));
  go({ at: bound }, { replace: true });
}
