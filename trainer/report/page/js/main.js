// The page begins: the head at once, each part when it comes near the window.

firstTheme();
head();
bar();

if (runs.length < 2) for (const id of ["parallel", "importance", "scatter"]) document.getElementById(id).hidden = true;
document.querySelector("#diff h2").textContent = runs.length < 2 ? "Config" : "Two configs";

const observer = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      observer.unobserve(entry.target);
      begin(sections.find((one) => one.root === entry.target));
    }
  },
  { rootMargin: "400px" },
);
for (const one of sections) observer.observe(one.root);
listeners.push((what) => sections.forEach((one) => one.update?.(what)));

let [width, sizing] = [innerWidth, 0];
addEventListener("resize", () => {
  clearTimeout(sizing);
  sizing = setTimeout(() => {
    if (innerWidth !== width) {
      width = innerWidth;
      tell("size");
    }
  }, 150);
});

addEventListener("scroll", hideTip, { passive: true }); // a finger leaves no chart

// On paper everything is there, and light; charts as pictures, which fit any paper.
let screenTheme = "";
function beforePrint() {
  screenTheme = document.documentElement.dataset.theme;
  sections.forEach(begin);
  document.querySelectorAll(".panel").forEach((panel) => panel.open());
  setTheme("light");
  for (const one of charts) {
    const picture = one.renderToCanvas({ pixelRatio: 2 });
    picture.className = "paper";
    picture.removeAttribute("style");
    one.getDom().append(picture);
  }
}
addEventListener("beforeprint", beforePrint);
addEventListener("afterprint", () => {
  document.querySelectorAll(".paper").forEach((picture) => picture.remove());
  setTheme(screenTheme);
});

document
  .getElementById("footer")
  .append(
    el(
      "p",
      {},
      `Made ${moment(data.made)} by wandb-trainer ${data.version}. This file holds everything it shows and asks no network for anything.`,
    ),
    el(
      "p",
      {},
      "Charts: Apache ECharts 6.1.0, Apache License 2.0, copyright 2017-2026 The Apache Software Foundation.",
    ),
  );
document.documentElement.dataset.ready = "yes";
