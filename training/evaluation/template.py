"""The report page's template: its style, its script, and the places that `training.evaluation.page` fills in.

It is a Python module, not an .html file, so that only code needs to be installed.
"""

from string import Template

# The Content-Security-Policy makes the browser enforce what the page promises: no network requests.
PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>$title</title>
<style>
:root {
  color-scheme: light dark;
  --paper: #ffffff; --card: #f3f5f7; --ink: #1a1f24; --soft: #56606b; --line: #d5dbe1;
  --gain: #0b7a75; --loss: #b3401f; --focus: #0b57d0;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14181c; --card: #1e242a; --ink: #e8ebee; --soft: #a3aeb9; --line: #38424c;
    --gain: #4cc5bd; --loss: #f08c68; --focus: #8ab4f8;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 72rem;
  background: var(--paper); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif;
}
h1 { margin: 0 0 .5rem; font-size: 1.6rem; line-height: 1.2; }
h2 { margin: 3rem 0 1rem; padding-top: 1rem; border-top: 1px solid var(--line); font-size: 1.15rem; }
h3 { margin: 2rem 0 .75rem; font-size: 1rem; }
p { margin: .5rem 0; max-width: 46rem; }
code { font: .9em/1.4 ui-monospace, monospace; overflow-wrap: anywhere; }
.soft, .note, small { color: var(--soft); }
.note, small { font-size: .8rem; }
dl { display: grid; grid-template-columns: auto 1fr; gap: .1rem 1rem; margin: 0 0 1.5rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { padding: .25rem 0; color: var(--soft); text-align: left; }
th, td { padding: .35rem .75rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { font-weight: 600; }
th[scope=row], th:first-child { padding-left: 0; text-align: left; white-space: normal; min-width: 7rem; }
th small, td small { display: block; font-weight: 400; }
@media (max-width: 30rem) {
  table { font-size: .82rem; }
  table small { font-size: .72rem; }
  th, td { padding: .3rem 0 .3rem .5rem; }
  th[scope=row], th:first-child { min-width: 5.5rem; }
}
.figures { display: flex; flex-wrap: wrap; gap: 1.5rem 3rem; align-items: start; }
.figures > .wide { flex: 0 1 auto; max-width: 100%; }
.histogram { flex: 1 1 18rem; width: 100%; max-width: 30rem; height: auto; }
.histogram text { fill: var(--soft); font: 11px system-ui, sans-serif; }
.histogram .gain { fill: var(--gain); }
.histogram .loss { fill: var(--loss); }
.histogram path { fill: none; stroke: var(--soft); }
.histogram .zero { stroke: var(--ink); stroke-dasharray: 3 2; }
.pictures {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); gap: 1.25rem;
  margin: 0; padding: 0; list-style: none; align-items: start;
}
figure { margin: 0; border-radius: .5rem; background: var(--card); overflow: hidden; }
figcaption { padding: .6rem .8rem .7rem; font-size: .9rem; overflow-wrap: anywhere; }
figcaption b { font-variant-numeric: tabular-nums; }
/* A drag to the side moves the divider, one up or down scrolls the page. */
.compare {
  position: relative; aspect-ratio: var(--ratio); width: min(100%, 75vh * (var(--ratio))); min-height: 2.75rem;
  margin: 0 auto;
  overflow: hidden; cursor: ew-resize; touch-action: pan-y; user-select: none; -webkit-user-select: none;
}
.compare .layer { position: absolute; inset: 0; }
.compare img { display: block; width: 100%; height: 100%; object-fit: contain; pointer-events: none; }
.compare .before { clip-path: inset(0 calc(100% - var(--at)) 0 0); }
.compare .tag {
  position: absolute; top: .5rem; padding: 0 .5rem; border-radius: 1rem; white-space: nowrap;
  background: #000b; color: #fff; font-size: .75rem;
}
.compare .before .tag { left: .5rem; }
.compare .after .tag { right: .5rem; }
/* The keyboard and screen readers have a true slider; pointers act on the whole picture, see the script. */
.compare input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0; pointer-events: none; }
.compare .divider {
  position: absolute; top: 0; bottom: 0; left: var(--at); width: 2px; margin-left: -1px;
  background: #fff; box-shadow: 0 0 3px #000; pointer-events: none;
}
.compare .divider::after {
  content: "\\2039\\2002\\203A"; position: absolute; top: 50%; left: 50%; width: 2.5rem; height: 2.5rem;
  display: grid; place-items: center; transform: translate(-50%, -50%); box-sizing: border-box; padding-bottom: .3rem;
  border: 2px solid #fff; border-radius: 50%; background: #000b; color: #fff; box-shadow: 0 0 3px #000;
  font: 1.4rem/1 system-ui, sans-serif;
}
.compare input:focus-visible ~ .divider { background: var(--focus); width: 4px; margin-left: -2px; }
.compare input:focus-visible ~ .divider::after {
  border-color: var(--focus); box-shadow: 0 0 0 3px #fff, 0 0 0 5px #000;
}
.compare input:focus-visible ~ .ring {
  position: absolute; inset: 0; border: 4px solid var(--focus); pointer-events: none;
}
.wide:focus-visible { outline: 3px solid var(--focus); outline-offset: 2px; }
</style>
</head>
<body>
<header>
<h1>$title</h1>
$head
</header>
<main>
$body
</main>
<script>
"use strict";
for (const compare of document.querySelectorAll(".compare")) {
  const slider = compare.querySelector("input");
  const show = () => {
    compare.style.setProperty("--at", slider.value + "%");
    slider.setAttribute("aria-valuetext", Math.round(slider.value) + " % overlaid");
  };
  const follow = (event) => {
    const box = compare.getBoundingClientRect();
    slider.value = 100 * (event.clientX - box.left) / box.width;
    show();
  };
  slider.addEventListener("input", show);
  // A finger that comes down may be about to scroll: what it wants shows when it moves aside, or is lifted.
  let start = null;
  const aside = (event) => Math.abs(event.clientX - start.x) > Math.max(4, Math.abs(event.clientY - start.y));
  compare.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.preventDefault();
    slider.focus({ preventScroll: true });
    compare.setPointerCapture(event.pointerId);
    start = { x: event.clientX, y: event.clientY, drags: event.pointerType !== "touch" };
    if (start.drags) follow(event);
  });
  compare.addEventListener("pointermove", (event) => {
    if (!compare.hasPointerCapture(event.pointerId)) return;
    start.drags = start.drags || aside(event);
    if (start.drags) follow(event);
  });
  compare.addEventListener("pointerup", (event) => {
    if (compare.hasPointerCapture(event.pointerId)) follow(event);
  });
  show();
}
</script>
</body>
</html>
""")

# One image: the overlaid version lies on top of the restored one and is clipped at the divider.
COMPARISON = Template("""\
<li><figure>
<div class="compare" style="--ratio: $width / $height; --at: 50%">
<div class="layer after"><img src="$after" width="$width" height="$height" alt="$name, restored"><span class="tag">restored</span></div>
<div class="layer before"><img src="$before" width="$width" height="$height" alt="$name, overlaid"><span class="tag">overlaid</span></div>
<input type="range" min="0" max="100" step="any" value="50" aria-label="Divider in $name: overlaid on its left, restored on its right">
<span class="divider" aria-hidden="true"></span><span class="ring" aria-hidden="true"></span>
</div>
<figcaption>$caption</figcaption>
</figure></li>
""")  # noqa: E501
