// What the server is asked, and how its refusals arrive.

export class Refused extends Error {
  constructor(status, answer) {
    super(answer.message ?? `the server answers ${status}`);
    this.status = status;
    this.kind = answer.error;
  }
}

async function answerOf(response) {
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(response.status, answer);
  return answer;
}

// Addresses are relative, so the page works below any path of a proxy.
export async function get(name, parameters = {}, signal = undefined) {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(parameters)) {
    if (value !== undefined && value !== null && value !== "") query.set(key, value);
  }
  return answerOf(await fetch(`api/${name}?${query}`, { credentials: "same-origin", signal }));
}

// Has one question under way at a time; of those that come meanwhile the newest is asked.
export function latest(ask) {
  let underway = false;
  let next = null;
  return async (...about) => {
    next = about;
    if (underway) return;
    underway = true;
    while (next) {
      const asked = next;
      next = null;
      await ask(...asked);
    }
    underway = false;
  };
}

export async function post(path, body) {
  return answerOf(
    await fetch(path, {
      method: "POST",
      credentials: "same-origin",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    }),
  );
}
