// The table of results: a line for each setting with the mean over its runs, which open below it.

section("table", (body) => {
  const several = settings.some((setting) => setting.members.length > 1) && settings.length > 1;
  const opened = new Set();
  const view = { by: several ? "setting" : "run", sort: null, down: false };
  const keys = data.keys.filter((key) => view.by === "run" || !key.seed);
  const monitors = ranked.filter((metric) => metric.startsWith("val/") && metric.split("/").length === 2);
  const metrics = [...new Set([state.metric, ...(monitors.length ? monitors : ranked.slice(0, 5))])].filter(Boolean);
  const box = el("div.scroll", { tabIndex: 0 });
  const note = el("p.note");
  if (several)
    body.append(
      el(
        "div.controls",
        {},
        switches(
          [
            ["setting", "Settings", "A line for each setting, the mean over its runs"],
            ["run", "Runs"],
          ],
          view.by,
          (by) => {
            view.by = by;
            render();
          },
        ),
      ),
    );
  body.append(box, note);

  const columns = () => {
    const all = every();
    return narrow()
      ? [...all.filter((one) => one.id === state.metric), ...all.filter((one) => one.id !== state.metric)]
      : all;
  };
  const every = () => [
    ...(view.by === "setting" ? keys : data.keys).map((key) => ({
      id: key.key,
      title: key.label,
      hint: [key.key, ...key.alike].join("\n"),
      value: (line) => line.runs[0].keys[key.key],
      text: (line) => brief(line.runs[0].keys[key.key]),
    })),
    ...(data.keys.length ? [] : [{ id: "name", title: "run", value: (line) => line.runs[0].name }]),
    ...(view.by === "setting"
      ? [{ id: "n", title: "n", number: true, hint: "runs of this setting", value: (line) => line.runs.length }]
      : []),
    ...metrics.map((metric) => ({
      id: metric,
      title: metric,
      number: !narrow() || metric !== state.metric,
      metric,
      value: (line) => line.stats(metric).mean,
    })),
    {
      id: "step",
      title: "best at",
      number: true,
      hint: "step of the best evaluation",
      value: (line) => summary(line.runs.map((run) => run.best_step)).mean,
      text: (line) => brief(Math.round(summary(line.runs.map((run) => run.best_step)).mean)),
    },
    {
      id: "seconds",
      title: "time",
      number: true,
      hint: "wall time over all attempts",
      value: (line) => summary(line.runs.map((run) => run.seconds)).mean,
      text: (line) => duration(summary(line.runs.map((run) => run.seconds)).mean),
    },
    { id: "state", title: "state", value: (line) => line.runs.map((run) => run.state).join() },
  ];

  const lineOf = (some, setting) => ({
    runs: some,
    setting,
    stats: (metric) => overSeeds(some, metric),
  });

  function lines() {
    const found =
      view.by === "setting"
        ? shownSettings().map(({ setting, members }) => lineOf(members, setting))
        : shown().map((run) => lineOf([run], run.setting));
    const column = columns().find((one) => one.id === (view.sort ?? state.metric)) ?? columns()[0];
    const down = view.sort ? view.down : better(state.metric);
    const missing = (value) => value === null || value === undefined || Number.isNaN(value);
    return found.sort((a, b) => {
      const [x, y] = [column.value(a), column.value(b)];
      if (missing(x) || missing(y)) return missing(x) - missing(y);
      const order = isNumber(x) && isNumber(y) ? x - y : String(x).localeCompare(String(y), "en", { numeric: true });
      return down ? -order : order;
    });
  }

  function cell(column, line, best) {
    if (column.id === "state") {
      const states = [...new Set(line.runs.map((run) => run.state))];
      return el(
        "td",
        {},
        ...states.map((name) =>
          el(
            `span.chip.${name.replaceAll(" ", "-")}`,
            { title: line.runs.find((run) => run.state === name).reason },
            states.length > 1 ? `${line.runs.filter((run) => run.state === name).length} ${name}` : name,
          ),
        ),
      );
    }
    if (column.metric) {
      const { n, mean, half } = line.stats(column.metric);
      const side = column.number ? ".number" : "";
      if (!n) return el(`td${side}.none`, {}, "–");
      const lacking = n < line.runs.length ? ` (${n} of ${line.runs.length})` : "";
      return el(
        `td${side}${best ? ".top" : ""}`,
        {},
        mean.toFixed(Math.abs(mean) < 10 ? 4 : 2),
        isNumber(half) ? el("span.pm", {}, ` ± ${brief(Number(half.toPrecision(2)))}`) : "",
        lacking ? el("span.pm", {}, lacking) : "",
      );
    }
    const value = column.text ? column.text(line) : brief(column.value(line));
    return el(column.number ? "td.number" : "td", {}, value === "NaN" ? "–" : value);
  }

  function row(line, all, best, child = false) {
    const cells = all.map((column) => cell(column, line, !child && best.get(column.id) === line));
    cells[0].prepend(swatch(line.runs.length > 1 && colors.parted ? style("line") : colorOf(...line.runs)));
    if (child)
      cells[0].replaceChildren(
        swatch(colorOf(line.runs[0])),
        isNumber(line.runs[0].seed) ? `seed ${line.runs[0].seed}` : line.runs[0].name,
      );
    else if (view.by === "setting" && line.runs.length > 1) {
      const open = opened.has(line.setting.index);
      cells[0].prepend(
        el(
          "button.more",
          {
            type: "button",
            title: "Its runs",
            "aria-expanded": open,
            onclick: (event) => {
              event.stopPropagation();
              opened[open ? "delete" : "add"](line.setting.index);
              render();
            },
          },
          open ? "▾" : "▸",
        ),
      );
    } else if (view.by === "setting") cells[0].prepend(el("span.more", {}));
    const made = el(
      child ? "tr.child" : "tr",
      {
        title: line.runs.length === 1 ? line.runs[0].name : "",
        onmouseenter: () => light(line.runs),
        onmouseleave: () => light([]),
        onclick: () => light(line.runs, true),
      },
      ...cells,
    );
    made.runs = line.runs;
    return made;
  }

  function render() {
    const all = columns();
    const found = lines();
    const best = new Map(
      all
        .filter((column) => column.metric && found.length > 1)
        .map((column) => {
          const known = found.filter((line) => line.stats(column.metric).n);
          const sign = better(column.metric) ? -1 : 1;
          return [
            column.id,
            known.sort((a, b) => sign * (a.stats(column.metric).mean - b.stats(column.metric).mean))[0],
          ];
        }),
    );
    const head = el(
      "tr",
      {},
      ...all.map((column) => {
        const sorted = column.id === (view.sort ?? state.metric);
        const down = view.sort ? view.down : better(state.metric);
        const made = el(
          column.number ? "th.number" : "th",
          { title: column.hint ?? "" },
          el(
            "button",
            {
              type: "button",
              onclick: () => {
                view.down = view.sort === column.id ? !view.down : column.metric ? better(column.metric) : false;
                view.sort = column.id;
                render();
              },
            },
            `${column.title}${sorted ? (down ? " ↓" : " ↑") : ""}`,
          ),
        );
        if (sorted) made.setAttribute("aria-sort", down ? "descending" : "ascending");
        return made;
      }),
    );
    const rows = found.flatMap((line) => [
      row(line, all, best),
      ...(view.by === "setting" && opened.has(line.setting.index)
        ? line.runs.map((run) => row(lineOf([run], line.setting), all, best, true))
        : []),
    ]);
    box.replaceChildren(el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows)));
    const seeds =
      view.by === "setting" ? "Mean over the runs of a setting ± half of its 95 % t-interval; n is their number. " : "";
    const lacking = shown().filter((run) => !(state.metric in run.best)).length;
    note.textContent = `${seeds}Metrics are those of each run's best evaluation${data.monitor ? ` by ${data.monitor}` : ""}. Click a line to keep its curves marked.${lacking ? ` ${lacking} run${lacking > 1 ? "s have" : " has"} no value of ${state.metric || "any metric"}.` : ""}`;
    mark();
  }

  function mark() {
    for (const made of box.querySelectorAll("tbody tr")) {
      const within = (some) => some.length > 0 && made.runs.every((run) => some.includes(run));
      made.classList.toggle("hot", within(state.hot));
      made.classList.toggle("pinned", within(state.pinned));
    }
  }

  render();
  return (what) => (what === "hot" ? mark() : render());
});
