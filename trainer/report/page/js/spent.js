// Where the wall time of each run or setting went.

const PURPOSES = [
  ["training", "training", "#4269d0"],
  ["data", "waiting for data", "#ec8a1c"],
  ["evaluation", "evaluation", "#2aa894"],
  ["save", "saving", "#e0559a"],
  ["unknown", "not recorded", "#97a1b0"],
];

section("spent", (body) => {
  const timed = runs.filter((run) => run.seconds);
  if (!timed.length) {
    body.append(el("p.empty", {}, "No run has a time yet."));
    return null;
  }
  const grouped = settings.length > 1 && settings.length < runs.length;
  const view = { by: grouped ? "setting" : "run", share: "seconds" };
  const lead = el("p.lead");
  const box = el("div");
  const scroll = el("div", {}, box);
  body.append(
    lead,
    el(
      "div.controls",
      {},
      grouped
        ? switches(
            [
              ["setting", "Mean of each setting"],
              ["run", "Runs"],
            ],
            view.by,
            (by) => {
              view.by = by;
              draw();
            },
          )
        : null,
      switches(
        [
          ["seconds", "Time"],
          ["share", "Share"],
        ],
        "seconds",
        (share) => {
          view.share = share;
          draw();
        },
      ),
    ),
    scroll,
  );
  const made = chart(box, 200);
  const all = timed.reduce((sum, run) => sum + run.seconds, 0);
  const unknown = timed.filter((run) => run.spent.unknown > 0.9 * run.seconds).length;
  let lines = [];
  made.on("mouseover", (event) => {
    const line = lines[event.dataIndex];
    if (!line) return;
    light(line.runs);
    const rect = box.getBoundingClientRect();
    showTip(
      rect.left + event.event.offsetX,
      rect.top + event.event.offsetY,
      el("b", {}, line.name),
      ...PURPOSES.filter(([id]) => line.spent[id]).map(([id, name, color]) =>
        tipRow(name, `${duration(line.spent[id])}  ${Math.round((100 * line.spent[id]) / line.seconds)} %`, color),
      ),
      tipRow("all", duration(line.seconds)),
    );
  });
  made.on("mouseout", () => {
    light([]);
    hideTip();
  });

  function lineOf(name, some) {
    const spent = Object.fromEntries(
      PURPOSES.map(([id]) => [id, some.reduce((sum, run) => sum + (run.spent[id] ?? 0), 0) / some.length]),
    );
    return { name, runs: some, spent, seconds: some.reduce((sum, run) => sum + run.seconds, 0) / some.length };
  }

  function draw() {
    const some = shown().filter((run) => run.seconds);
    lines =
      view.by === "setting"
        ? shownSettings(some).map(({ setting, members }) => lineOf(settingText(setting), members))
        : some.map((run) => lineOf(runText(run), [run]));
    lines.sort((a, b) => a.seconds - b.seconds);
    lead.textContent = `${duration(all)} in all, ${duration(all / timed.length)} a run.${unknown ? ` Of ${unknown} run${unknown > 1 ? "s" : ""} only the whole time is known: what it went to is recorded where wandb is on, also offline.` : ""}`;
    box.style.height = `${Math.max(110, 24 * lines.length + (narrow() ? 86 : 64))}px`;
    made.resize();
    const look = axisStyle();
    const [most, size] = narrow() ? [24, 10] : [44, 11.5];
    const cut = (name) => (name.length > most ? `${name.slice(0, most - 1)}…` : name);
    made.setOption(
      {
        animation: false,
        textStyle: FONT,
        grid: {
          left: 16 + Math.max(...lines.map((line) => textWidth(cut(line.name), size))),
          right: 22,
          top: narrow() ? 56 : 34,
          bottom: 28,
        },
        legend: {
          top: 0,
          left: 0,
          itemWidth: 12,
          itemHeight: 12,
          icon: "roundRect",
          textStyle: { color: style("soft") },
          selectedMode: false,
        },
        xAxis: {
          type: "value",
          max: view.share === "share" ? 1 : "dataMax",
          ...look,
          axisLabel: {
            ...look.axisLabel,
            formatter: (value) => (view.share === "share" ? `${Math.round(value * 100)} %` : duration(value)),
          },
        },
        yAxis: {
          type: "category",
          data: lines.map((line) => cut(line.name)),
          ...look,
          axisLine: { show: false },
          axisLabel: { ...look.axisLabel, fontSize: size, hideOverlap: false, interval: 0 },
        },
        series: PURPOSES.filter(([id]) => lines.some((line) => line.spent[id] > 0)).map(([id, name, color]) => ({
          type: "bar",
          name,
          stack: "all",
          barMaxWidth: 16,
          itemStyle: { color, borderColor: style("card"), borderWidth: 0.5 },
          emphasis: { disabled: true },
          data: lines.map((line) => line.spent[id] / (view.share === "share" ? line.seconds || 1 : 1)),
        })),
      },
      { notMerge: true },
    );
  }
  draw();
  return (what) => {
    if (["filter", "theme", "size"].includes(what)) draw();
  };
});
