// One job: everything that people look at while they wait, and what they look for when it stands still.

import { el } from "./dom.js";
import { badge, bar } from "./list.js";
import { ago, count, done, ends, moment, percent, span, speed } from "./text.js";

const TERMINAL = new Set(["completed", "failed", "cancelled"]);

export function jobView(job, about, now, more) {
  return [
    el("p", { class: "path" }, el("a", { href: "./", "data-go": "" }, "← All jobs")),
    heading(job),
    question(job, about),
    progressPart(job, now),
    about.controls ? actions(job) : null,
    el("div", { class: "columns" },
      steps(job), workers(job, now), byCategory(job, about), attempts(job, now)),
    errors(job, now),
    lists(job, more, now),
    facts(job, now),
  ];
}

function heading(job) {
  return el("div", { class: "heading" },
    el("h1", { tabindex: -1 }, job.id),
    el("p", {}, badge(job.status, "status"), " ",
      job.health && job.health !== "paused" ? badge(job.health, "health") : null, " ",
      el("span", { class: "kind" }, job.kind)),
    job.reason ? el("p", { class: "reason" }, job.reason) : null,
    control(job));
}

function control(job) {
  const asked = job.control;
  if (!asked || asked.state === "done") return null;
  const by = asked.by ? [" by ", el("bdi", {}, asked.by)] : "";
  return el("p", { class: "note" }, `${asked.intent} was asked`, by, `; workers follow at their next row (${asked.state}).`);
}

function question(job, about) {
  const open = job.approvals.at(-1);
  if (!open || open.approved_at) return null;
  return el("section", { class: "question", "aria-label": "A question" },
    el("p", {}, el("strong", {}, "Waits for an answer: "), el("bdi", {}, open.question)),
    about.controls ? el("button", { type: "button", "data-act": "approve", "data-question": open.question }, "Approve") : null);
}

function progressPart(job, now) {
  const { progress, rate } = job;
  const live = job.status === "running";
  const of = progress.total === null ? "" : ` of ${count(progress.total)}`;
  const counters = [
    ["succeeded", progress.succeeded, "good"], ["failed", progress.failed, "bad"],
    ["skipped", progress.skipped, ""], ["duplicates", progress.duplicates, ""],
  ];
  if (progress.retrying) counters.push(["to retry", progress.retrying, ""]);
  return el("section", { class: "card progress", "aria-label": "Progress" },
    el("div", { class: "big" }, done(progress) === null ? null : el("strong", {}, percent(done(progress))),
      el("span", {}, `${count(progress.processed)}${of} ${progress.unit}`), job.phase ? el("span", { class: "phase" }, job.phase) : null),
    bar(progress, job.id),
    el("dl", { class: "counters" },
      counters.map(([name, number, kind]) => pair(name, count(number), number ? kind : "")),
      pair("rate", live ? speed(rate, progress.unit) : "–"),
      pair("ends", live ? ends(rate, now) : "–", "", live && rate.eta ? moment(rate.eta, now) : ""),
      rate.active_s ? pair("worked", span(rate.active_s)) : null,
      rate.paused_s >= 1 ? pair("paused", span(rate.paused_s)) : null,
      rate.throttled_s >= 1 ? pair("throttled", span(rate.throttled_s)) : null));
}

function pair(name, value, kind = "", title = "") {
  return el("div", { "data-key": name, title: title || null }, el("dt", {}, name), el("dd", { class: kind || null }, value));
}

function actions(job) {
  const ended = TERMINAL.has(job.status);
  const asked = job.control && job.control.state !== "done" ? job.control.intent : "";
  const button = (action, label, { danger = false, sure = "" } = {}) =>
    el("button", { type: "button", "data-act": action, "data-key": action, "data-sure": sure || null,
      class: danger ? "danger" : null }, label);
  const paused = job.status === "paused" || asked === "pause";
  return el("div", { class: "actions", role: "group", "aria-label": "Control this job" },
    ended ? button("retry", "Retry", { sure: `Open a new attempt of ${job.id}? It goes on from its checkpoint.` }) : null,
    !ended && paused ? button("resume", "Resume") : null,
    !ended && !paused ? button("pause", "Pause") : null,
    !ended && asked !== "cancel" ? button("cancel", "Cancel", { danger: true, sure: `Cancel ${job.id}? Its workers save and end.` }) : null);
}

