// One chart of one metric: its lines and bands, what is under the mouse, and the zoom.

function panel(metric, options) {
  const box = el("div");
  const root = el("div.panel");
  let [log, made, lines, seen, over] = [false, null, [], false, null];
  let [zoom, zoomed] = [{}, ""]; // ranges of x and y, and of which axis
  const logButton = el(
    "button",
    {
      type: "button",
      title: "Logarithmic axis",
      onclick: () => {
        log = logButton.classList.toggle("on");
        zoom = {};
        draw();
      },
    },
    "log",
  );
  const wide = el(
    "button",
    {
      type: "button",
      title: "Wide or narrow",
      onclick: () => {
        wide.classList.toggle("on", root.classList.toggle("wide"));
      },
    },
    "⤢",
  );
  root.append(el("header", {}, el("span", {}, metric), logButton, wide), box);
  root.dataset.metric = metric;
  const isLr = metric.split("/")[0] === "lr"; // planned, not measured: never smoothed
  box.style.height = "270px";
  const watcher = new IntersectionObserver(
    (entries) => {
      if (entries.some((entry) => entry.isIntersecting)) open();
    },
    { rootMargin: "200px" },
  );
  root.open = open;

  function open() {
    watcher.disconnect();
    seen = true;
    if (!made) {
      made = chart(box, 270);
      wire();
    }
    draw();
  }

  function wire() {
    const zr = made.getZr();
    zr.on("mousemove", (event) => hover(event));
    zr.on("globalout", () => {
      light([]);
      hideTip();
    });
    zr.on("click", (event) => {
      const line = nearest(event.offsetX, event.offsetY);
      if (line) light(line.runs, true);
    });
    zr.on("dblclick", () => {
      zoom = {};
      draw();
    });
    made.on("datazoom", (event) => {
      for (const one of event.batch ?? [])
        if ("startValue" in one) zoom[one.dataZoomId.includes("xAxis") ? "x" : "y"] = [one.startValue, one.endValue];
      if (event.batch) draw();
      else mark();
    });
  }

  function draw() {
    if (!made || !seen) return;
    lines = linesOf(metric, isLr ? { ...options, half: 0 } : options);
    if (zoomed !== options.axis) [zoom, zoomed] = [{}, options.axis];
    const axis = axisStyle();
    const positive = (value) => (Number.isFinite(value) && (!log || value > 0) ? value : "-");
    const pairs = (line) => Array.from(line.xs, (x, n) => [x, positive(line.ys[n])]);
    const bands = lines.filter((line) => line.low);
    const single = lines.length === 1 || options.seeds === "runs" || !bands.length;
    made.setOption(
      {
        animation: false,
        textStyle: FONT,
        grid: { left: 8, right: 24, top: 12, bottom: coarse ? 44 : 8, containLabel: true },
        toolbox: { right: -400, feature: { dataZoom: { filterMode: "none" } } },
        dataZoom: coarse
          ? [
              {
                type: "slider",
                height: 20,
                bottom: 6,
                filterMode: "none",
                brushSelect: false,
                showDetail: false,
                borderColor: style("line"),
              },
            ]
          : [],
        xAxis: {
          type: "value",
          ...axis,
          min: zoom.x?.[0] ?? "dataMin",
          max: zoom.x?.[1] ?? "dataMax",
          splitLine: { show: false },
          axisPointer: {
            show: true,
            type: "line",
            snap: false,
            zlevel: 1,
            triggerEmphasis: false,
            label: { show: false },
            lineStyle: { color: style("faint") },
          },
          axisLabel: {
            ...axis.axisLabel,
            formatter: (value) => (options.axis === "time" ? duration(value) : brief(value)),
            showMaxLabel: !narrow(),
          },
        },
        yAxis: {
          type: log ? "log" : "value",
          ...axis,
          scale: true,
          ...logBase(),
          ...(zoom.y ? { min: zoom.y[0], max: zoom.y[1] } : {}),
          axisLine: { show: false },
          axisLabel: { ...axis.axisLabel, formatter: (value) => brief(value) },
        },
        series: [
          ...bands.map((line, n) => bandSeries(line, n, log, Math.max(0.06, 0.2 - 0.012 * bands.length))),
          ...lines.map((line, n) => ({
            id: `line${n}`,
            type: "line",
            data: pairs(line),
            silent: true,
            sampling: lines.length > 20 ? "minmax" : undefined,
            showSymbol: line.points <= 24,
            symbolSize: 5,
            symbol: "circle",
            connectNulls: false,
            emphasis: { disabled: true },
            lineStyle: {
              color: line.color,
              width: lines.length > 30 ? 1 : 1.8,
              opacity: single && lines.length > 40 ? 0.6 : 1,
            },
            itemStyle: { color: line.color },
            z: 3,
          })),
        ],
      },
      { notMerge: true },
    );
    if (!coarse) made.dispatchAction({ type: "takeGlobalCursor", key: "dataZoomSelect", dataZoomSelectActive: true });
    root.dataset.lines = lines.length;
    mark();
  }

  // Tens where the values span several of them, else doublings.
  function logBase() {
    if (!log) return {};
    let [low, high] = [Infinity, -Infinity];
    for (const line of lines)
      for (const value of line.ys) if (value > 0) [low, high] = [Math.min(low, value), Math.max(high, value)];
    return { logBase: high / low < 40 ? 2 : 10 };
  }

  // The line next to a place of the chart, at most 40 pixels away.
  function nearest(px, py) {
    if (!made.containPixel("grid", [px, py])) return null;
    const [x] = made.convertFromPixel({ gridIndex: 0 }, [px, py]);
    let [best, least] = [null, 40];
    for (const line of lines) {
      const y = between(line.xs, line.ys, x);
      if (!Number.isFinite(y)) continue;
      const away = Math.abs(made.convertToPixel({ gridIndex: 0 }, [x, y])[1] - py);
      if (away < least) [best, least] = [line, away];
    }
    return best;
  }

  function hover(event) {
    const { offsetX: px, offsetY: py } = event;
    if (!made.containPixel("grid", [px, py])) return hideTip();
    const [x] = made.convertFromPixel({ gridIndex: 0 }, [px, py]);
    const line = nearest(px, py);
    light(line ? line.runs : []);
    const where =
      options.axis === "time" ? duration(x) : `${options.axis} ${brief(options.axis === "step" ? Math.round(x) : x)}`;
    const told = lines.map((one) => ({ one, y: between(one.xs, one.ys, x) })).filter(({ y }) => Number.isFinite(y));
    const [, middle] = made.convertFromPixel({ gridIndex: 0 }, [px, py]);
    told.sort((a, b) => Math.abs(a.y - middle) - Math.abs(b.y - middle));
    const near = told.slice(0, 7).sort((a, b) => b.y - a.y);
    const name = (one) => (one.setting ? settingText(one.setting) : runText(one.runs[0]));
    const rect = box.getBoundingClientRect();
    showTip(
      rect.left + px,
      rect.top + py,
      el("div.dim", {}, `${metric} at ${where}`),
      ...near.map(({ one, y }) => {
        const row = tipRow(
          name(one),
          one.low && !narrow()
            ? `${brief(y)}  (${brief(between(one.xs, one.low, x))} … ${brief(between(one.xs, one.high, x))})`
            : brief(y),
          one.color,
        );
        if (one === line) row.style.fontWeight = 650;
        return row;
      }),
      told.length > near.length ? el("div.dim", {}, `and ${told.length - near.length} more`) : "",
    );
    return undefined;
  }

  // What is lit is drawn once more over a veil; the chart itself stays as it is.
  function mark() {
    if (!made || !seen) return;
    const zr = made.getZr();
    if (over) zr.remove(over);
    over = null;
    const hot =
      state.hot.length && state.hot.length < runs.length
        ? lines.filter((line) => line.runs.some((run) => state.hot.includes(run)))
        : [];
    if (!hot.length || hot.length === lines.length) return;
    const area = made.getModel().getComponent("grid").coordinateSystem.getRect();
    over = new echarts.graphic.Group({ silent: true });
    over.setClipPath(
      new echarts.graphic.Rect({
        shape: { x: area.x - 4, y: area.y - 4, width: area.width + 8, height: area.height + 8 },
      }),
    );
    over.add(
      new echarts.graphic.Rect({
        shape: { x: area.x - 4, y: area.y - 4, width: area.width + 8, height: area.height + 8 },
        style: { fill: style("veil") },
        zlevel: 1,
        silent: true,
      }),
    );
    for (const line of hot)
      for (const points of pieces(line)) {
        over.add(
          new echarts.graphic.Polyline({
            shape: { points },
            style: { stroke: line.color, lineWidth: 2.6, fill: null, lineJoin: "round" },
            zlevel: 1,
            z: 10,
            silent: true,
          }),
        );
      }
    zr.add(over);
  }

  function pieces(line) {
    const found = [[]];
    line.xs.forEach((x, n) => {
      if (Number.isFinite(line.ys[n]) && (!log || line.ys[n] > 0))
        found[found.length - 1].push(made.convertToPixel({ gridIndex: 0 }, [x, line.ys[n]]));
      else if (found[found.length - 1].length) found.push([]);
    });
    return found.filter((points) => points.length > 1);
  }

  return { root, draw, mark, watch: () => (seen ? draw() : watcher.observe(root)) };
}

// A band as one shape, drawn with the first of its points.
function bandSeries(line, n, log, opacity) {
  const known = Array.from(line.xs, (x, i) => [x, line.low[i], line.high[i]]).filter(
    ([, low, high]) => Number.isFinite(low) && (!log || low > 0) && Number.isFinite(high),
  );
  return {
    id: `band${n}`,
    type: "custom",
    silent: true,
    clip: true,
    z: 2,
    data: known,
    encode: { x: 0, y: [1, 2] },
    emphasis: { disabled: true },
    renderItem: (params, api) =>
      params.dataIndexInside > 0
        ? null
        : {
            type: "polygon",
            silent: true,
            style: { fill: line.color, opacity },
            shape: {
              points: [
                ...known.map(([x, low]) => api.coord([x, low])),
                ...known.map(([x, , high]) => api.coord([x, high])).reverse(),
              ],
            },
          },
  };
}
