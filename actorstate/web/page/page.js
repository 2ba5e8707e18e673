// What is shown and when it is asked for. The address says which job (`?job=`), so reload, back, a second tab
// and a shared link all lead to the same place. A state is only ever replaced by a newer one (epoch, revision).

import { el, show } from "./dom.js";
import { jobView } from "./job.js";
import { listView } from "./list.js";
import { done, plain } from "./text.js";

const EVERY_MS = 1000;
const CALM_MS = 5000; // nothing has changed for a while, the job has ended, or events bring the news
const LONGEST_MS = 10000;
const GIVE_UP_MS = 30000;
const CALM_AFTER = 30;
const ASLEEP_MS = 5000; // a clock that jumped so far: the machine slept, or the browser froze this tab
const AWAY = "The writer does not answer; this is the last known state";

const main = document.getElementById("main");
const line = document.getElementById("line");
const said = document.getElementById("said");
const sure = document.getElementById("sure");

const known = new Map(); // newest state by job id
let about = { controls: false, events: false };
let place = {};
let page = null;
let tags = { page: "", job: "" };
let skewMs = 0;
let failures = 0;
let unchanged = 0;
let timer = 0;
let asking = null;
let events = null;
let missing = "";
let trouble = ""; // why there is nothing to show yet
let drawn = Date.now();
let shown = 0; // rows of the list beyond the first page
let askedFor = null; // the button whose question is open
let back = 0; // how far down the reader was who came back to the list
let more = {}; // lists of the job that somebody has opened

function readPlace() {
  const query = new URLSearchParams(location.search);
  return { job: query.get("job") || "", status: query.get("status") || "" };
}

function go(query) {
  history.replaceState({ shown, top: scrollY }, "");
  history.pushState(null, "", query || "./");
  arrive();
  const heading = main.querySelector("h1");
  if (heading) heading.focus({ preventScroll: true });
  scrollTo(0, 0);
}

function arrive() {
  const before = place;
  place = readPlace();
  if (before.job !== place.job || before.status !== place.status) {
    tags = { page: "", job: "" };
    page = null;
    missing = trouble = "";
    unchanged = 0;
    shown = (history.state && history.state.shown) || 0;
    back = (history.state && history.state.top) || 0;
    more = {};
    said.replaceChildren();
  }
  draw();
  follow();
  askSoon(0);
}

// --- asking -----------------------------------------------------------------------------------------------------

function askSoon(delayMs) {
  clearTimeout(timer);
  if (asking) asking.abort();
  asking = null;
  timer = setTimeout(ask, delayMs);
}

async function ask() {
  if (document.hidden) return; // asked again as soon as somebody looks
  const mine = (asking = new AbortController());
  const late = setTimeout(() => mine.abort(), GIVE_UP_MS);
  try {
    await (place.job ? askJob(mine.signal) : askList(mine.signal));
  } catch (error) {
    if (asking !== mine) return; // somebody asked for something else meanwhile
    failures += 1;
    tell(failures > 1 ? "No connection to the server; trying again" : null);
  } finally {
    clearTimeout(late);
  }
  if (asking !== mine) return;
  asking = null;
  draw();
  timer = setTimeout(ask, delay());
}

function delay() {
  if (failures) return Math.min(LONGEST_MS, EVERY_MS * 2 ** (failures - 1)) * (0.8 + 0.4 * Math.random());
  const job = known.get(place.job);
  const calm = unchanged > CALM_AFTER || missing || (job && job.finished_at) || (events && events.live);
  return calm ? CALM_MS : EVERY_MS;
}

async function fetched(path, signal) {
  // The browser's own cache revalidates by ETag: what has not changed costs a 304, after F5 too.
  const response = await fetch(path, { signal, cache: "no-cache", credentials: "same-origin" });
  const date = Date.parse(response.headers.get("Date") || "");
  if (date && !response.headers.get("Age")) skewMs = date + 500 - Date.now();
  return response;
}

async function askJob(signal) {
  const job = place.job;
  const response = await fetched(`api/jobs/${encodeURIComponent(job)}`, signal);
  if (response.status === 404 || response.status === 400) {
    missing = job;
    known.delete(job);
    heard("");
  } else if (!response.ok) {
    await refused(response);
  } else {
    missing = "";
    const tag = response.headers.get("ETag") || "";
    if (tag && tag === tags.job) unchanged += 1;
    else if (keep(await response.json())) [tags.job, unchanged] = [tag, 0];
    answered(response);
  }
}

