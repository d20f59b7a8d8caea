// The configs of any two runs.

section("diff", (body) => {
  const known = runs.filter(
    (run) => Object.keys(data.configs.own[run.index]).length || Object.keys(data.configs.common).length,
  );
  if (!known.length) {
    body.append(el("p.empty", {}, "No run has a config."));
    return null;
  }
  const order = ranking(state.metric, runs).flatMap((one) => one.members);
  const first = order[0] ?? known[0];
  const view = {
    a: first.index,
    b: (order.find((run) => run.setting !== first.setting) ?? known.find((run) => run !== first) ?? first).index,
    all: runs.length < 2,
  };
  const pick = (side) =>
    choice(
      side === "a" ? "This" : "That",
      runs.map((run) => [String(run.index), runText(run)]),
      String(view[side]),
      (value) => {
        view[side] = Number(value);
        draw();
      },
    );
  const every = el("input", {
    type: "checkbox",
    checked: view.all,
    onchange: () => {
      view.all = every.checked;
      draw();
    },
  });
  const box = el("div.scroll");
  const note = el("p.note");
  body.append(
    el("div.controls", {}, pick("a"), runs.length > 1 ? pick("b") : null, el("label", {}, every, "equal keys too")),
    box,
    note,
  );

  function draw() {
    const [a, b] = [view.a, view.b].map((index) => ({ ...data.configs.common, ...data.configs.own[index] }));
    const keys = [...new Set([...Object.keys(a), ...Object.keys(b)])].sort();
    const differ = keys.filter((key) => a[key] !== b[key]);
    const rows = (view.all ? keys : differ).map((key) =>
      el(
        "tr",
        {},
        el("td", {}, key),
        el(a[key] === b[key] ? "td" : "td.a", {}, a[key] ?? "–"),
        ...(runs.length > 1 ? [el(a[key] === b[key] ? "td" : "td.b", {}, b[key] ?? "–")] : []),
      ),
    );
    box.hidden = !rows.length;
    box.replaceChildren(
      el(
        "table.diff",
        {},
        el(
          "thead",
          {},
          el(
            "tr",
            {},
            el("th", {}, "key"),
            el("th", {}, runText(runs[view.a])),
            ...(runs.length > 1 ? [el("th", {}, runText(runs[view.b]))] : []),
          ),
        ),
        el("tbody", {}, ...rows),
      ),
    );
    note.textContent =
      runs.length < 2
        ? ""
        : differ.length
          ? `${differ.length} of ${keys.length} keys differ.`
          : `All ${keys.length} keys are equal.`;
  }

  draw();
  return null;
});
