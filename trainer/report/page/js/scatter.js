// How much each key matters, and any key or metric against any metric.

section("importance", (body) => {
  if (runs.length < 3 || !data.keys.length) {
    body.append(el("p.empty", {}, "It takes three runs that differ to say anything."));
    return null;
  }
  const lead = el("p.lead");
  const box = el("div");
  const caveat = el("p.note.caveat");
  body.append(
    lead,
    box,
    caveat,
    el(
      "p.note",
      {},
      "Each key by itself, on ranks, less what chance would explain: between its values (η² of Kruskal and Wallis' test; Tomczak & Tomczak 2014), or along them for numbers of more than five values (Spearman's ρ², adjusted). What keys do only together is not seen. It is of all runs, whatever is filtered.",
    ),
  );
  const made = chart(box, Math.max(120, 34 * data.keys.length + 40));
  function draw() {
    const found = data.importance[state.metric] ?? { runs: 0, keys: [] };
    lead.textContent = `Share of the differences in ${state.metric} that goes with each key, over ${found.runs} runs.`;
    const values = found.keys.map((one) => new Set(runs.map((run) => run.keys[one.key])).size);
    const few = found.runs < 20 || found.keys.some((one, n) => one.how === "groups" && found.runs / values[n] < 5);
    caveat.hidden = !few || !found.keys.length;
    caveat.textContent = `${found.runs} runs are few for this: take the order as a hint.`;
    const told = [...found.keys].reverse();
    made.setOption(
      {
        animation: false,
        textStyle: FONT,
        grid: { left: 8, right: 70, top: 4, bottom: 4, containLabel: true },
        xAxis: { type: "value", min: 0, max: 1, show: false },
        yAxis: {
          type: "category",
          data: told.map((one) => keyOf.get(one.key).label),
          ...axisStyle(),
          axisLine: { show: false },
          axisLabel: { color: style("ink"), fontSize: 13, width: 150, overflow: "truncate" },
        },
        series: [
          {
            type: "bar",
            barMaxWidth: 18,
            silent: true,
            data: told.map((one) => one.share),
            itemStyle: { color: style("accent"), borderRadius: 4 },
            showBackground: true,
            backgroundStyle: { color: style("fill"), borderRadius: 4 },
            label: {
              show: true,
              position: "right",
              color: style("soft"),
              formatter: ({ dataIndex }) => `${Math.round(told[dataIndex].share * 100)} %${direction(told[dataIndex])}`,
            },
          },
        ],
      },
      { notMerge: true },
    );
    if (!told.length) lead.textContent = `No key can be weighed for ${state.metric}: too few runs have a value.`;
  }
  const direction = (one) =>
    Math.abs(one.correlation ?? 0) < 0.3 || one.share < 0.05 ? "" : one.correlation > 0 ? "  ↑ more" : "  ↓ less";
  draw();
  return (what) => {
    if (["metric", "theme"].includes(what)) draw();
  };
});

