// Values as people read them.

export function shown(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "number") return Number.isInteger(value) ? String(value) : four(value);
  if (typeof value === "object") return JSON.stringify(value);
  return value;
}

function four(value) {
  const text = value.toPrecision(4);
  return text.includes("e") ? text : String(Number(text));
}

// Long names are cut in the middle: what differs is often at their end.
export function cut(text, most = 40) {
  if (text.length <= most) return text;
  const half = Math.floor((most - 1) / 2);
  return `${text.slice(0, half)}…${text.slice(-half)}`;
}

export function ago(time, now) {
  const seconds = Math.max(0, Math.round((now - Date.parse(time)) / 1000));
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} d ago`;
}

export const second = (time) => (time ? `${time.slice(0, 10)} ${time.slice(11, 19)}Z` : "");

const STAGES = {
  waiting: ["○", ["new", "scheduled", "pending"]],
  underway: ["▶", ["ongoing", "running", "in_progress", "building", "started"]],
  done: ["✓", ["completed", "ready"]],
  failed: ["✕", ["failed"]],
  halted: ["■", ["stopped", "killed", "deleted", "cancelled", "skipped", "paused"]],
};

// A state is never told by its colour alone.
export function stage(status) {
  const word = String(status).toLowerCase();
  for (const [name, [sign, words]] of Object.entries(STAGES)) {
    if (words.includes(word)) return { name, sign };
  }
  return null;
}

// A run's colour follows from its id alone; more than eight differ by dashes, too.
export const colourOf = (runId) => `--run-${((Number(runId) - 1) % 8) + 1}`;
const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3]];
export const dashOf = (runId) => DASHES[Math.floor((Number(runId) - 1) / 8) % DASHES.length];

export const quoted = (text) => (/^[\w./:@=-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
