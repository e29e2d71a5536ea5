// What makes the page live: parts that are fetched again, times in the reader's zone, links out of Airflow's frame.
"use strict";

const SHARE = 3; // times as long as an answer took, a part waits before it asks again, so that a busy stack is spared
const AT_MOST = 30000; // ms, where no answer comes

// ---- parts that change ------------------------------------------------------------------------------------------------

const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.dataset.key : undefined);
// Of what kind a node without a key is: its name, and the first of its classes.
const kindOf = (node) =>
  node.nodeType === Node.ELEMENT_NODE ? `${node.nodeName} ${(node.getAttribute("class") || "").split(" ")[0]}` : node.nodeName;
const alike = (one, other) => kindOf(one) === kindOf(other) && !keyOf(one);

// Makes `old` what `fresh` is and keeps the nodes that are the same, so that focus, selection and scrolling stay. Children
// with a data-key are the same where the key is; others where their kind is, in their order.
function morph(old, fresh) {
  for (const { name } of [...old.attributes]) {
    // What a person has opened stays open.
    if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  }
  for (const { name, value } of [...fresh.attributes]) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  const children = [...fresh.childNodes];
  const wanted = new Set(children.map(keyOf));
  const keyed = new Map();
  for (const child of [...old.childNodes]) {
    const key = keyOf(child);
    if (key && wanted.has(key)) keyed.set(key, child);
    else if (key) child.remove();
  }
  let at = old.firstChild;
  for (const next of children) {
    const key = keyOf(next);
    let match = key ? keyed.get(key) : at;
    while (!key && match && !alike(match, next)) match = match.nextSibling;
    while (!key && match && at !== match) {
      const passed = at;
      at = at.nextSibling;
      if (!keyOf(passed)) passed.remove();
    }
    if (!match) {
      old.insertBefore(next, at);
      continue;
    }
    if (match === at) at = at.nextSibling;
    else old.insertBefore(match, at);
    if (next.nodeType === Node.ELEMENT_NODE) morph(match, next);
    else if (match.data !== next.data) match.data = next.data;
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

// Logs show their end. Gives what finds those again that a person has not scrolled away from there.
function atTheirEnd(part) {
  const left = new Set([...part.querySelectorAll("pre.log")].filter((log) => log.scrollTop + log.clientHeight < log.scrollHeight - 4));
  return () => [...part.querySelectorAll("pre.log")].filter((log) => !left.has(log));
}

// One message for all parts of a page: that of the part which was told last that something is wrong.
const told = new Map();
function say(part, text) {
  told.set(part, text);
  const place = document.querySelector("[data-silent]");
  const shown = [...told.values()].find(Boolean) || "";
  if (!place) return;
  if (place.textContent !== shown) place.textContent = shown;
  place.hidden = !shown;
}

function keepFresh(part) {
  const pause = document.querySelector("[data-pause]");
  const every = Number(part.dataset.every); // ms between an answer and the next question
  let wait = every;
  let paused = false;
  let timer = 0;
  const ask = async () => {
    clearTimeout(timer);
    if (paused || document.visibilityState !== "visible") return;
    const began = performance.now();
    try {
      const answer = await fetch(part.dataset.live, { headers: { Accept: "text/html" }, cache: "no-store" });
      if (answer.status === 401) return location.reload();
      const text = await answer.text();
      const took = performance.now() - began;
      const fresh = new DOMParser().parseFromString(text, "text/html").body;
      const ended = answer.headers.get("Tarmac-Ended");
      if (answer.ok) {
        const shown = part.cloneNode(false);
        shown.append(...fresh.childNodes);
        clocks(shown);
        const ends = atTheirEnd(part);
        morph(part, shown);
        for (const log of ends()) log.scrollTop = log.scrollHeight;
        part.dispatchEvent(new CustomEvent("fresh", { bubbles: true }));
      }
      say(part, answer.ok ? "" : fresh.textContent.trim());
      wait = Math.min(answer.ok ? Math.max(every, SHARE * took) : 2 * wait, AT_MOST);
      if (ended) return;
    } catch {
      say(part, "The stack does not answer. This page shows what it said last, and asks again.");
      wait = Math.min(2 * wait, AT_MOST);
    }
    timer = setTimeout(ask, wait);
  };
  document.addEventListener("visibilitychange", ask);
  if (pause) {
    pause.hidden = false;
    pause.addEventListener("click", () => {
      paused = !paused;
      pause.setAttribute("aria-pressed", String(paused));
      ask();
    });
  }
  timer = setTimeout(ask, every);
}

// ---- times ------------------------------------------------------------------------------------------------------------

function clocks(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    const form = "clock" in time.dataset ? { timeStyle: "medium" } : { dateStyle: "medium", timeStyle: "seconds" in time.dataset ? "medium" : "short" };
    time.textContent = at.toLocaleString(undefined, form);
    time.title = at.toLocaleString();
  }
}

// ---- links out of the frame -------------------------------------------------------------------------------------------

// Airflow's frame lets no link of its page lead out of it; a link of the page around it may.
document.addEventListener("click", (event) => {
  const link = event.target instanceof Element ? event.target.closest("a.outside") : null;
  if (!link || window.parent === window) return;
  event.preventDefault();
  const outer = window.parent.document;
  const twin = outer.createElement("a");
  twin.href = link.href;
  if (link.target === "_blank" || event.ctrlKey || event.metaKey) {
    twin.target = "_blank";
    twin.rel = "noopener";
  }
  outer.body.append(twin);
  twin.click();
  twin.remove();
});

clocks(document);
for (const log of document.querySelectorAll("pre.log")) log.scrollTop = log.scrollHeight;
for (const part of document.querySelectorAll("[data-live]")) keepFresh(part);
