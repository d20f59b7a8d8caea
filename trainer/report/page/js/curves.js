// The curves: a chart for each chosen metric, all under the same controls.

const coarse = matchMedia("(pointer: coarse)").matches; // a finger scrolls the page; it zooms by a slider

section("curves", (body) => {
  const several = settings.some((setting) => setting.members.length > 1);
  const longest = Math.max(1, ...runs.map((run) => run.step));
  const axes = [
    ["step", "Step"],
    ["epoch", "Epoch"],
    ["time", "Time"],
  ].filter(([axis]) => axis === "step" || data.clocks.some((clock) => clock[axis].length));
  const options = { axis: "step", half: 0, seeds: several ? "range" : "runs" };
  const preferred = [state.metric, "train/loss", "val/loss", "lr"].filter((metric) => data.metrics.includes(metric));
  const chosen = new Set([...preferred, ...data.metrics].slice(0, Math.max(4, preferred.length)));
  const panels = new Map();
  const said = el("span.smoothing", {}, "off");
  const slider = el("input", {
    type: "range",
    min: 0,
    max: 100,
    value: 0,
    id: "smoothing",
    oninput: () => {
      options.half = slider.value === "0" ? 0 : 0.2 * longest * (slider.value / 100) ** 2.5;
      said.textContent = options.half ? `half-life ${brief(Number(options.half.toPrecision(2)))} steps` : "off";
      later();
    },
  });
  if (!data.metrics.length) {
    body.append(el("p.empty", {}, "No run has a row in its history yet."));
    return null;
  }
  const chips = el("div.chips", { role: "group", "aria-label": "Metrics" });
  const legend = el("div.chips.legend");
  const grid = el("div.panels");
  const note = el("p.note");
  body.append(
    el(
      "div.controls",
      {},
      switches(axes, "step", (axis) => {
        options.axis = axis;
        render();
      }),
      several
        ? switches(
            [
              ["range", "Mean, min–max", "Mean over the runs of a setting; the band is from the least to the largest"],
              ["sd", "Mean ± 1 sd", "Mean over the runs of a setting; the band is one standard deviation"],
              ["runs", "Single runs"],
            ],
            options.seeds,
            (seeds) => {
              options.seeds = seeds;
              render();
            },
          )
        : null,
      el("label", {}, "Smoothing", slider, said),
    ),
    chips,
    legend,
    grid,
    note,
  );

  function chipsOf() {
    chips.replaceChildren(
      ...data.metrics.map((metric) =>
        el(
          "button",
          {
            type: "button",
            className: chosen.has(metric) ? "on" : "",
            "aria-pressed": chosen.has(metric),
            onclick: () => {
              chosen[chosen.has(metric) ? "delete" : "add"](metric);
              chipsOf();
              arrange();
            },
          },
          metric,
        ),
      ),
    );
  }

  function arrange() {
    for (const [metric, one] of panels) if (!chosen.has(metric)) one.root.remove();
    for (const metric of data.metrics.filter((name) => chosen.has(name))) {
      if (!panels.has(metric)) panels.set(metric, panel(metric, options));
      grid.append(panels.get(metric).root);
      panels.get(metric).watch();
    }
  }

  let waiting = 0;
  const later = () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(render);
  };
  function render() {
    for (const metric of chosen) panels.get(metric)?.draw();
    legendOf(legend);
    const thinned = Math.max(
      0,
      ...data.metrics.flatMap((metric) =>
        [...curveTable(metric).values()].filter((told) => told.length > 4).map((told) => told[1]),
      ),
    );
    const parted = several && colors.parted && options.seeds !== "runs";
    const band =
      !colors.parted &&
      {
        range: "Bands reach from the least to the largest run of a setting, the line is their mean",
        sd: "Bands are the mean ± one standard deviation over the runs of a setting",
      }[options.seeds];
    note.textContent = [
      thinned
        ? `Each curve shows up to ${brief(Math.round(data.points * 1.1))} of ${brief(thinned)} points: the least and the largest of every stretch are kept; means and smoothing are of all rows.`
        : "Every logged row is drawn.",
      band ? `${band}; where only some got so far, it is of those.` : "",
      parted ? "Runs are drawn singly, since the color parts the runs of a setting." : "",
      options.half ? "Smoothing is an exponential moving average, debiased and weighted by steps." : "",
      coarse ? "" : "Drag to zoom, double-click to go back.",
    ]
      .filter(Boolean)
      .join(" ");
  }

  chipsOf();
  arrange();
  render();
  return (what) => {
    if (what === "hot") for (const metric of chosen) panels.get(metric)?.mark();
    else later();
    if (what === "hot")
      for (const button of legend.children)
        button.classList.toggle("hot", Boolean(button.runs?.some((run) => state.hot.includes(run))));
  };
});

function legendOf(legend) {
  if (!colors.kinds) {
    const stops = Array.from({ length: 9 }, (_, n) => ramp((colors.reversed ? 8 - n : n) / 8));
    const band = el("i");
    band.style.background = `linear-gradient(90deg, ${stops.join()})`;
    legend.replaceChildren(el("span.ramp", {}, `${colors.title}  ${brief(colors.low)}`, band, brief(colors.high)));
    return;
  }
  const visible = new Set(shown());
  legend.replaceChildren(
    ...colors.kinds
      .filter((kind) => kind.runs.some((run) => visible.has(run)))
      .map((kind) => {
        const off = kind.runs.every((run) => state.hidden.has(run.index));
        const made = el(
          "button",
          {
            type: "button",
            className: off ? "off" : "",
            title: "Click: hide or show",
            onmouseenter: () => light(kind.runs),
            onmouseleave: () => light([]),
            onclick: () => {
              for (const run of kind.runs) state.hidden[off ? "delete" : "add"](run.index);
              light([]);
              tell("hidden");
            },
          },
          swatch(kind.color),
          kind.name,
        );
        made.runs = kind.runs;
        return made;
      }),
  );
}
