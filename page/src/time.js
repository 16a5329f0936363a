// The slider over the whole log: everything on the page is as of its moment.
import { effect, signal } from "@preact/signals";
import { html } from "htm/preact";
import { at, go } from "./place.js";
import { connection, head, live, move, world } from "./world.js";
import { second } from "./words.js";

const FRAME = 250; // milliseconds of a step of the player
const playing = signal(false);

effect(() => {
  if (!playing.value) return;
  const step = Math.max(1, Math.round(head.peek() / 200));
  const timer = setInterval(() => {
    const next = (at.peek() ?? 0) + step;
    if (next >= head.peek()) {
      playing.value = false;
      toLive();
    } else move(next);
  }, FRAME);
  return () => clearInterval(timer);
});

export const toLive = () => go({ at: null }, { replace: true });

export function stepBy(steps) {
  const next = (at.peek() ?? head.peek()) + steps;
  if (next >= head.peek() && at.peek() !== null && steps > 0) toLive();
  else move(next);
}

function play() {
  if (!playing.value && at.peek() === null) move(0);
  playing.value = !playing.value;
}

export function Time() {
  const position = at.value ?? head.value;
  const seen = world.value;
  const late = seen && at.value !== null && seen.position !== at.value;
  const { word, since, why } = connection.value;
  const told = word === "cut off" ? `cut off since ${since.toTimeString().slice(0, 8)}` : word;
  return html`<div class="time" role="group" aria-label="time">
    <button type="button" aria-label="one event back" onClick=${() => stepBy(-1)}>‹</button>
    <input id="slider" type="range" min="0" max=${head.value} step="1" value=${position} aria-label="position in the log"
      aria-valuetext=${`position ${position} of ${head.value}`}
      onInput=${(event) => { playing.value = false; move(Number(event.target.value)); }} />
    <button type="button" aria-label="one event on" onClick=${() => stepBy(1)}>›</button>
    <button type="button" onClick=${play}>${playing.value ? "pause" : "play"}</button>
    <button type="button" class="live" aria-pressed=${live.value ? "true" : "false"} onClick=${toLive}>live</button>
    <button type="button" onClick=${() => go({ view: "diff", since: position })}>compare from here</button>
    <output id="moment" data-position=${seen?.position} data-late=${late ? "yes" : "no"}>
      position <b>${seen?.position ?? "…"}</b> of ${head.value} · ${second(seen?.time)}${late ? " · looking back …" : ""}
    </output>
    <span id="connection" class=${word.replace(" ", "-")} title=${why} role="status">${told}</span>
  </div>`;
}
