// The same samples across runs and evaluations: picture and truth once, and what each run says of them.

section("media", (body) => {
  const media = data.media;
  const withSome = runs.filter((run) => media.runs[run.index].length);
  if (!withSome.length) {
    body.append(el("p.empty", {}, "No run has kept pictures."));
    return null;
  }
  const samples = media.samples;
  const steps = [...new Set(withSome.flatMap((run) => media.runs[run.index].map(([step]) => step)))].sort(
    (a, b) => a - b,
  );
  const most = { value: "5" };
  const hasMasks = (sample) =>
    media.runs.some((told) => told.some(([, panels]) => Object.keys(panels[sample]?.masks ?? {}).length));
  const view = {
    sample: samples.find(hasMasks) ?? samples[0],
    step: steps[steps.length - 1],
    opacity: 0.65,
    errors: true,
  };
  const masked = samples.some(hasMasks);
  const names = [...new Set(samples.map((sample) => sample.split("  ")[0]))];
  const said = el("output");
  const slider = el("input", {
    type: "range",
    min: 0,
    max: steps.length - 1,
    value: steps.length - 1,
    id: "evaluation",
    "aria-label": "Evaluation",
    oninput: () => {
      view.step = steps[slider.value];
      draw();
    },
  });
  let playing = 0;
  const play = el(
    "button",
    {
      type: "button",
      title: "Play through the evaluations",
      disabled: steps.length < 2,
      onclick: () => {
        if (playing) {
          stop();
          return;
        }
        play.textContent = "❚❚";
        if (slider.value === slider.max) slider.value = -1;
        playing = setInterval(() => {
          slider.value = Number(slider.value) + 1;
          view.step = steps[slider.value];
          draw();
          if (slider.value === slider.max) stop();
        }, 600);
      },
    },
    "▶",
  );
  const stop = () => {
    clearInterval(playing);
    playing = 0;
    play.textContent = "▶";
  };
  const opacity = el("input", {
    type: "range",
    min: 0,
    max: 100,
    value: 65,
    oninput: () => {
      view.opacity = opacity.value / 100;
      draw();
    },
  });
  const options = [
    ...names
      .filter((name) => samples.filter((one) => one.startsWith(`${name}  `)).length > 1)
      .map((name) => [`all ${name}`, `${name}: all samples`]),
    ...samples.map((sample) => [sample, sample]),
  ];
  if (!masked) view.sample = options[0][0];
  const stage = el("div.stage");
  const key = el("div.key");
  const note = el("p.note");
  body.append(
    el(
      "div.controls",
      {},
      choice("Sample", options, view.sample, (sample) => {
        view.sample = sample;
        draw();
      }),
      choice(
        "Runs",
        [2, 5, 8, 11, 23]
          .filter((n) => n < withSome.length || n === 5)
          .map((n) => [String(n), `best ${n}`])
          .concat([
            ["all", `all ${withSome.length}`],
            ["marked", "marked ones"],
          ]),
        "5",
        (value) => {
          most.value = value;
          draw();
        },
      ),
      masked ? el("label", {}, "Overlay", opacity) : null,
      masked
        ? el(
            "button.on",
            {
              type: "button",
              onclick: (event) => {
                view.errors = event.currentTarget.classList.toggle("on");
                draw();
              },
            },
            "errors",
          )
        : null,
    ),
    el("div.controls", {}, el("div.timeline", {}, play, slider, said)),
    stage,
    key,
    note,
  );

  const pictures = new Map();
  function picture(index) {
    if (!pictures.has(index)) {
      const image = new Image();
      image.src = media.urls[index];
      pictures.set(
        index,
        image.decode().then(() => image),
      );
    }
    return pictures.get(index);
  }

  // The newest evaluation of a run that is not after the slider.
  const at = (run) => media.runs[run.index].filter(([step]) => step <= view.step).at(-1);

  function chosen() {
    const visible = drawn().filter((run) => media.runs[run.index].length);
    if (most.value === "marked") return visible.filter((run) => state.pinned.includes(run));
    const sign = better(state.metric) ? -1 : 1;
    const value = (run) => run.best[state.metric] ?? sign * -Infinity;
    const order = visible.sort((a, b) => sign * (value(a) - value(b)) || a.index - b.index);
    return most.value === "all" ? order : order.slice(0, Number(most.value));
  }

  function canvas(caption, paint, size) {
    const made = el("canvas", { "aria-label": caption });
    paint(made);
    return el("figure", {}, made, caption ? el("figcaption", {}, caption) : null);
  }

  async function overlay(made, panel, mask) {
    const [image, over] = await Promise.all([picture(panel.image), mask === undefined ? null : picture(mask)]);
    const brush = size(made, image);
    if (over) {
      brush.filter = "grayscale(1)";
      brush.drawImage(image, 0, 0, made.width, made.height);
      brush.filter = "none";
      brush.globalAlpha = view.opacity;
      brush.imageSmoothingEnabled = false;
      brush.drawImage(over, 0, 0, made.width, made.height);
      brush.globalAlpha = 1;
    } else brush.drawImage(image, 0, 0, made.width, made.height);
  }

  function size(made, image) {
    const times = Math.max(1, Math.round(256 / Math.max(image.naturalWidth, image.naturalHeight)));
    made.width = image.naturalWidth * times;
    made.height = image.naturalHeight * times;
    made.classList.toggle("smooth", times === 1);
    const brush = made.getContext("2d");
    brush.imageSmoothingEnabled = false;
    return brush;
  }

  async function pixels(index) {
    const image = await picture(index);
    const made = el("canvas", { width: image.naturalWidth, height: image.naturalHeight });
    const brush = made.getContext("2d", { willReadFrequently: true });
    brush.drawImage(image, 0, 0);
    return brush.getImageData(0, 0, made.width, made.height);
  }

  // Red where the prediction is not the truth; grey pixels of the truth are left out.
  async function errors(made, panel) {
    const [image, truth, guess] = await Promise.all([
      picture(panel.image),
      pixels(panel.masks.true),
      pixels(panel.masks.pred),
    ]);
    const brush = size(made, image);
    brush.filter = "grayscale(1)";
    brush.globalAlpha = 0.6;
    brush.drawImage(image, 0, 0, made.width, made.height);
    brush.filter = "none";
    brush.globalAlpha = 1;
    for (let i = 0; i < truth.data.length; i += 4) {
      const [a, b] = [truth.data, guess.data].map((from) => (from[i] << 16) | (from[i + 1] << 8) | from[i + 2]);
      guess.data[i + 3] = a === b || a === 0x7f7f7f ? 0 : 235;
      [guess.data[i], guess.data[i + 1], guess.data[i + 2]] = [214, 39, 40];
    }
    const wrong = el("canvas", { width: guess.width, height: guess.height });
    wrong.getContext("2d").putImageData(guess, 0, 0);
    brush.drawImage(wrong, 0, 0, made.width, made.height);
  }

  function views(panel, small) {
    if (!Object.keys(panel.masks).length) {
      const made = canvas("", (one) => overlay(one, panel));
      if ("right" in panel) made.firstChild.classList.add(panel.right ? "right" : "wrong");
      return [made];
    }
    const others = Object.entries(panel.masks).filter(([name]) => name !== "true");
    const both = "true" in panel.masks && "pred" in panel.masks;
    if (small)
      return both && view.errors
        ? [canvas("", (one) => errors(one, panel))]
        : others.map(([, mask]) => canvas("", (one) => overlay(one, panel, mask)));
    return [
      ...others.map(([name, mask]) => canvas(name === "pred" ? "predicted" : name, (one) => overlay(one, panel, mask))),
      ...(view.errors && both ? [canvas("errors", (one) => errors(one, panel))] : []),
    ];
  }

  function shot(run) {
    const found = at(run);
    const title = el("h3", {}, swatch(colorOf(run)), runText(run));
    const made = el("div.shot", { onmouseenter: () => light([run]), onmouseleave: () => light([]) }, title);
    made.run = run;
    if (!found) {
      made.append(el("p", {}, `no pictures up to step ${brief(view.step)}`));
      return made;
    }
    const [step, panels] = found;
    const all = wanted()
      .map((one) => panels[one])
      .filter(Boolean);
    if (!all.length) made.append(el("p", {}, "this run has no such sample"));
    made.append(el("div.views", {}, ...all.flatMap((panel) => views(panel, all.length > 1))));
    made.append(
      el("p", {}, `step ${brief(step)}${all.length === 1 ? `: ${all[0].caption.replace(/^.*? {2}/, "")}` : ""}`),
    );
    return made;
  }

  const wanted = () =>
    view.sample.startsWith("all ")
      ? samples.filter((one) => one.startsWith(`${view.sample.slice(4)}  `))
      : [view.sample];

  function reference(some) {
    const known = wanted()
      .map((sample) => some.map((run) => at(run)?.[1][sample]).find(Boolean))
      .filter((panel) => panel && "true" in panel.masks);
    const [panel] = known;
    if (!panel) return [];
    if (known.length > 1)
      return [
        el(
          "div.shot.reference",
          {},
          el("h3", {}, "True masks"),
          el("div.views", {}, ...known.map((one) => canvas("", (made) => overlay(made, one, one.masks.true)))),
          el("p", {}, "the same for every run"),
        ),
      ];
    return [
      el(
        "div.shot.reference",
        {},
        el("h3", {}, view.sample.replace(/^.*? {2}/, "")),
        el(
          "div.views",
          {},
          canvas("picture", (one) => overlay(one, panel)),
          canvas("true", (one) => overlay(one, panel, panel.masks.true)),
        ),
        el("p", {}, "the same for every run"),
      ),
    ];
  }

  function draw() {
    const some = chosen();
    said.textContent = `step ${brief(view.step)} (${Number(slider.value) + 1} of ${steps.length})`;
    stage.replaceChildren(...(view.sample.includes("/worst") ? [] : reference(some)), ...some.map(shot));
    if (!some.length)
      stage.append(
        el(
          "p.empty",
          {},
          most.value === "marked"
            ? "Click lines of the table or the charts to mark runs."
            : "None of the shown runs has pictures.",
        ),
      );
    key.replaceChildren(
      ...(masked ? Object.entries(media.classes).map(([name, color]) => el("span", {}, swatch(color), name)) : []),
    );
    const stored = Math.max(...media.stored);
    const kept = Math.max(...media.runs.map((told) => told.length));
    const without = runs.length - withSome.length;
    note.textContent = [
      kept < stored
        ? `${kept} of ${stored} evaluations of each run are embedded (the first, the best, the last, and some between)`
        : "Every evaluation of each run is embedded",
      `, pictures at most ${media.side} pixels wide or high; each run shows its newest one up to the slider.`,
      without ? ` ${without} of ${runs.length} runs have no pictures here.` : "",
    ].join("");
  }

  draw();
  return (what) => {
    if (what !== "hot") draw();
    else if (most.value === "marked") draw();
    else
      for (const made of stage.children)
        made.classList.toggle("hot", state.hot.length === 1 && made.run === state.hot[0]);
  };
});
