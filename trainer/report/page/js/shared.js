// What the parts of the page share: which runs are shown and lit, their colors, and small helpers.

const state = {
  filtered: null, // a Set of runs that the brushes let pass; null without a brush
  hidden: new Set(), // runs that are switched off in the legend
  hot: [], // runs under the mouse, or else those that are pinned
  pinned: [],
  color: settings.length === 1 ? "run" : settings.length <= 12 ? "setting" : "metric",
  metric: data.monitor || ranked[0] || "",
};

const listeners = [];
const tell = (what) => listeners.forEach((listener) => listener(what));
const shown = () => runs.filter((run) => !state.filtered || state.filtered.has(run.index));
const drawn = () => shown().filter((run) => !state.hidden.has(run.index));
const shownSettings = (some = shown()) =>
  settings
    .map((setting) => ({ setting, members: some.filter((run) => run.setting === setting) }))
    .filter((one) => one.members.length);

function light(some, pin = false) {
  const same = (a, b) => a.length === b.length && a.every((run, n) => run === b[n]);
  if (pin) state.pinned = same(state.pinned, some) ? [] : some;
  const next = some.length ? some : state.pinned;
  if (!pin && same(next, state.hot)) return;
  state.hot = pin ? state.pinned : next;
  tell("hot");
}

// ------------------------------------------------------------------------------------------------------------ elements

