// What people ask of runs: says what it will do, asks, and carries the position that was seen.
import { signal } from "@preact/signals";
import { html } from "htm/preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { get, post } from "./api.js";
import { at } from "./place.js";
import { head, refresh, rowsOf, session, world } from "./world.js";
import { cut, shown } from "./words.js";

const asking = signal(null); // {run, operation, seen, commandId}
const NAME = "refold actor"; // where the browser remembers who acts

const DOES = {
  stop: "The controller stops it after its present chunk; it can be resumed.",
  resume: "The controller lets it go on.",
  delete: "The controller ends it for ever; what happened to it stays in the log.",
  clone: "The controller makes a new run with this configuration.",
};

const newId = () =>
  [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

export function Ask({ run }) {
  if (session.value.read_only) return null;
  const past = at.value !== null;
  const open = () => {
    asking.value = { run, operation: "stop", seen: world.peek().position, commandId: newId() };
  };
  return html`<button type="button" class="ask" disabled=${past} aria-label=${`ask something of run ${run.run_id}`}
    title=${past ? "the past cannot be changed: go to live" : "stop, resume, clone, delete"} onClick=${open}>…</button>`;
}

// As on the command line: a value is JSON, or else text.
function valueOf(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

const requests = rowsOf("request");

export function Asking() {
  const asked = asking.value;
  return asked && html`<${Dialog} key=${asked.run.run_id} asked=${asked} />`;
}

function Dialog({ asked }) {
  const box = useRef(null);
  const [operation, setOperation] = useState(asked.operation);
  const [actor, setActor] = useState(localStorage.getItem(NAME) ?? session.value.actor);
  const [values, setValues] = useState({});
  const [warm, setWarm] = useState(false);
  const [seen, setSeen] = useState(asked.seen);
  const [command, setCommand] = useState(asked.commandId);
  const [wrong, setWrong] = useState(null);
  const [done, setDone] = useState(null);
  const [busy, setBusy] = useState(false);
  useEffect(() => box.current.showModal(), []);
  const id = asked.run.run_id;
  // It shows the run as it was when the dialog was opened, or shown again.
  const [run, setRun] = useState(asked.run);
  const pending = requests.value.filter((one) => one.run_id === id && one.status === "PENDING");
  const close = () => (asking.value = null);
  const send = async (event) => {
    event.preventDefault();
    setBusy(true);
    setWrong(null);
    const changes = Object.fromEntries(
      Object.entries(values).filter(([name, text]) => text !== shown(run.params[name])).map(([name, text]) => [name, valueOf(text)]),
    );
    const body = { seen, actor, command_id: command };
    if (operation === "clone") Object.assign(body, { changes, warm_start: warm });
    try {
      const answer = await post(`api/runs/${id}/${operation}`, body);
      localStorage.setItem(NAME, actor);
      setDone(answer.ic_id);
    } catch (error) {
      setWrong(error.message);
      if (error.kind === "ChangedSince") {
        head.value = (await get("head")).position; // which the news may not have told yet
        await refresh();
        setSeen(world.peek().position);
        setRun(world.peek().rows.run.get(id) ?? run);
        setCommand(newId());
      }
    }
    setBusy(false);
  };
  return html`<dialog ref=${box} onClose=${close} aria-labelledby="asking">
    <form onSubmit=${send}>
      <h2 id="asking">Run ${id}: ${cut(run.run_name)}, ${run.status}</h2>
      <p class="note">as of position ${seen}</p>
      ${pending.length > 0 && html`<p class="note">pending already: ${pending.map((one) => `request ${one.ic_id} (${one.operation})`).join(", ")}</p>`}
      ${done
        ? html`<p role="status" class="done">Request ${done} is made: the controller decides what becomes of it.</p>
            <button type="button" autofocus onClick=${close}>close</button>`
        : html`
            <fieldset><legend>Ask to</legend>${Object.keys(DOES).map(
              (word) => html`<label key=${word}><input type="radio" name="operation" value=${word} checked=${operation === word} onChange=${() => { setOperation(word); setCommand(newId()); }} /> ${word}</label>`,
            )}</fieldset>
            <p>${DOES[operation]}</p>
            ${operation === "clone" && html`<fieldset class="values"><legend>with</legend>
              ${run.unreadable && html`<p class="note">its configuration is not shown: ${run.unreadable}</p>`}
              ${Object.entries(run.params).map(([name, value]) => html`<label key=${name}>${name}
                <input value=${values[name] ?? shown(value)} onInput=${(event) => { setValues({ ...values, [name]: event.target.value }); setCommand(newId()); }} /></label>`)}
              <label><input type="checkbox" checked=${warm} onChange=${(event) => { setWarm(event.target.checked); setCommand(newId()); }} /> begin with its weights</label>
            </fieldset>`}
            <label>Your name <input name="actor" required maxlength="100" value=${actor} onInput=${(event) => setActor(event.target.value)} /></label>
            ${wrong && html`<p class="wrong" role="alert">${wrong}</p>`}
            <p class="buttons"><button type="submit" disabled=${busy}>ask to ${operation} run ${id}</button>
              <button type="button" onClick=${close}>cancel</button></p>`}
    </form>
  </dialog>`;
}
