// Curves into lines: smoothed, laid over one axis, and joined over the runs of a setting.

// Exponential moving average, debiased: each value weighs less by half every `half` steps that lie between.
function smooth(steps, values, half) {
  if (!half) return values;
  const found = new Float64Array(values.length);
  let [sum, weight, before] = [0, 0, steps[0]];
  for (let i = 0; i < values.length; i++) {
    if (!Number.isFinite(values[i])) {
      found[i] = NaN;
      continue;
    }
    const keep = 2 ** (-(steps[i] - before) / half);
    sum = sum * keep + values[i];
    weight = weight * keep + 1;
    before = steps[i];
    found[i] = sum / weight;
  }
  return found;
}

// The line of one run: its thinned values, or the average of all of its rows.
function runLine(metric, run, options) {
  const found = curve(metric, run.index);
  if (!found) return null;
  const part = options.half ? found.even : found.exact;
  const xs = along(options.axis, run.index, part.steps);
  if (!xs) return null;
  const ys = smooth(part.steps, part.values, options.half);
  return { runs: [run], xs, ys, color: colorOf(run), points: part.steps.length, rows: found.rows };
}

// The runs of a setting as one line: mean, and least to largest or one standard deviation, at common places.
function bandLine(metric, members, options) {
  const some = members
    .map((run) => {
      const found = curve(metric, run.index);
      const xs = found && along(options.axis, run.index, found.even.steps);
      return xs && { run, xs, ys: smooth(found.even.steps, found.even.values, options.half), rows: found.rows };
    })
    .filter(Boolean);
  if (!some.length) return null;
  const xs = common(some.map((one) => one.xs));
  const [ys, low, high, counts] = Array.from({ length: 4 }, () => new Float64Array(xs.length).fill(NaN));
  xs.forEach((x, n) => {
    const told = some.map((one) => between(one.xs, one.ys, x)).filter(Number.isFinite);
    counts[n] = told.length;
    if (!told.length) return;
    const { mean, sd } = summary(told);
    ys[n] = mean;
    low[n] = options.seeds === "sd" ? mean - (sd || 0) : Math.min(...told);
    high[n] = options.seeds === "sd" ? mean + (sd || 0) : Math.max(...told);
  });
  return {
    runs: some.map((one) => one.run),
    setting: members[0].setting,
    xs,
    ys,
    low,
    high,
    counts,
    color: colorOf(...members),
    points: xs.length,
    rows: Math.max(...some.map((one) => one.rows)),
  };
}

// Where all are compared: their own places if these are the same, else 240 between the first and the last.
function common(all) {
  const [first] = all;
  if (first.length <= 600 && all.every((xs) => xs.length === first.length && xs.every((x, n) => x === first[n])))
    return Array.from(first);
  const [low, high] = [Math.min(...all.map((xs) => xs[0])), Math.max(...all.map((xs) => xs[xs.length - 1]))];
  const count = Math.min(240, Math.max(...all.map((xs) => xs.length)));
  if (count < 2 || low === high) return [low];
  return Array.from({ length: count }, (_, n) => low + ((high - low) * n) / (count - 1));
}

// All lines of a chart, as the options say.
function linesOf(metric, options) {
  const some = drawn();
  if (options.seeds === "runs" || colors.parted)
    return some.map((run) => runLine(metric, run, options)).filter(Boolean);
  return shownSettings(some)
    .map(({ members }) =>
      members.length > 1 ? bandLine(metric, members, options) : runLine(metric, members[0], options),
    )
    .filter(Boolean);
}