// What is shown is right, but perhaps of before the writer went away.
function answered(response) {
  if (!response.headers.has("X-Actorstate-Stale")) return heard("");
  failures += 1;
  tell(AWAY);
}

async function askList(signal) {
  const query = new URLSearchParams({ limit: String(50 + shown) });
  if (place.status) query.set("status", place.status);
  const response = await fetched(`api/jobs?${query}`, signal);
  if (!response.ok) return void (await refused(response));
  const tag = response.headers.get("ETag") || "";
  if (tag && tag === tags.page) unchanged += 1;
  else [page, tags.page, unchanged] = [await response.json(), tag, 0];
  answered(response);
  if (!back) return;
  draw();
  scrollTo(0, back);
  back = 0;
}

async function refused(response) {
  failures += 1;
  if (response.status === 401 || response.status === 403) return tell("You are not logged in any more; reload this page");
  const seen = place.job ? known.has(place.job) : page;
  if (response.status === 503) trouble = seen ? "" : "The writer does not answer; trying again";
  else trouble = (await response.json().catch(() => ({}))).detail || `The server failed (${response.status})`;
  tell(trouble || AWAY);
}

function heard(words) {
  failures = 0;
  trouble = "";
  tell(words);
}

function tell(words) {
  if (words === null) return;
  const text = words || "Live";
  line.classList.toggle("off", Boolean(words));
  if (line.textContent !== text) line.textContent = text;
}

// Whether it is news. An answer that was overtaken by a newer one must not turn the page back.
function keep(job) {
  const before = known.get(job.id);
  const newer = !before || job.epoch > before.epoch || (job.epoch === before.epoch && job.revision > before.revision);
  if (newer) known.set(job.id, job);
  return newer || (job.epoch === before.epoch && job.revision === before.revision);
}

// Lists of a job: fetched when they are opened, and on from where they end.
const LISTS = {
  items: { path: "items?outcome=failed&limit=50", rows: "items", next: "after" },
  history: { path: "history?limit=50", rows: "changes", next: "before" },
};

async function load(name) {
  const { job } = place;
  const { path, rows, next } = LISTS[name];
  const from = more[`${name}Next`];
  try {
    const response = await fetched(`api/jobs/${encodeURIComponent(job)}/${path}${from ? `&${next}=${encodeURIComponent(from)}` : ""}`);
    if (!response.ok || place.job !== job) return;
    const answer = await response.json();
    more[name] = [...((from && more[name]) || []), ...answer[rows]];
    more[`${name}Next`] = answer[next];
    draw();
  } catch {
    said.replaceChildren("No connection to the server; close the list and open it again");
  }
}

// --- events: one stream for all tabs of this browser -------------------------------------------------------------

function follow() {
  if (events && events.job === place.job) return;
  if (events) events.end();
  events = null;
  if (!place.job || !about.events || !navigator.locks || !window.BroadcastChannel) return;
  const name = `actorstate:${location.pathname}:${place.job}`;
  const channel = new BroadcastChannel(name);
  const released = new AbortController();
  const mine = (events = { job: place.job, live: false, end: () => { released.abort(); channel.close(); } });
  const take = (data) => {
    mine.live = true;
    if (keep(JSON.parse(data)) && place.job === mine.job) { heard(""); draw(); }
  };
  channel.onmessage = (message) => take(message.data);
  navigator.locks.request(name, { signal: released.signal }, () => new Promise((resolve) => {
    const source = new EventSource(`api/jobs/${encodeURIComponent(mine.job)}/events`);
    source.onmessage = (message) => { take(message.data); channel.postMessage(message.data); };
    source.onerror = () => { mine.live = false; };
    released.signal.addEventListener("abort", () => { source.close(); resolve(); });
  })).catch(() => {});
}

// --- showing ----------------------------------------------------------------------------------------------------

function draw() {
  render(Date.now() + skewMs);
  // Another tab was faster: what is asked about is not to be had any more.
  if (sure.open && !askedFor.isConnected) sure.close();
}

