// The head of the page, and the bar that stays in sight: what is shown, how it is colored, light or dark.

function head() {
  const byState = new Map();
  for (const run of runs) byState.set(run.state, (byState.get(run.state) ?? 0) + 1);
  const times = runs.flatMap((run) => [run.started, run.updated]).filter(isNumber);
  const hosts = [...new Set(runs.map((run) => run.host).filter(Boolean))];
  const count = `${runs.length} run${runs.length > 1 ? "s" : ""}`;
  const groups = settings.length > 1 && settings.length < runs.length ? ` of ${settings.length} settings` : "";
  document.getElementById("eyebrow").textContent = `Comparison of ${count}${groups}`;
  document.getElementById("title").textContent = data.title;
  document.getElementById("verdict").append(...verdict());
  document
    .getElementById("facts")
    .append(
      ...[...byState].map(([name, n]) => el(`span.chip.${name.replaceAll(" ", "-")}`, {}, `${n} ${name}`)),
      ...(times.length ? [el("span", {}, `${moment(Math.min(...times))} to ${moment(Math.max(...times))}`)] : []),
      ...(hosts.length
        ? [
            el(
              "span",
              {},
              `on ${hosts.slice(0, 3).join(", ")}${hosts.length > 3 ? ` and ${hosts.length - 3} more` : ""}`,
            ),
          ]
        : []),
      el("code", {}, runs[0].folder.replace(/\/[^/]*$/, "")),
    );
}

// The best setting in a sentence, and whether the next one is clearly behind.
function verdict() {
  const metric = state.metric;
  const order = ranking(metric, runs);
  if (!order.length)
    return [
      metric ? `No run has reached an evaluation of ${metric} yet.` : "These runs monitor no metric; pick one below.",
    ];
  const [first, second] = order;
  const told = (one) => `${brief(one.mean)}${isNumber(one.half) ? ` ± ${brief(Number(one.half.toPrecision(2)))}` : ""}`;
  const of = first.n > 1 ? ` (mean of ${first.n} runs, 95 % interval)` : "";
  if (runs.length === 1)
    return ["Best ", el("b", {}, `${metric} ${told(first)}`), ` at step ${brief(runs[0].best_step)}.`];
  const sentence = ["Best: ", el("b", {}, settingText(first.setting)), `, ${metric} ${told(first)}${of}.`];
  if (!second) return sentence;
  const monitors = [...new Set(runs.map((run) => run.monitor).filter(Boolean))];
  if (monitors.length > 1)
    return [
      ...sentence,
      el(
        "span.doubt",
        {},
        `These runs are judged by different metrics (${monitors.join(", ")}): only those with a ${metric} are compared here.`,
      ),
    ];
  const next = `Next is ${settingText(second.setting)} with ${told(second)}.`;
  const few = first.n < 3 || second.n < 3;
  const apart = Math.abs(first.mean - second.mean) > first.half + second.half;
  const doubt = few
    ? `With ${Math.min(first.n, second.n) === 1 ? "one run" : "two runs"} a setting, the difference may be luck: more seeds would tell.`
    : apart
      ? "The gap is wider than both intervals together."
      : "The gap is within the spread of the seeds: it may be luck.";
  return [...sentence, el("span.doubt", {}, `${next} ${doubt}`)];
}

// Settings by the mean of a metric over those runs, the best first; those without a value are left out.
function ranking(metric, some) {
  const sign = better(metric) ? -1 : 1;
  return shownSettings(some)
    .map(({ setting, members }) => ({ setting, members, ...overSeeds(members, metric) }))
    .filter((one) => one.n)
    .sort((a, b) => sign * (a.mean - b.mean));
}

function bar() {
  const count = el("span.shown", { "aria-live": "polite" });
  const colorings = [
    ...(settings.length > 1 || runs.length === 1 ? [["setting", "setting"]] : []),
    ...(runs.length > 1 ? [["run", "run"]] : []),
    ...data.keys.map((key) => [key.key, key.label]),
    ...(ranked.length ? [["metric", "result"]] : []),
  ];
  const theme = el("button", {
    type: "button",
    title: "Light or dark",
    onclick: () => setTheme(dark() ? "light" : "dark", true),
  });
  const update = () => {
    const some = shown().length < runs.length || state.filtered;
    count.className = some ? "shown some" : "shown";
    count.replaceChildren(
      some ? `${shown().length} of ${runs.length} runs shown` : `${runs.length} run${runs.length > 1 ? "s" : ""}`,
      ...(some ? [el("button.plain", { type: "button", onclick: () => clearFilter() }, "clear")] : []),
    );
    theme.replaceChildren(dark() ? "☀" : "☾", el("span.word", {}, dark() ? " Light" : " Dark"));
  };
  listeners.push(update);
  update();
  document.getElementById("bar").append(
    ...[
      count,
      ranked.length > 1
        ? choice(
            "Compare by",
            ranked.map((metric) => [metric, metric]),
            state.metric,
            (value) => {
              state.metric = value;
              tell("metric");
            },
          )
        : null,
      colorings.length > 1
        ? choice("Color by", colorings, state.color, (value) => {
            state.color = value;
            tell("color");
          })
        : null,
      el("span.push", {}, el("button.print", { type: "button", onclick: () => print() }, "Print"), theme),
    ].filter(Boolean),
  );
}

function setTheme(name, keep = false) {
  document.documentElement.dataset.theme = name;
  if (keep)
    try {
      localStorage.setItem("trainer-theme", name);
    } catch {
      /* a page from a file may have no storage */
    }
  tell("theme");
}

function firstTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  let kept = null;
  try {
    kept = localStorage.getItem("trainer-theme");
  } catch {
    /* the same */
  }
  document.documentElement.dataset.theme = kept ?? (system.matches ? "dark" : "light");
  system.addEventListener("change", () => {
    if (!kept) setTheme(system.matches ? "dark" : "light");
  });
}