function section(title, ...children) {
  // Without the count, which changes: an element of another key is another element.
  return el("section", { class: "card", "data-key": title.replace(/ \(.*/, "") }, el("h2", {}, title), children);
}

function steps(job) {
  if (!job.steps.length) return null;
  return section("Steps", el("ol", { class: "steps" }, job.steps.map((step) =>
    el("li", { class: `step-${step.status}`, "data-key": step.name },
      el("span", {}, step.name), badge(step.status, "step"),
      step.ended_at ? el("span", { class: "small" }, span((Date.parse(step.ended_at) - Date.parse(step.started_at)) / 1000)) : null))));
}

function workers(job, now) {
  const all = Object.entries(job.workers);
  if (!all.length) return TERMINAL.has(job.status) ? null : section("Workers", el("p", { class: "empty" }, "None is attached."));
  const shown = all.slice(0, 20);
  return section(`Workers (${count(all.length)})`, el("ul", { class: "workers" }, shown.map(([name, worker]) =>
    el("li", { "data-key": name },
      el("span", { class: "name" }, name), badge(worker.health, "health"),
      el("span", { class: "small" }, `process ${worker.pid} on ${worker.host}`,
        worker.last_progress ? `, progress ${ago(worker.last_progress, now)}` : ", no progress yet")))),
    all.length > shown.length ? el("p", { class: "small" }, `and ${count(all.length - shown.length)} more`) : null);
}

function byCategory(job, about) {
  const all = Object.entries(job.progress.by_category).sort((one, other) => other[1] - one[1]);
  if (!all.length) return null;
  const most = all[0][1];
  return section("Failed, by category", el("dl", { class: "categories" }, all.map(([name, number]) =>
    el("div", { "data-key": name }, el("dt", {}, name),
      el("dd", {}, el("span", { class: "thin" }, el("span", { "data-width": ((100 * number) / most).toFixed(1) })), count(number),
        about.controls ? el("button", { type: "button", class: "quiet small", "data-act": "retry", "data-where": name,
          "aria-label": `Retry the failed ${name} items`, "data-sure": `Take the failed ${name} items of ${job.id} out of the counts, to be done once more?` }, "Retry") : null)))));
}

function attempts(job, now) {
  if (!job.attempts.length) return null;
  return section("Attempts", el("ol", { class: "attempts" },
    job.attempts.map((attempt) => el("li", { "data-key": `a-${attempt.number}` },
      `${attempt.number}: `, badge(attempt.outcome, "status"),
      el("span", { class: "small" }, ` ${count(attempt.progress.processed)} processed`,
        attempt.ended_at ? `, ended ${ago(attempt.ended_at, now)}` : "", attempt.reason ? `, ${attempt.reason}` : ""))),
    el("li", { "data-key": "now" }, `${job.attempt}: `, badge(job.status, "status"))));
}

function errors(job, now) {
  if (!job.error_count) return null;
  const last = job.errors.slice(-8).reverse();
  return section(`Errors (${count(job.error_count)})`, el("ul", { class: "errors" }, last.map((error) =>
    el("li", {}, el("code", {}, error.key || "–"), el("span", { class: "badge" }, error.category),
      el("span", {}, error.message), el("time", { class: "small", datetime: error.at }, ago(error.at, now))))),
    job.error_count > last.length ? el("p", { class: "small" }, `the last ${last.length} of ${count(job.error_count)}`) : null);
}

// What is only fetched when somebody opens it, page by page.
function lists(job, more, now) {
  const one = (name, title, rows, next) => el("details", { class: "card", "data-list": name, "data-key": name },
    el("summary", {}, title),
    more[name] === undefined ? el("p", { class: "empty" }, "Loading…")
      : more[name].length ? el("ul", { class: "rows" }, rows) : el("p", { class: "empty" }, "Nothing."),
    next ? el("button", { type: "button", class: "quiet", "data-more": name }, "Show more") : null);
  return el("div", { "data-key": "lists" },
    job.error_count || job.progress.failed ? one("items", "Failed items", (more.items || []).map((item) => el("li", { "data-key": item.key },
      el("code", {}, item.key), el("span", { class: "badge" }, item.category), el("span", {}, item.error),
      el("span", { class: "small" }, `${item.attempts} ${item.attempts === 1 ? "attempt" : "attempts"}, ${ago(item.last_at, now)}`))), more.itemsNext) : null,
    one("history", "History", (more.history || []).map((change) => el("li", { "data-key": String(change.revision) },
      el("code", {}, count(change.revision)), el("time", { class: "small", datetime: change.at }, moment(change.at, now)),
      el("span", {}, change.summary || change.what), el("span", { class: "small" }, change.who))), more.historyNext));
}

function facts(job, now) {
  const rows = [["Created", moment(job.created_at, now)], ["Started", job.started_at && moment(job.started_at, now)],
    ["Changed", ago(job.updated_at, now)], ["Finished", job.finished_at && moment(job.finished_at, now)],
    ["Revision", `${count(job.revision)} (epoch ${job.epoch})`]];
  const labels = Object.entries(job.labels).map(([key, value]) => [key, value]);
  return section("Facts", el("dl", { class: "facts" }, [...rows, ...labels].filter(([, value]) => value)
    .map(([name, value]) => el("div", { "data-key": name }, el("dt", {}, name), el("dd", {}, value)))),
    job.recovered ? el("p", { class: "note" }, `Recovered at revision ${job.recovered.from_revision}; what came after, up to ${job.recovered.lost_up_to}, is lost.`) : null);
}
