// Where one is on the page: all of it stands in the address, so that links, back and forward work.
import { computed, signal } from "@preact/signals";

const read = () => Object.fromEntries(new URLSearchParams(location.search));

export const place = signal(read());
addEventListener("popstate", () => (place.value = read()));

const number = (text) => (/^\d{1,15}$/.test(text ?? "") ? Number(text) : null);

export const view = computed(() => place.value.view ?? "now");
export const at = computed(() => number(place.value.at)); // null: live
export const since = computed(() => number(place.value.since)); // where a diff begins
export const chosen = computed(() =>
  (place.value.runs ?? "").split(",").map(number).filter((id) => id !== null),
);
const why = computed(() => place.value.why ?? ""); // so that other changes leave the cell as it is
export const cell = computed(() => {
  const [entity, key, column] = why.value.split("/");
  return column ? { entity, key, column } : null;
});

// `replace`: no step of its own for "back".
export function go(changes, { replace = false } = {}) {
  const next = { ...place.peek(), ...changes };
  for (const name of Object.keys(next)) {
    if (next[name] === null || next[name] === undefined || next[name] === "") delete next[name];
  }
  const query = new URLSearchParams(next).toString();
  history[replace ? "replaceState" : "pushState"](null, "", query ? `?${query}` : location.pathname);
  place.value = next;
}
