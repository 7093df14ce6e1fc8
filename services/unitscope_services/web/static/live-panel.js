// What the live page says and draws: the answer to a frame, what is chosen, what is stored of it.
import { columnsOf, copyTo, drawFrame, drawMap, drawMaps, drawPatches, drawPicture } from "./live-drawing.js";

export const METHODS = [null, "gradient", "gradient-x-input", "guided", "deconvnet"];
export const GAMMAS = [1, 0.7, 0.5, 0.3];
export const ZOOMS = ["layer", "unit", "projection"];
const RATE_MS = 1000;

export class Panel {
  constructor(root) {
    this.root = root;
    this.part = (name) => root.querySelector(`#live-${name}`);
    this.options = [...this.part("layer").options];
    this.sheets = { tile: Number(root.dataset.tile), columns: Number(root.dataset.columns) };
    this.rate = { answered: 0, dropped: 0, spent: 0, since: performance.now() };
  }

  option(layer) {
    return this.options.find((one) => one.value === layer);
  }

  units(layer) {
    return Number(this.option(layer).dataset.units);
  }

  /** What is wrong, or the empty text when all is well. */
  tell(words) {
    if (this.part("state").textContent !== words) this.part("state").textContent = words;
  }

  // an answer

  async show({ head, parts }, frame, input) {
    this.last = { head, parts };
    drawFrame(this.part("frame"), frame.bitmap, input.resize, input.input);
    this.part("frame").dataset.image = frame.image ?? "";
    if (parts.projection) await drawPicture(this.part("projection"), parts.projection);
    this.draw();
    this.showFigures(head);
    this.showTop(head.top);
    this.showRate(head.seconds, input.isMoving);
  }

  draw(look = this.look) {
    this.look = look;
    if (!this.last) return;
    const { head, parts } = this.last;
    const shades = { gamma: GAMMAS[look.gamma], signed: head.signals };
    drawMaps(this.part("maps"), parts.maps, head.units, head.maps_grid, shades);
    drawMap(this.part("map"), parts.map, head.grid, shades);
    const zoom = ZOOMS[look.zoom];
    this.part("zoomed").hidden = zoom === "layer";
    this.part("zoomed").classList.toggle("cells", zoom === "unit");
    if (zoom !== "layer") copyTo(this.part("zoomed"), this.part(zoom === "unit" ? "map" : "projection"));
  }

  showFigures({ unit, projection, layer }) {
    this.part("value").textContent = figure(unit.activation);
    this.part("share").textContent = unit.percentile === null ? "" : `${percent(unit.percentile)}, ${place(unit)}`;
    const chart = this.root.querySelector(".live-stored svg.chart");
    const mark = chart?.querySelector(".now");
    if (mark && chart.dataset.unit === `${layer}:${unit.channel}` && unit.activation !== null) {
      const [low, high] = [Number(chart.dataset.low), Number(chart.dataset.high)];
      const along = Math.min(Math.max((unit.activation - low) / (high - low), 0), 1) * chart.viewBox.baseVal.width;
      for (const end of ["x1", "x2"]) mark.setAttribute(end, along);
      mark.setAttribute("visibility", "visible");
    }
    this.part("projection").hidden = !projection;
    this.part("projected").textContent = projection
      ? `${projection.unit}, ${figure(projection.activation)} at ${place(projection)}; grey is zero`
      : "off";
    this.part("projected").title = projection?.notes.join("; ") ?? "";
  }

  showTop(units) {
    const list = this.part("top").querySelector("ol");
    while (list.children.length > units.length) list.lastChild.remove();
    while (list.children.length < units.length) {
      const button = document.createElement("button");
      button.type = "button";
      list.append(document.createElement("li"));
      list.lastChild.append(button, document.createElement("span"));
      list.lastChild.lastChild.className = "quiet";
    }
    units.forEach((unit, number) => {
      const [button, label] = list.children[number].children;
      button.dataset.unit = unit.channel;
      button.textContent = unit.channel;
      button.setAttribute("aria-label", `unit ${unit.channel}`);
      label.textContent = [percent(unit.percentile), unit.label].filter(Boolean).join(", ");
    });
  }

