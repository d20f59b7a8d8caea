// The facts of the page, and numbers out of base64 when they are first asked for.

const data = JSON.parse(document.getElementById("data").textContent);
const runs = data.runs.map((run, index) => ({ ...run, index }));
const settings = data.groups.map((members, index) => ({ index, members }));
for (const setting of settings) for (const run of setting.members) runs[run].setting = setting;

const decoded = new Map();

function bytes(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const raw = atob(text);
  const found = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) found[i] = raw.charCodeAt(i);
  return found;
}

function numbers(index, Kind) {
  const key = `${Kind.name}${index}`;
  if (!decoded.has(key)) decoded.set(key, new Kind(bytes(data.arrays[index]).buffer));
  return decoded.get(key);
}

// One metric of one run: what is drawn (thinned, extremes kept) and what is averaged (means of all rows).
function curve(metric, run) {
  const found = curveTable(metric).get(run);
  if (!found) return null;
  const [, rows, steps, values, meanSteps, means] = found;
  const exact = { steps: numbers(steps, Uint32Array), values: numbers(values, Float32Array) };
  if (means === undefined) return { rows, exact, even: exact };
  return { rows, exact, even: { steps: numbers(meanSteps, Uint32Array), values: numbers(means, Float32Array) } };
}

const tables = new Map();
function curveTable(metric) {
  if (!tables.has(metric)) tables.set(metric, new Map((data.curves[metric] ?? []).map((told) => [told[0], told])));
  return tables.get(metric);
}

// Steps of a run as what the horizontal axis shows; null where the run has not recorded it.
function along(axis, run, steps) {
  if (axis === "step") return steps;
  const clock = data.clocks[run][axis];
  if (!clock.length) return null;
  const [at, told] = [numbers(clock[0], Uint32Array), numbers(clock[1], Float32Array)];
  return Float64Array.from(steps, (step) => between(at, told, step, true));
}

// The value at x on the line through (xs, ys); NaN outside, unless the ends go on.
function between(xs, ys, x, goOn = false) {
  const last = xs.length - 1;
  if (last < 0) return NaN;
  if (x <= xs[0]) return x === xs[0] || goOn ? ys[0] : NaN;
  if (x >= xs[last]) return x === xs[last] || goOn ? ys[last] : NaN;
  let [low, high] = [0, last];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] <= x) low = middle;
    else high = middle;
  }
  return ys[low] + ((ys[high] - ys[low]) * (x - xs[low])) / (xs[high] - xs[low]);
}

// ------------------------------------------------------------------------------------------------ what keys and metrics say

const keyOf = new Map(data.keys.map((key) => [key.key, key]));
const isClass = (key) => key.key.endsWith("_target_");
const tells = data.keys.filter((key) => !key.seed).sort((a, b) => isClass(b) - isClass(a)); // a stable sort: classes first
const ranked = data.metrics.filter((metric) => runs.some((run) => metric in run.best));
const LESS = /loss|error|nll|perplexity|rmse|\bmse|\bmae|grad_norm|ece|brier/;

const better = (metric) => (metric === data.monitor ? data.maximised : !LESS.test(metric));
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

// A number as short as four digits tell it.
function brief(value) {
  if (!isNumber(value)) return value === null || value === undefined ? "–" : String(value);
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e6) return value.toLocaleString("en");
  if (size !== 0 && (size < 1e-3 || size >= 1e6))
    return value
      .toExponential(2)
      .replace(/\.?0+e/, "e")
      .replace("e+", "e");
  return String(Number(value.toPrecision(4)));
}

function duration(seconds) {
  if (!isNumber(seconds)) return "–";
  if (seconds < 100) return `${Number(seconds.toPrecision(3))} s`;
  if (seconds < 6000) return `${(seconds / 60).toFixed(1)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

const moment = (seconds) =>
  isNumber(seconds)
    ? new Date(seconds * 1000).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" })
    : "";

// A class says by its name what it is; any other value needs its key.
const keyText = (key, value) => (isClass(keyOf.get(key)) ? brief(value) : `${keyOf.get(key).label} ${brief(value)}`);

// A setting in words: its keys but the seed; without any the name of its run.
function settingText(setting) {
  const first = runs[setting.members[0]];
  const known = tells.filter((key) => first.keys[key.key] !== null).map((key) => keyText(key.key, first.keys[key.key]));
  if (known.length) return known.join(" · ");
  return setting.members.length === 1
    ? first.name
    : settings.length === 1
      ? "all runs"
      : `setting ${setting.index + 1}`;
}

function runText(run) {
  const seed = data.keys.find((key) => key.seed);
  const words = settingText(run.setting);
  if (run.setting.members.length === 1) return words;
  const same = run.setting.members.filter((other) => runs[other].seed === run.seed).length > 1;
  return seed && isNumber(run.seed) && !same ? `${words} · seed ${run.seed}` : `${words} · ${run.name}`;
}

// ------------------------------------------------------------------------------------------------------------ statistics

// Two-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom.
const T95 = [
  12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.16, 2.145, 2.131, 2.12, 2.11,
  2.101, 2.093, 2.086, 2.08, 2.074, 2.069, 2.064, 2.06, 2.056, 2.052, 2.048, 2.045, 2.042,
];

// A metric over the seeds of a setting: of the runs that have finished, if any has, and each seed once.
function overSeeds(some, metric) {
  const known = some.filter((run) => isNumber(run.best[metric]));
  const finished = known.filter((run) => run.state === "finished");
  const bySeed = new Map();
  for (const run of finished.length ? finished : known) {
    const seed = isNumber(run.seed) ? run.seed : run.name;
    bySeed.set(seed, [...(bySeed.get(seed) ?? []), run.best[metric]]);
  }
  return summary([...bySeed.values()].map((values) => summary(values).mean));
}

// Mean, sample standard deviation and half the 95 % interval of the mean; the last two NaN for one value.
function summary(values) {
  const known = values.filter(isNumber);
  const n = known.length;
  const mean = known.reduce((sum, value) => sum + value, 0) / n;
  const sd = Math.sqrt(known.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (n - 1));
  return { n, mean, sd: n > 1 ? sd : NaN, half: n > 1 ? ((T95[n - 2] ?? 1.96) * sd) / Math.sqrt(n) : NaN };
}