function render(now) {
  if (!place.job) {
    document.title = "Jobs";
    show(main, ...listView(page, place, now, trouble));
    return;
  }
  const job = known.get(place.job);
  const far = job ? done(job.progress) : null;
  document.title = `${far === null ? "" : `${Math.floor(far)} % `}${place.job}`;
  if (job) show(main, ...jobView(job, about, now, more));
  else show(main, el("p", { class: "path" }, el("a", { href: "./", "data-go": "" }, "← All jobs")),
    el("div", { class: "heading" }, el("h1", { tabindex: -1 }, place.job)), el("p", { class: "empty" }, missing ? "There is no such job (any more)." : trouble || "Loading…"));
}

// --- doing ------------------------------------------------------------------------------------------------------

async function act(button) {
  const { act: action, question, where, sure: words } = button.dataset;
  const job = place.job;
  if (words && !(await agreed(words, button))) return;
  said.replaceChildren();
  const focused = document.activeElement === button;
  const [group, at] = [button.parentElement, [...button.parentElement.children].indexOf(button)];
  button.disabled = true;
  try {
    const response = await fetch(`api/jobs/${encodeURIComponent(job)}/${action}`, {
      method: "POST", credentials: "same-origin", headers: { "X-Actorstate": "1", "Content-Type": "application/json" },
      body: JSON.stringify(where ? { where } : question ? { question } : {}),
    });
    const answer = await response.json();
    if (response.ok) keep(answer);
    else throw new Error(answer.detail || response.statusText);
  } catch (error) {
    said.replaceChildren(plain(`${action}: ${error.message}`));
  }
  button.disabled = false;
  draw();
  if (focused && place.job === job) refocus(button, group, at);
  askSoon(0);
}

// Whoever works with the keyboard goes on where he was: at the button, or at what has taken its place.
function refocus(button, group, at) {
  if (document.activeElement !== document.body && document.activeElement !== button) return;
  const there = group.isConnected ? [...group.children].filter((child) => child.tagName === "BUTTON") : [];
  const next = button.isConnected ? button : there[Math.min(at, there.length - 1)] || main.querySelector("h1");
  next.focus({ preventScroll: true });
}

function agreed(words, button) {
  askedFor = button;
  document.getElementById("sure-question").textContent = plain(words);
  const yes = document.getElementById("sure-yes");
  yes.textContent = `Yes, ${button.textContent.toLowerCase()} it`;
  return new Promise((resolve) => {
    const end = (answer) => () => { sure.close(); resolve(answer); };
    yes.onclick = end(true);
    document.getElementById("sure-no").onclick = end(false);
    sure.oncancel = sure.onclose = () => resolve(false);
    sure.showModal();
    document.getElementById("sure-no").focus();
  });
}

document.addEventListener("click", (event) => {
  const plain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
  const target = event.target.closest("[data-go],[data-act],[data-filter],[data-more]");
  if (!target || !plain) return;
  const { go: job, filter } = target.dataset;
  if (job !== undefined) { event.preventDefault(); go(job && `?job=${encodeURIComponent(job)}`); }
  else if (filter !== undefined) go(filter && `?status=${filter}`);
  else if (place.job && target.dataset.more) load(target.dataset.more);
  else if (target.dataset.more) { shown = Math.min(950, shown + 100); askSoon(0); }
  else act(target);
});
// Closed and opened again it is fetched anew.
main.addEventListener("toggle", (event) => {
  const { list } = event.target.dataset;
  if (!list || !event.target.open) return;
  delete more[list];
  delete more[`${list}Next`];
  load(list);
}, true);
addEventListener("popstate", arrive);
addEventListener("online", () => askSoon(0));
addEventListener("pageshow", (event) => { if (event.persisted) askSoon(0); });
// After sleep or in a hidden tab timers stand still: whoever looks again gets news at once.
document.addEventListener("visibilitychange", () => { if (!document.hidden) askSoon(0); });
setInterval(() => {
  const slept = Date.now() - drawn > ASLEEP_MS;
  drawn = Date.now();
  if (document.hidden) return;
  if (slept) askSoon(0); // what was under way died with the connection, and would be waited for
  draw();
}, EVERY_MS);

arrive();
fetch("api/about", { cache: "no-store", credentials: "same-origin" }).then(async (response) => {
  if (response.ok) about = await response.json();
  draw();
  follow();
}).catch(() => {});
