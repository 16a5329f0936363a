// A table of any length: only the rows in sight are there; each cell can be asked why.
import { html } from "htm/preact";
import { useRef, useState } from "preact/hooks";
import { go, place } from "./place.js";
import { cut, shown, stage } from "./words.js";

const HEIGHT = 29; // pixels of a row, as page.css has it
const ALL = 150; // up to so many rows are there at once
const SEEN = 60;

const isNothing = (value) => value === null || value === undefined || value === "";
const WORDS = ["nan", "inf", "-inf"];
const isNumber = (value) => typeof value === "number" || /^-?\d{16,}$/.test(value);

// Numbers by size, text by its letters; what has no value, and what is no number, comes last.
export function sorted(rows, column, descending) {
  const rank = (value) => (isNothing(value) ? 3 : WORDS.includes(value) ? 2 : isNumber(value) ? 0 : 1);
  const compare = (a, b) =>
    rank(a) === 0 ? Number(a) - Number(b) : String(shown(a)).localeCompare(String(shown(b)));
  return rows
    .map((row) => [column.value(row), row])
    .sort(([a], [b]) => {
      const ranks = rank(a) - rank(b);
      if (ranks) return ranks;
      return descending ? compare(b, a) : compare(a, b);
    })
    .map(([, row]) => row);
}

export function matching(rows, columns, text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return rows;
  return rows.filter((row) => {
    const whole = columns.map((column) => shown(column.value(row))).join(" ").toLowerCase();
    return words.every((word) => whole.includes(word));
  });
}

function Cell({ column, row, entity, id, first }) {
  const value = column.value(row);
  const text = String(column.shown ? column.shown(value, row) : shown(value));
  const step = column.status ? stage(value) : null;
  const why = column.why ?? column.name;
  const ask = () => go({ why: `${entity}/${id}/${why}` });
  const whole = String(typeof value === "object" && value ? JSON.stringify(value) : (value ?? ""));
  return html`<td
    class=${[typeof value === "number" ? "number" : "", step ? `stage ${step.name}` : ""].join(" ")}
    title=${whole.length > text.length || text.length > 40 ? whole : null}
    tabindex=${first ? 0 : -1}
    data-column=${column.name}
    onClick=${ask}
    onKeyDown=${(event) => event.key === "Enter" && ask()}
  >${step && html`<span aria-hidden="true">${step.sign} </span>`}${cut(text)}</td>`;
}

const STEPS = {
  ArrowRight: (td) => td.nextElementSibling,
  ArrowLeft: (td) => td.previousElementSibling,
  ArrowDown: (td) => td.parentElement.nextElementSibling?.children[td.cellIndex],
  ArrowUp: (td) => td.parentElement.previousElementSibling?.children[td.cellIndex],
};

// Within a table the arrows go from cell to cell.
function walk(event) {
  const td = event.target.closest("td");
  const next = td && event.target === td && STEPS[event.key]?.(td);
  if (!td || !(event.key in STEPS)) return;
  event.preventDefault();
  event.stopPropagation();
  next?.focus?.();
}

export function Table({ entity, title, columns, rows, keyOf, note, extra, newestFirst }) {
  const [top, setTop] = useState(0);
  const box = useRef(null);
  const name = `sort.${entity}`;
  const sort = place.value[name] ?? (newestFirst ? `-${columns[0].name}` : "");
  const descending = sort.startsWith("-");
  const by = columns.find((column) => column.name === sort.replace(/^-/, ""));
  const ordered = by ? sorted(rows, by, descending) : rows;
  const windowed = ordered.length > ALL;
  const first = windowed ? Math.max(0, Math.min(Math.floor(top / HEIGHT) - 15, ordered.length - SEEN)) : 0;
  const some = windowed ? ordered.slice(first, first + SEEN) : ordered;
  const turn = (column) => {
    const next = by !== column ? column.name : descending ? null : `-${column.name}`;
    go({ [name]: next }, { replace: true });
  };
  return html`<section class="table" aria-labelledby=${`title-${entity}`}>
    <h2 id=${`title-${entity}`}>${title} <span class="count">${rows.length}</span></h2>
    ${note && html`<p class="note">${note}</p>`}
    <div
      class=${windowed ? "scroll tall" : "scroll"}
      ref=${box}
      tabindex=${windowed ? 0 : null}
      role="region"
      aria-label=${title}
      onScroll=${windowed ? () => setTop(box.current.scrollTop) : null}
    >
      <table aria-rowcount=${ordered.length + 1} onKeyDown=${walk}>
        <thead><tr>
          ${extra && html`<th scope="col">${extra.title}</th>`}
          ${columns.map(
            (column) => html`<th
              key=${column.name}
              scope="col"
              class=${ordered.length && isNumber(column.value(ordered[0])) ? "number" : null}
              aria-sort=${by !== column ? "none" : descending ? "descending" : "ascending"}
            ><button type="button" title=${column.name} onClick=${() => turn(column)}
              >${cut(column.title ?? column.name, 24)}${by === column ? (descending ? " ↓" : " ↑") : ""}</button></th>`,
          )}
        </tr></thead>
        <tbody>
          ${first > 0 && html`<tr key="above" aria-hidden="true" style=${{ height: `${first * HEIGHT}px` }}></tr>`}
          ${some.map((row, index) => {
            const id = keyOf(row);
            return html`<tr key=${id} data-key=${id} aria-rowindex=${first + index + 2}>
              ${extra && html`<td class="extra">${extra.cell(row)}</td>`}
              ${columns.map(
                (column, at) => html`<${Cell}
                  key=${column.name} column=${column} row=${row} entity=${entity} id=${id}
                  first=${index === 0 && at === 0} />`,
              )}
            </tr>`;
          })}
          ${windowed &&
          html`<tr key="below" aria-hidden="true"
            style=${{ height: `${(ordered.length - first - some.length) * HEIGHT}px` }}></tr>`}
        </tbody>
      </table>
    </div>
  </section>`;
}
