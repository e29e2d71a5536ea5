// What makes the page live: parts that the server tells anew, times in the reader's zone, links out of Airflow's frame.
"use strict";

const AGAIN = 1000; // ms after which a stream of news that ended is opened again
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

function renew(part, html) {
  const shown = part.cloneNode(false);
  shown.append(...new DOMParser().parseFromString(html, "text/html").body.childNodes);
  clocks(shown);
  const ends = atTheirEnd(part);
  morph(part, shown);
  for (const log of ends()) log.scrollTop = log.scrollHeight;
  part.dispatchEvent(new CustomEvent("fresh", { bubbles: true }));
}

// Shows the news of a page, an event for each part that changed. `place` names their address, and says what is wrong.
// A hidden page closes its connection: a browser opens few to one server, and Airflow's UI needs them too.
function follow(place) {
  const pause = document.querySelector("[data-pause]");
  const parts = document.querySelectorAll("[data-live]");
  let source = null;
  let timer = 0;
  let wait = AGAIN;
  let paused = false;
  let over = false;
  const say = (text) => {
    if (place.textContent !== text) place.textContent = text;
    place.hidden = !text;
  };
  const close = () => {
    clearTimeout(timer);
    if (source) source.close();
    source = null;
  };
  const open = () => {
    close();
    if (over || paused || document.visibilityState !== "visible") return;
    source = new EventSource(place.dataset.news);
    for (const part of parts) {
      source.addEventListener(part.dataset.live, (event) => {
        wait = AGAIN;
        say("");
        renew(part, event.data);
      });
    }
    source.addEventListener("over", () => {
      over = true;
      close();
    });
    source.addEventListener("error", lost);
  };
  // A stream that is refused does not say why. An answer to the same question does.
  const lost = async () => {
    close();
    const asking = new AbortController();
    try {
      const answer = await fetch(place.dataset.news, { cache: "no-store", signal: asking.signal });
      if (answer.status === 401) return location.reload();
      if (!answer.ok) say(new DOMParser().parseFromString(await answer.text(), "text/html").body.textContent.trim());
    } catch {
      say("The stack does not answer. This page shows what it said last, and asks again.");
    }
    asking.abort();
    if (source) return; // it was opened meanwhile, by a person who came back
    timer = setTimeout(open, wait);
    wait = Math.min(2 * wait, AT_MOST);
  };
  document.addEventListener("visibilitychange", open);
  if (pause) {
    pause.hidden = false;
    pause.addEventListener("click", () => {
      paused = !paused;
      pause.textContent = paused ? "Resume updates" : "Pause updates";
      open();
    });
  }
  open();
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

// What a button did is said until the session's state changes, and not again when the page is loaded anew.
for (const said of document.querySelectorAll("[data-until-changed]")) {
  const state = () => document.querySelector("[data-live] .badge")?.textContent;
  const before = state();
  history.replaceState(null, "", location.pathname);
  document.addEventListener("fresh", () => state() !== before && said.remove());
}

clocks(document);
for (const log of document.querySelectorAll("pre.log")) log.scrollTop = log.scrollHeight;
for (const place of document.querySelectorAll("[data-news]")) follow(place);
