// Keys and results on parallel axes: brushing an axis filters everything else.

let clearFilter = () => {
  state.filtered = null;
  tell("filter");
};

section("parallel", (body) => {
  if (runs.length < 2 || !data.keys.length) {
    body.append(
      el(
        "p.empty",
        {},
        runs.length < 2 ? "There is one run: nothing to lay side by side." : "No key differs between these runs.",
      ),
    );
    return null;
  }
  const box = el("div");
  body.append(
    el(
      "p.lead",
      {},
      "Each line is a run. Drag along an axis to keep only the runs that pass there: table, curves, scatter and pictures follow.",
    ),
    box,
  );
  const made = chart(box, 360);
  let axes = [];

  made.on("axisareaselected", () => {
    const series = made.getModel().getSeriesByIndex(0);
    const brushed = made.getOption().parallelAxis.length && brushes().length;
    state.filtered = brushed ? new Set(series.getRawIndicesByActiveState("active").map((n) => runs[n].index)) : null;
    tell("filter");
  });
  made.on("mouseover", (event) => {
    if (event.seriesType === "parallel") {
      light([runs[event.dataIndex]]);
      hovered(event);
    }
  });
  made.on("mouseout", () => {
    light([]);
    hideTip();
  });
  made.on("click", (event) => {
    if (event.seriesType === "parallel") light([runs[event.dataIndex]], true);
  });

  const brushes = () =>
    axes.map((_, n) => made.getModel().getComponent("parallelAxis", n)).filter((axis) => axis?.activeIntervals.length);

  clearFilter = () => {
    state.filtered = null;
    brushes().forEach((axis) =>
      made.dispatchAction({ type: "axisAreaSelect", parallelAxisId: axis.id, intervals: [] }),
    );
    state.filtered = null;
    tell("filter");
  };

  function hovered(event) {
    const run = runs[event.dataIndex];
    const rect = box.getBoundingClientRect();
    showTip(
      rect.left + event.event.offsetX,
      rect.top + event.event.offsetY,
      el("b", {}, runText(run)),
      tipRow(state.metric, brief(run.best[state.metric])),
      el("div.dim", {}, `${run.state}, step ${brief(run.step)}`),
    );
  }

  function draw() {
    const before = brushes().length;
    axes = axesOf();
    const upright = narrow();
    box.style.height = `${upright ? 74 * axes.length + 40 : 380}px`;
    made.resize();
    const label = {
      ...axisStyle().axisLabel,
      color: style("ink"),
      backgroundColor: style("card"),
      padding: [1, 4],
      borderRadius: 3,
      textBorderWidth: 0,
    };
    made.setOption(
      {
        animation: false,
        textStyle: FONT,
        parallel: {
          layout: upright ? "vertical" : "horizontal",
          ...(upright ? { left: 12, right: 30, top: 36, bottom: 44 } : { left: 60, right: 90, top: 46, bottom: 24 }),
          parallelAxisDefault: {
            realtime: false,
            nameGap: 16,
            nameLocation: upright ? "start" : "end",
            nameTextStyle: {
              color: style("ink"),
              fontSize: 12.5,
              fontWeight: 600,
              ...(upright ? { align: "left", verticalAlign: "bottom", padding: [0, 0, 12, 0] } : {}),
            },
            axisLine: { lineStyle: { color: style("faint"), width: 1.2 } },
            axisTick: { show: false },
            axisLabel: label,
            areaSelectStyle: {
              width: 22,
              borderWidth: 1,
              borderColor: style("accent"),
              color: style("accent"),
              opacity: 0.25,
            },
          },
        },
        parallelAxis: axes.map((axis, dim) => ({
          id: axis.id,
          dim,
          name: axis.name,
          type: axis.type,
          ...(axis.data ? { data: axis.data } : { scale: true }),
          ...(upright ? { nameGap: -4 } : {}),
          axisLabel: {
            ...label,
            formatter: (value) => brief(axis.data ? (axis.data[axis.data.indexOf(value)] ?? value) : value),
          },
        })),
        series: [
          {
            type: "parallel",
            smooth: 0.12,
            inactiveOpacity: 0.05,
            activeOpacity: 0.95,
            lineStyle: { width: runs.length > 60 ? 1.2 : 2, opacity: 0.8 },
            emphasis: { disabled: false, lineStyle: { width: 4, opacity: 1 } },
            data: runs.map((run) => ({
              value: axes.map((axis) => axis.value(run)),
              lineStyle: { color: colorOf(run), opacity: 0.8 },
            })),
          },
        ],
      },
      { notMerge: true },
    );
    if (before && state.filtered) {
      state.filtered = null;
      tell("filter");
    }
  }

  function axesOf() {
    const found = data.keys.map((key) => keyAxis(key));
    if (state.metric && runs.some((run) => state.metric in run.best)) {
      found.push({
        id: "result",
        name: `${state.metric} ${better(state.metric) ? "↑" : "↓"}`,
        type: "value",
        value: (run) => run.best[state.metric] ?? "-",
      });
    }
    return found;
  }

  // Few values stand at equal distances, many numbers on a scale.
  function keyAxis({ key, label }) {
    const values = [...new Set(runs.map((run) => run.keys[key]))];
    const numeric = values.every((value) => isNumber(value));
    if (!numeric || values.length <= 10) {
      const order = values
        .filter((value) => value !== null)
        .sort((a, b) =>
          isNumber(a) && isNumber(b) ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }),
        );
      const names = [...order, ...(values.includes(null) ? [null] : [])].map((value) =>
        value === null ? "–" : brief(value),
      );
      return {
        id: key,
        name: label,
        type: "category",
        data: names,
        value: (run) => (run.keys[key] === null ? "–" : brief(run.keys[key])),
      };
    }
    const log = Math.min(...values) > 0 && Math.max(...values) / Math.min(...values) > 50;
    return { id: key, name: label, type: log ? "log" : "value", value: (run) => run.keys[key] };
  }

  draw();
  return (what) => {
    if (what === "hot") {
      made.dispatchAction({ type: "downplay", seriesIndex: 0 });
      if (state.hot.length && state.hot.length < runs.length)
        made.dispatchAction({ type: "highlight", seriesIndex: 0, dataIndex: state.hot.map((run) => run.index) });
    } else if (["color", "metric", "theme", "size"].includes(what)) draw();
  };
});
