// The keys of the deep visualization toolbox (Yosinski et al. 2015) and the buttons that do the same.
import { columnsOf } from "./live-drawing.js";
import { GAMMAS, METHODS, ZOOMS } from "./live-panel.js";

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const LETTERS = { j: "ArrowLeft", l: "ArrowRight", i: "ArrowUp", k: "ArrowDown" };
const FAST = 10;

/** What each key does to the page. */
export function actsOf(view) {
  const { input, look, state } = view;
  const help = () => document.getElementById("keys").showModal();
  const turn = (name, count) => () => view.toggle(name, (look[name] + 1) % count());
  const arrows = Object.entries(ARROWS).map(([key, way]) => [key, (fast) => view.move(way, fast ? FAST : 1)]);
  return {
    ...Object.fromEntries(arrows),
    "?": help,
    h: help,
    f: () => input.freeze(!input.frozen),
    c: () => (input.kind === "camera" ? input.show(input.pictures) : input.playCamera()),
    e: () => input.step(1),
    w: () => input.step(-1),
    u: () => view.stepLayer(-1),
    o: () => view.stepLayer(1),
    b: () => {
      state.method = (state.method + 1) % METHODS.length;
      if (!state.method) look.signals = false;
      if (!state.method && ZOOMS[look.zoom] === "projection") look.zoom = 0;
      view.again();
    },
    d: () => {
      state.held = state.held ? null : `${state.layer}:${state.channel}`;
      view.again();
    },
    a: () => {
      // the toolbox: from patches first back to what they hide
      if (look.patches) look.patches = false;
      else look.signals = !look.signals;
      if (look.signals && !state.method) state.method = 1;
      view.again();
    },
    s: () => view.toggle("patches"),
    t: turn("gamma", () => GAMMAS.length),
    z: turn("zoom", () => (state.method ? ZOOMS.length : ZOOMS.length - 1)),
    8: () => view.toggle("labels"),
    9: () => view.toggle("stored"),
    Escape: () => view.reset(),
  };
}

/** Keys, buttons, fields, a pointer over the mosaic, dropped files. */
export function listen(view, acts) {
  const { panel, input } = view;
  const open = (files) => files.length && input.files([...files]);
  // in the capturing phase, before the keys of all pages: the toolbox's go first here
  document.addEventListener("keydown", (event) => pressed(event, acts), true);
  view.addEventListener("click", (event) => clicked(event, view, acts));
  panel.part("pictures").addEventListener("change", ({ target }) => open(target.files));
  panel.part("film").addEventListener("change", ({ target }) => open(target.files));
  panel.part("layer").addEventListener("change", ({ target }) => view.choose(target.value, view.state.channel));
  panel.part("unit").addEventListener("change", ({ target }) => view.choose(view.state.layer, Number(target.value)));
  panel.part("mosaic").addEventListener("click", (event) => pointed(event, view));
  view.addEventListener("dragover", (event) => event.preventDefault());
  view.addEventListener("drop", (event) => {
    event.preventDefault();
    open(event.dataTransfer.files);
  });
}

function pressed(event, acts) {
  const typing = event.target.closest?.("input:not([type=file]), textarea, select, dialog");
  const off = event.key.length === 1 && !document.getElementById("keys-single").checked;
  if (typing || off || event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const act = acts[LETTERS[key] ?? key];
  if (!act) return;
  event.preventDefault();
  act(event.shiftKey);
}

function clicked(event, view, acts) {
  const act = event.target.closest("button[data-key]");
  const unit = event.target.closest("button[data-unit]");
  const picture = event.target.closest("a[data-image]");
  if (act) acts[act.dataset.key]();
  else if (unit) view.choose(view.state.layer, Number(unit.dataset.unit));
  else if (picture && !(event.ctrlKey || event.metaKey || event.shiftKey)) {
    event.preventDefault();
    view.input.insert(picture.dataset.image, picture.dataset.name);
  }
}

/** Chooses the unit under the pointer; a zoomed one gives way to the layer again. */
function pointed(event, view) {
  if (view.look.zoom) {
    view.toggle("zoom", 0);
    return;
  }
  const units = view.panel.units(view.state.layer);
  const columns = columnsOf(units);
  const { left, top, width, height } = view.panel.part("maps").getBoundingClientRect();
  const col = Math.floor(((event.clientX - left) / width) * columns);
  const row = Math.floor(((event.clientY - top) / height) * Math.ceil(units / columns));
  const unit = row * columns + col;
  if (unit < units) view.choose(view.state.layer, unit);
}
