// Checks and stores a file of the person's own, puts it into the form of a new session, and says there what is in a data set.
"use strict";

const HEAD = 1024 * 1024; // bytes that are looked at before the file is sent

// What a file is sent as. A script whose name does not say what it is counts as Python, and is refused if it is not.
function suffixOf(place, file) {
  if ("weights" in place.dataset) return ".weights";
  if (!("script" in place.dataset)) return ".jsonl";
  return file.name.endsWith(".sh") ? ".sh" : ".py";
}

// Where a file is sent to be checked by its beginning, and where to be stored.
function address(place, file, suffix, only) {
  if ("dag" in place.dataset) return `${place.dataset.upload}?${new URLSearchParams({ name: file.name.replace(/\.py$/, "") })}`;
  const more = only ? { only: "check", model: place.dataset.model || "" } : { name: file.name || "" };
  return `${place.dataset.upload}?${new URLSearchParams({ suffix, ...more })}`;
}

function send(place, body, to, onProgress) {
  return new Promise((resolve, reject) => {
    const call = new XMLHttpRequest(); // fetch does not tell how far an upload is
    call.open("POST", to);
    call.setRequestHeader("Tarmac-Proof", place.dataset.proof);
    call.setRequestHeader("Content-Type", "application/octet-stream");
    if (onProgress) call.upload.addEventListener("progress", (event) => onProgress(event.loaded / event.total));
    call.addEventListener("load", () => resolve({ ok: call.status < 400, html: call.responseText }));
    call.addEventListener("error", () => reject(new Error("The stack does not answer. Choose the file again.")));
    call.send(body);
  });
}

// The header of a file in a tar archive, as POSIX has it (ustar).
function header(name, size) {
  const bytes = new Uint8Array(512);
  const put = (text, at) => bytes.set(new TextEncoder().encode(text), at);
  const octal = (number, digits) => number.toString(8).padStart(digits, "0");
  put(name, 0);
  put(`${octal(0o644, 7)}\0${octal(0, 7)}\0${octal(0, 7)}\0${octal(size, 11)}\0${octal(0, 11)}\0        0`, 100);
  put("ustar\0" + "00", 257);
  const sum = bytes.reduce((all, one) => all + one, 0);
  put(`${octal(sum, 6)}\0 `, 148);
  return bytes;
}

// One archive of a folder's weights: the stack says which of the files they are. No file is read here.
async function packed(place, files) {
  const direct = files.filter((file) => file.webkitRelativePath.split("/").length <= 2);
  const answer = await fetch(place.dataset.weights, {
    method: "POST",
    headers: { "Tarmac-Proof": place.dataset.proof, "Content-Type": "application/json" },
    body: JSON.stringify({ names: direct.map((file) => file.name) }),
  });
  if (!answer.ok) throw new Error(new DOMParser().parseFromString(await answer.text(), "text/html").body.textContent.trim());
  const chosen = await answer.json();
  if (chosen.problem) throw new Error(chosen.problem);
  const parts = [];
  for (const name of chosen.names) {
    const file = direct.find((one) => one.name === name);
    parts.push(header(name, file.size), file, new Uint8Array((512 - (file.size % 512)) % 512));
  }
  return new Blob([...parts, new Uint8Array(1024)]);
}

function show(place, html) {
  const fresh = new DOMParser().parseFromString(html, "text/html").body;
  place.querySelector("[data-said]").replaceChildren(...fresh.childNodes);
}

function complain(place, text) {
  const line = document.createElement("p");
  line.className = "wrong";
  line.textContent = text;
  place.querySelector("[data-said]").replaceChildren(line);
}

function offer(place, file) {
  const stored = place.querySelector("[data-reference]");
  const field = "weights" in place.dataset ? "base_model" : "script" in place.dataset ? "script" : "";
  if (field) {
    document.getElementById(field).value = stored.dataset.reference;
    return;
  }
  const use = place.querySelector("[data-use]")?.value;
  const rows = [...document.querySelectorAll("[data-set]")];
  const row = use === "more" ? rows.find((one) => !one.querySelector("select").value) : rows[0];
  // The names of the session that is repeated go with its files.
for (const field of document.querySelectorAll("[data-prefilled] input")) field.dataset.made = field.value;
for (const select of document.querySelectorAll("[data-set] select")) {
    if ([...select.options].some((option) => option.value === stored.dataset.reference)) continue;
    select.add(new Option(`${file.name} · ${stored.dataset.text}`, stored.dataset.reference));
  }
  if (!rows.length) return list(); // the page of data sets has no form
  if (!row) return complain(place, `It is stored. All ${rows.length} data sets are chosen already: press "One more data set", and choose it there.`);
  row.closest("details")?.setAttribute("open", "");
  const select = row.querySelectorAll("select")[use === "eval" ? 1 : 0];
  select.value = stored.dataset.reference;
  // What was wrong with the form before may be mended by this.
  for (const old of document.querySelectorAll("[data-problems]")) old.remove();
  for (const old of row.querySelectorAll(".wrong")) old.remove();
  tell(select);
  const name = row.querySelector("input");
  // A name that was made of the file before goes with it; one that a person wrote stays.
  if (use === "eval" || (name.value && name.value !== name.dataset.made)) return;
  name.value = name.dataset.made = file.name.replace(/\.[^.]*$/, "").replace(/[^A-Za-z0-9_.-]/g, "-").slice(0, 60);
}

// Shows the list of data sets as it is now.
async function list() {
  const page = new DOMParser().parseFromString(await (await fetch(location.href, { cache: "no-store" })).text(), "text/html");
  renew(document.querySelector("[data-list]"), page.querySelector("[data-list]").innerHTML);
}

