// Numbers, times and spans as people read them, in the reader's own language settings.

// Marks that would show letters in another order than they are stored in: people approve what they read.
const REORDERS = /[\u061C\u200E\u200F\u202A-\u202E\u2066-\u2069]/g;
export const plain = (text) => String(text).replace(REORDERS, "\uFFFD");

const whole = new Intl.NumberFormat();
const tenths = new Intl.NumberFormat(undefined, { minimumFractionDigits: 1, maximumFractionDigits: 1 });

export const count = (number) => whole.format(number);
// Rounded down: 100 % is said of nothing less than all.
export const percent = (value) => (value === null ? "–" : `${tenths.format(Math.floor(value * 10) / 10)} %`);

// Nothing of nothing is not yet all of it.
export const done = (progress) => (progress.total === 0 && !progress.processed ? null : progress.percent);

export function speed(rate, unit) {
  if (rate.per_s === null) return "–";
  return `${rate.per_s >= 10 ? whole.format(Math.round(rate.per_s)) : rate.per_s.toPrecision(2)} ${unit}/s`;
}

export function span(seconds) {
  const all = Math.max(0, Math.round(seconds));
  const [days, hours, minutes] = [Math.floor(all / 86400), Math.floor((all % 86400) / 3600), Math.floor((all % 3600) / 60)];
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${String(minutes).padStart(2, "0")} min`;
  if (minutes >= 10) return `${minutes} min`;
  return minutes ? `${minutes} min ${String(all % 60).padStart(2, "0")} s` : `${all} s`;
}

export const ago = (iso, now) => {
  const seconds = (now - Date.parse(iso)) / 1000;
  if (seconds < 2) return "just now";
  return seconds < 60 ? `${Math.round(seconds)} s ago` : `${span(60 * Math.floor(seconds / 60)).replace(" 00 s", "")} ago`;
};

export function moment(iso, now) {
  const at = new Date(iso);
  const sameDay = at.toDateString() === new Date(now).toDateString();
  return sameDay ? at.toLocaleTimeString() : at.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

const LATE_S = 10;

export function ends(rate, now) {
  if (!rate.eta) return "–";
  const left = (Date.parse(rate.eta) - now) / 1000;
  if (left > 0) return `in ${span(left)}`;
  return left > -LATE_S ? "any moment" : "–"; // it should have by now: nobody knows
}