section("scatter", (body) => {
  const fields = [
    ...data.keys.map((key) => [key.key, key.label, (run) => run.keys[key.key]]),
    ...ranked.map((metric) => [`best ${metric}`, metric, (run) => run.best[metric]]),
    ["seconds", "wall time (s)", (run) => run.seconds],
    ["best_step", "step of the best", (run) => run.best_step],
  ].filter(([, , value]) => runs.some((run) => isNumber(value(run)) || typeof value(run) === "string"));
  const metrics = fields.filter(([id]) => !keyOf.has(id));
  if (runs.length < 2 || !metrics.length) {
    body.append(el("p.empty", {}, "It takes two runs with results."));
    return null;
  }
  const start =
    fields.find(([id]) => id === data.importance[state.metric]?.keys.find((one) => !keyOf.get(one.key).seed)?.key) ??
    fields[0];
  const view = { x: start[0], y: `best ${state.metric}` };
  if (!metrics.some(([id]) => id === view.y)) view.y = metrics[0][0];
  const box = el("div");
  const note = el("p.note");
  const pickY = choice(
    "Up",
    metrics.map(([id, label]) => [id, label]),
    view.y,
    (id) => {
      view.y = id;
      draw();
    },
  );
  body.append(
    el(
      "div.controls",
      {},
      pickY,
      choice(
        "Across",
        fields.map(([id, label]) => [id, label]),
        view.x,
        (id) => {
          view.x = id;
          draw();
        },
      ),
    ),
    box,
    note,
  );
  const made = chart(box, 340);
  let some = [];
  made.on("mouseover", (event) => {
    const run = some[event.dataIndex];
    if (!run) return;
    light([run]);
    const rect = box.getBoundingClientRect();
    const [x, y] = [view.x, view.y].map((id) => fields.find((one) => one[0] === id));
    showTip(
      rect.left + event.event.offsetX,
      rect.top + event.event.offsetY,
      el("b", {}, runText(run)),
      tipRow(x[1], brief(x[2](run))),
      tipRow(y[1], brief(y[2](run))),
    );
  });
  made.on("mouseout", () => {
    light([]);
    hideTip();
  });
  made.on("click", (event) => {
    if (some[event.dataIndex]) light([some[event.dataIndex]], true);
  });

  function axis(field, values, jitter) {
    const look = axisStyle();
    const names = [...new Set(values.map((value) => (value === null ? "–" : brief(value))))];
    if (values.every(isNumber) && (!jitter || names.length > 10)) {
      const log = jitter && Math.min(...values) > 0 && Math.max(...values) / Math.min(...values) > 50;
      return {
        type: log ? "log" : "value",
        scale: true,
        ...look,
        axisLabel: { ...look.axisLabel, formatter: (value) => brief(value) },
      };
    }
    const order = [...new Set(values)].sort((a, b) =>
      isNumber(a) && isNumber(b) ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }),
    );
    return {
      type: "category",
      data: order.map((value) => (value === null ? "–" : brief(value))),
      ...look,
      jitter: 46,
      jitterOverlap: true,
    };
  }

  function draw() {
    const [x, y] = [view.x, view.y].map((id) => fields.find((one) => one[0] === id));
    some = drawn().filter(
      (run) => isNumber(y[2](run)) && x[2](run) !== undefined && (keyOf.has(x[0]) || isNumber(x[2](run))),
    );
    const left = drawn().length - some.length;
    note.textContent = left
      ? `${left} run${left > 1 ? "s" : ""} without these values ${left > 1 ? "are" : "is"} left out.`
      : "";
    const xAxis = axis(x, some.map(x[2]), keyOf.has(x[0]));
    made.setOption(
      {
        animation: false,
        textStyle: FONT,
        grid: { left: 8, right: 20, top: 28, bottom: 26, containLabel: true },
        xAxis: { ...xAxis, name: x[1], nameLocation: "middle", nameGap: 28, splitLine: { show: false } },
        yAxis: {
          ...axis(y, some.map(y[2]), false),
          name: y[1],
          nameTextStyle: { align: "left", color: style("soft") },
          axisLine: { show: false },
        },
        series: [
          {
            type: "scatter",
            symbolSize: some.length > 60 ? 9 : 12,
            data: some.map((run) => ({
              value: [xAxis.type === "category" ? (x[2](run) === null ? "–" : brief(x[2](run))) : x[2](run), y[2](run)],
              itemStyle: { color: colorOf(run) },
            })),
            itemStyle: { opacity: 0.85, borderColor: style("card"), borderWidth: 1 },
            emphasis: { focus: "self", scale: 1.6, itemStyle: { opacity: 1 } },
            blur: { itemStyle: { opacity: 0.15 } },
          },
        ],
      },
      { notMerge: true },
    );
    box.dataset.points = some.length;
  }

  draw();
  return (what) => {
    if (what === "hot") {
      made.dispatchAction({ type: "downplay", seriesIndex: 0 });
      const lit = state.hot.map((run) => some.indexOf(run)).filter((n) => n >= 0);
      if (lit.length && lit.length < some.length)
        made.dispatchAction({ type: "highlight", seriesIndex: 0, dataIndex: lit });
      return;
    }
    if (what === "metric" && metrics.some(([id]) => id === `best ${state.metric}`)) {
      view.y = `best ${state.metric}`;
      pickY.querySelector("select").value = view.y;
    }
    draw();
  };
});