  /** What a frame costs at the server; of a moving picture once a second, with the frames answered and left out. */
  showRate(seconds, isMoving) {
    const { rate } = this;
    rate.answered += 1;
    const passed = performance.now() - rate.since;
    if (isMoving && passed < RATE_MS) return;
    const stages = Object.entries(seconds).map(([stage, took]) => `${stage} ${Math.round(1000 * took)}`);
    const speed = isMoving ? `${((1000 * rate.answered) / passed).toFixed(1)} frames/s, ${rate.dropped} left out; ` : "";
    this.part("rate").textContent = `${speed}${stages.join(", ")} ms`;
    Object.assign(rate, { answered: 0, dropped: 0, since: performance.now() });
  }

  // what is chosen

  showChoice({ layer, channel, method, held }, look, input) {
    this.part("layer").value = layer;
    this.part("unit").value = channel;
    this.part("unit").max = this.units(layer) - 1;
    this.part("method").textContent = METHODS[method] ?? "off";
    this.part("top").hidden = !look.labels;
    this.part("patches").hidden = !look.patches;
    this.root.querySelector(".live-stored").classList.toggle("bare", !look.stored);
    this.frameUnit(".chosen:not(.held)", layer, channel, true);
    const [heldLayer, heldChannel] = held ? split(held) : [];
    this.frameUnit(".chosen.held", layer, heldChannel, heldLayer === layer);
    const pressed = {
      c: input.kind === "camera",
      f: Boolean(input.frozen),
      d: Boolean(held),
      s: look.patches,
      a: look.signals,
      8: look.labels,
      9: look.stored,
    };
    for (const [key, on] of Object.entries(pressed)) this.button(key).setAttribute("aria-pressed", on);
    this.button("f").disabled = input.kind === "pictures";
    if (look.patches) this.drawPatches(layer);
  }

  button(key) {
    return this.root.querySelector(`button[data-key="${key}"]`);
  }

  frameUnit(selector, layer, channel, shown) {
    const frame = this.root.querySelector(selector);
    frame.hidden = !shown;
    if (!shown) return;
    const across = columnsOf(this.units(layer));
    const down = Math.ceil(this.units(layer) / across);
    frame.style.left = `${(100 * (channel % across)) / across}%`;
    frame.style.top = `${(100 * Math.floor(channel / across)) / down}%`;
    frame.style.width = `${100 / across}%`;
    frame.style.height = `${100 / down}%`;
  }

  async drawPatches(layer) {
    if (this.drawn === layer) return;
    this.drawn = layer;
    const canvas = document.createElement("canvas");
    await drawPatches(canvas, this.option(layer).dataset.sheets.split(" "), this.units(layer), this.sheets);
    if (this.drawn === layer) copyTo(this.part("patches"), canvas);
  }

  async fetchStored(unit) {
    this.wanted = unit;
    const answer = await fetch(`${this.root.dataset.stored}?unit=${encodeURIComponent(unit)}`).catch(() => null);
    const html = answer?.ok ? await answer.text() : `<p class="note">What is stored of ${unit} cannot be had just now.</p>`;
    if (this.wanted !== unit) return;
    this.root.querySelector(".live-stored").innerHTML = html;
    if (this.last) this.showFigures(this.last.head);
  }
}

export function split(unit) {
  const at = unit.lastIndexOf(":");
  return [unit.slice(0, at), Number(unit.slice(at + 1))];
}

function place({ row, col }) {
  return row < 0 ? `token ${col}` : `row ${row}, column ${col}`;
}

/** As `assets.figure` writes numbers. */
function figure(value) {
  return value === null ? "–" : String(Number(value.toPrecision(4))).replace("-", "−");
}

/** As `assets.percent` writes shares: never rounded up to 100. */
function percent(share) {
  const digits = share > 0.99 && share < 1 ? Math.max(1, Math.ceil(-Math.log10(100 * (1 - share)))) : 1;
  return `${Number((Math.floor(share * 100 * 10 ** digits + 1e-6) / 10 ** digits).toFixed(digits))} %`;
}