// Calls a data set that is trained on as earlier sessions did, unless a person has written a name.
function name(select) {
  const row = select.closest("[data-set]");
  const field = row.querySelector("input");
  if (select !== row.querySelector("select") || (field.value && field.value !== field.dataset.made)) return;
  const called = select.selectedOptions[0].text.split(" · ")[0].split(", ")[0];
  if (/^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/.test(called)) field.value = field.dataset.made = called;
}

const known = new Map(); // what is in a data set never changes

// Says below the name of a data set that is chosen how many lines it has, which labels, and since when it is stored.
async function tell(select) {
  const place = select.closest(".field").querySelector("[data-facts]");
  const [id, name] = select.value.split("/");
  if (!place) return;
  place.replaceChildren();
  if (!name?.startsWith(`${id}.`)) return; // nothing, or an address outside the store
  place.textContent = "It is being read ...";
  try {
    if (!known.has(name)) known.set(name, fetch(place.dataset.facts + encodeURIComponent(name)).then((answer) => answer.text()));
    const html = await known.get(name);
    if (select.value !== `${id}/${name}`) return;
    place.replaceChildren(...new DOMParser().parseFromString(html, "text/html").body.childNodes);
    clocks(place);
  } catch {
    known.delete(name);
    place.textContent = "The stack does not answer. Choose it again.";
  }
}

let underWay = 0; // uploads: a form is sent when they have ended

function busy(more) {
  underWay += more;
  for (const button of document.querySelectorAll("form.new button:not([type=button])")) button.disabled = underWay > 0;
}

// The numbers of the classes in the last table that was read, since a class has one number in all files of a request; and
// those from before each file, with which it is read again.
let classes = "{}";
const before = new Map();

// How a person says that a table is read; nothing where there are no fields for it, or nothing stands in them.
function howRead(place) {
  const chosen = {};
  for (const field of place.querySelectorAll("[data-option]")) {
    if (field.value) chosen[field.dataset.option] = field.value === "one" && field.tagName === "SELECT" ? "" : field.value;
  }
  return chosen;
}

// Where a file goes that is refused as lines, if it may be a table or an export; "": nowhere.
function readAddress(place, file) {
  const how = howRead(place);
  const order = place.querySelector("[data-order]")?.value.split(",").map((name) => name.trim()).filter(Boolean) || [];
  if (order.length) how.classes = JSON.stringify(Object.fromEntries(order.map((name, number) => [name, number])));
  const other = place.querySelector("[data-other]") || Object.keys(how).length;
  if (!("read" in place.dataset) || !other || file.size > Number(place.dataset.most)) return "";
  if (!before.has(file)) before.set(file, classes);
  const known = { name: file.name, model: place.dataset.model || "", classes: before.get(file) };
  return `${place.dataset.read}?${new URLSearchParams({ ...known, ...how })}`;
}

async function take(place, file) {
  const progress = place.querySelector("progress");
  const suffix = suffixOf(place, file);
  place.querySelector("[data-said]").textContent = "It is being checked ...";
  busy(1);
  try {
    const to = address(place, file, suffix, false);
    let read = "";
    if (!("dag" in place.dataset)) {
      const head = await send(place, file.slice(0, HEAD), address(place, file, suffix, true));
      show(place, head.html);
      if (!head.ok) return;
      read = readAddress(place, file);
      if (read) place.querySelector("[data-said]").textContent = "It is being read ...";
      else if (place.querySelector(".wrong")) return;
    }
    progress.hidden = false;
    const stored = await send(place, file, read || to, (done) => (progress.value = done));
    if (stored.ok) show(place, stored.html);
    else complain(place, new DOMParser().parseFromString(stored.html, "text/html").body.textContent.trim());
    if (read) remember(place, file);
    if (stored.ok && place.querySelector("[data-reference]") && !("dag" in place.dataset)) offer(place, file);
  } catch (error) {
    complain(place, error.message);
  } finally {
    progress.hidden = true;
    busy(-1);
  }
}

// A table that was read, or could not be, can be read again in another way without being chosen again.
function remember(place, file) {
  const again = place.querySelector("[data-again]");
  again.hidden = false;
  again.onclick = () => take(place, file);
  if (place.querySelector(".wrong")) again.closest("details").open = true;
  else classes = place.querySelector("[data-classes]").dataset.classes;
}

for (const field of document.querySelectorAll("[data-option], [data-order]")) {
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault(); // it would send the form
    field.closest("details").querySelector("[data-again]:not([hidden])")?.click();
  });
}

for (const select of document.querySelectorAll("[data-set] select")) {
  select.addEventListener("change", () => {
    name(select);
    tell(select);
  });
  if (select.value) tell(select);
}
for (const place of document.querySelectorAll("[data-upload]")) {
  place.hidden = false;
  const input = place.querySelector("input[type=file]");
  if ("weights" in place.dataset) {
    input.addEventListener("change", async () => {
      if (!input.files.length) return;
      try {
        await take(place, await packed(place, [...input.files]));
      } catch (error) {
        complain(place, error.message);
      }
    });
    continue; // a folder that is dropped is not read
  }
  input.addEventListener("change", () => {
    if (input.files[0]) take(place, input.files[0]);
    input.value = ""; // the same file, chosen again, is taken again
  });
  place.addEventListener("dragover", (event) => {
    event.preventDefault();
    place.classList.add("over");
  });
  place.addEventListener("dragleave", () => place.classList.remove("over"));
  place.addEventListener("drop", (event) => {
    event.preventDefault();
    place.classList.remove("over");
    if (event.dataTransfer.files[0]) take(place, event.dataTransfer.files[0]);
  });
}

for (const button of document.querySelectorAll("[data-press]")) {
  button.hidden = false;
  const pressed = document.getElementById(button.dataset.press);
  button.addEventListener("click", () => pressed.form.requestSubmit(pressed));
}