// An element with properties and children; text is always text, never markup.
function el(name, properties = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  const made = document.createElement(tag);
  if (classes.length) made.className = classes.join(" ");
  for (const [key, value] of Object.entries(properties)) {
    if (key in made && key !== "list") made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

const swatch = (color) => {
  const made = el("i.swatch");
  made.style.background = color;
  return made;
};

function choice(title, options, value, changed) {
  const made = el("select", { "aria-label": title, onchange: () => changed(made.value) });
  made.append(...options.map(([id, text]) => el("option", { value: id, selected: id === value }, text)));
  return el("label", {}, el("span", {}, title), made);
}

function switches(options, value, changed) {
  const made = el("div.switch", { role: "group" });
  made.append(
    ...options.map(([id, text, title]) =>
      el(
        "button",
        {
          type: "button",
          title: title ?? "",
          "aria-pressed": id === value,
          className: id === value ? "on" : "",
          onclick: (event) => {
            for (const button of made.children) {
              button.classList.toggle("on", button === event.currentTarget);
              button.setAttribute("aria-pressed", button === event.currentTarget);
            }
            changed(id);
          },
        },
        text,
      ),
    ),
  );
  return made;
}

const tip = document.getElementById("tip");
function showTip(x, y, ...content) {
  tip.replaceChildren(...content);
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const left = x + 16 + width > innerWidth ? Math.max(4, x - width - 16) : x + 16;
  const top = Math.max(4, Math.min(y - height / 2, innerHeight - height - 4));
  tip.style.left = `${narrow() ? 6 : left}px`; // on a phone at the foot of the window, where no finger is
  tip.style.top = `${narrow() ? innerHeight - height - 6 : top}px`;
}
const hideTip = () => {
  tip.hidden = true;
};
const tipRow = (left, right, color) =>
  el("div.row", {}, el("span", {}, color ? swatch(color) : null, left), el("span", {}, right));

// -------------------------------------------------------------------------------------------------------------- colors

const PALETTE = [
  "#4269d0",
  "#ec8a1c",
  "#e0559a",
  "#2aa894",
  "#8b5cf6",
  "#5fa83a",
  "#d9483b",
  "#2d9fd8",
  "#9c6b4e",
  "#b5a112",
];
const RAMPS = {
  light: ["#3a1a6b", "#3a4f9f", "#1f7f94", "#28a870", "#8dbf2d", "#e0b000"],
  dark: ["#7a5bd0", "#5b85dd", "#38aabb", "#4cc98c", "#a8dc52", "#fde74c"],
};
const dark = () => document.documentElement.dataset.theme === "dark";
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// Any number of colors: the palette, then the same hues lighter and darker.
function nth(n) {
  const base = PALETTE[n % PALETTE.length];
  const turn = Math.floor(n / PALETTE.length) % 4;
  return turn === 0
    ? base
    : mixed(base, turn % 2 ? (dark() ? "#ffffff" : "#000000") : dark() ? "#000000" : "#ffffff", turn > 2 ? 0.5 : 0.32);
}

function mixed(a, b, part) {
  const [x, y] = [a, b].map((color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16)));
  return `#${x
    .map((value, n) =>
      Math.round(value + (y[n] - value) * part)
        .toString(16)
        .padStart(2, "0"),
    )
    .join("")}`;
}

function ramp(part) {
  const stops = RAMPS[dark() ? "dark" : "light"];
  const at = Math.max(0, Math.min(1, part)) * (stops.length - 1);
  const low = Math.min(stops.length - 2, Math.floor(at));
  return mixed(stops[low], stops[low + 1], at - low);
}

// How runs are colored now: by kinds (each with its name) or along a ramp.
function coloring() {
  const by = state.color;
  if (by === "setting")
    return kinds(
      runs.map((run) => run.setting.index),
      (index) => settingText(settings[index]),
    );
  if (by === "run")
    return kinds(
      runs.map((run) => run.index),
      (index) => runText(runs[index]),
    );
  const values = runs.map((run) => (by === "metric" ? run.best[state.metric] : run.keys[by]));
  const distinct = [...new Set(values)].filter((value) => value !== null && value !== undefined);
  const title = by === "metric" ? state.metric : keyOf.get(by).label;
  if (by !== "metric" && (distinct.length <= 6 || !distinct.every(isNumber)))
    return kinds(values, (value) => keyText(by, value));
  return scale(values, title, by === "metric" && !better(state.metric));
}

function kinds(values, name) {
  const distinct = [...new Set(values)];
  if (distinct.every((value) => isNumber(value))) distinct.sort((a, b) => a - b);
  const place = new Map(distinct.map((value, n) => [value, n]));
  return {
    kinds: distinct.map((value, n) => ({
      name: name(value),
      color: nth(n),
      runs: runs.filter((run) => values[run.index] === value),
    })),
    of: (some) => nth(place.get(values[some[0].index])),
    parted: settings.some(({ members }) => new Set(members.map((run) => values[run])).size > 1), // within a setting
  };
}

function scale(values, title, reversed) {
  const known = values.filter(isNumber);
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const log = low > 0 && high / low > 50;
  const at = (value) =>
    high === low ? 0.5 : log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
  const part = (value) => (reversed ? 1 - at(value) : at(value));
  return {
    title,
    low,
    high,
    reversed,
    of: (some) => {
      const { n, mean } = summary(some.map((run) => values[run.index]));
      return n ? ramp(part(mean)) : style("faint");
    },
  };
}

let colors = coloring();
const colorOf = (...some) => colors.of(some); // of a run, or of runs that are drawn as one
listeners.push((what) => {
  if (["color", "theme", "metric"].includes(what)) colors = coloring();
});

// -------------------------------------------------------------------------------------------------------------- charts

const charts = [];
const sections = [];

// A part of the page: made when it comes into view, told of changes from then on.
function section(id, make) {
  const root = document.getElementById(id);
  const made = { root, body: root.querySelector(".body"), make, update: null };
  sections.push(made);
}

function begin(one) {
  if (one.update) return;
  one.update = one.make(one.body) ?? (() => {});
}

function chart(box, height) {
  box.classList.add("chart");
  box.style.height = `${height}px`;
  const made = echarts.init(box, null, { renderer: "canvas" });
  charts.push(made);
  new ResizeObserver(() => {
    if (box.clientWidth && box.clientHeight) made.resize();
  }).observe(box);
  return made;
}

const axisStyle = () => ({
  axisLine: { lineStyle: { color: style("line") } },
  axisTick: { show: false },
  axisLabel: { color: style("soft"), fontSize: 11.5, hideOverlap: true },
  splitLine: { lineStyle: { color: style("line"), opacity: 0.7 } },
  nameTextStyle: { color: style("soft"), fontSize: 12 },
});
const FONT = { fontFamily: "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif" };
const ruler = document.createElement("canvas").getContext("2d");
function textWidth(text, size) {
  ruler.font = `${size}px ${FONT.fontFamily}`;
  return Math.ceil(ruler.measureText(text).width);
}
const narrow = () => innerWidth < 560;
