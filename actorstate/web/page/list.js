// The list: one row a job, the newest first.

import { el } from "./dom.js";
import { ago, count, done, ends, percent, speed } from "./text.js";

const STATUSES = ["pending", "running", "waiting", "paused", "completed", "failed", "cancelled"];

export function badge(word, kind) {
  return word ? el("span", { class: `badge ${kind}-${word}` }, word) : null;
}

export function listView(page, filters, now, trouble) {
  const jobs = page ? page.jobs : null;
  const damaged = page ? page.damaged : [];
  return [
    el("h1", { tabindex: -1 }, "Jobs"),
    el("div", { class: "filters", role: "group", "aria-label": "Which jobs" },
      ["", ...STATUSES].map((status) =>
        el("button", { type: "button", class: "filter", "data-filter": status, "data-key": `f-${status}`,
          "aria-pressed": String((filters.status || "") === status) }, status || "all"))),
    jobs === null ? el("p", { class: "empty" }, trouble || "Loading…") : jobs.length || damaged.length ? table(jobs, damaged, now) : nothing(filters),
    page && page.after ? el("button", { type: "button", class: "quiet", "data-more": page.after }, "Show more") : null,
  ];
}

function nothing(filters) {
  const what = filters.status ? `No job is ${filters.status}.` : "There are no jobs yet.";
  return el("p", { class: "empty" }, what);
}

function table(jobs, damaged, now) {
  const head = ["Job", "Status", "Progress", "Rate", "Ends", "Changed"];
  return el("table", { class: "jobs" },
    el("thead", {}, el("tr", {}, head.map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", {}, damaged.map(lost), jobs.map((job) => row(job, now))));
}

// A job that cannot be read stands first: the others of the page can, and somebody has to look.
function lost(job) {
  return el("tr", { "data-key": `damaged-${job}`, class: "damaged" },
    el("th", { scope: "row" }, job),
    el("td", { "data-label": "Status" }, badge("damaged", "health")),
    el("td", { "data-label": "Progress", colspan: 4 }, "What is stored of this job is damaged. It is kept as it is; an operator sees more with ",
      el("code", {}, "actorstate verify")));
}

function row(job, now) {
  const { progress } = job;
  const live = job.status === "running";
  const cell = (label, ...children) => el("td", { "data-label": label }, children);
  return el("tr", { "data-key": job.id },
    el("th", { scope: "row" },
      el("a", { href: `?job=${encodeURIComponent(job.id)}`, "data-go": job.id }, job.id),
      el("span", { class: "kind" }, job.kind)),
    cell("Status", badge(job.status, "status"), " ",
      job.health && job.health !== "healthy" && job.health !== "paused" ? badge(job.health, "health") : null,
      job.awaits_approval ? badge("approval", "needs") : null),
    cell("Progress", bar(progress, job.id), el("span", { class: "small" },
      done(progress) === null ? "" : `${percent(done(progress))} · `, `${count(progress.processed)}${progress.total === null ? "" : ` of ${count(progress.total)}`} ${progress.unit}`,
      progress.failed ? el("span", { class: "bad" }, ` · ${count(progress.failed)} failed`) : null)),
    cell("Rate", live ? speed(job.rate, progress.unit) : ""),
    cell("Ends", live ? ends(job.rate, now) : ""),
    cell("Changed", el("time", { datetime: job.updated_at }, ago(job.updated_at, now))));
}

// One bar, by outcome. Its value is told to screen readers as one number, or as unknown.
export function bar(progress, name) {
  const total = progress.total === null ? progress.processed : Math.max(progress.total, progress.processed);
  const share = (number) => (total ? Math.min(100, (100 * number) / total).toFixed(2) : "0");
  const parts = [["done", progress.succeeded], ["skipped", progress.skipped + progress.duplicates], ["failed", progress.failed]];
  const known = progress.percent !== null;
  return el("div", { class: known ? "bar" : "bar unknown", role: "progressbar", "aria-label": `Progress of ${name}`,
      "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": known ? Math.floor(done(progress)) : null,
      "aria-valuetext": `${percent(done(progress))}, ${count(progress.processed)} ${progress.unit} processed` },
    parts.map(([kind, number]) => el("span", { class: `part ${kind}`, "data-width": known ? share(number) : "0", "data-key": kind })));
}
