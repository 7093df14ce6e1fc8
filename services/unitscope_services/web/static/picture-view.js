// A picture under pointer and keys: the units at a cell, the value of a unit's map there, the nearest patches of a part.
import { show } from "./swap.js";

const SVG = "http://www.w3.org/2000/svg";
const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
const DRAG_PX = 5;

class PictureView extends HTMLElement {
  connectedCallback() {
    this.svg = this.querySelector("svg.whole");
    const data = this.svg.dataset;
    this.grid = Object.fromEntries(
      ["rows", "cols", "top", "left", "height", "width"].map((name) => [name, Number(data[name])]),
    );
    this.seen = data.seen.split(",").map(Number);
    this.pointed = this.querySelector("output.pointed");
    this.here = this.querySelector("#here");
    if (!("computes" in this.dataset)) return;
    this.svg.setAttribute("tabindex", "0");
    this.svg.setAttribute("role", "application");
    this.svg.setAttribute("aria-roledescription", "picture with cells");
    this.svg.setAttribute(
      "aria-label",
      `${this.svg.getAttribute("aria-label")}. Arrow keys move over the cells of ${data.layer}, with shift they draw a box, enter asks.`,
    );
    this.frame = this.mark("cell hover");
    this.drawn = this.mark("spot asked");
    this.cell = data.cell ? data.cell.split(",").map(Number) : null;
    this.anchor = this.cell;
    this.values = data.map ? fetch(data.map).then((answer) => (answer.ok ? answer.json() : null)) : null;
    this.listen();
  }

  listen() {
    this.svg.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "touch" || event.button !== 0) return;
      this.start = this.place(event);
      this.from = [event.clientX, event.clientY];
      this.svg.setPointerCapture(event.pointerId);
      event.preventDefault();
      this.svg.focus({ preventScroll: true });
    });
    this.svg.addEventListener("pointermove", (event) => this.moved(event));
    this.svg.addEventListener("pointerup", (event) => this.released(event));
    this.svg.addEventListener("pointercancel", () => this.forget());
    this.svg.addEventListener("keydown", (event) => this.pressed(event));
  }

  mark(name) {
    const rect = document.createElementNS(SVG, "rect");
    rect.setAttribute("class", name);
    rect.setAttribute("visibility", "hidden");
    return this.svg.appendChild(rect);
  }

  /** Row and column of the pointer in pixels of the original picture. */
  place(event) {
    const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(this.svg.getScreenCTM().inverse());
    return [y, x];
  }

  cellAt([row, col]) {
    const { rows, cols, top, left, height, width } = this.grid;
    const within = (cell, count) => Math.min(Math.max(cell, 0), count - 1);
    return [within(Math.floor((row - top) / height), rows), within(Math.floor((col - left) / width), cols)];
  }

  /** Whole pixels between two places, within what the network sees. */
  boxBetween(one, other) {
    const [top, left, bottom, right] = this.seen;
    const low = [0, 1].map((axis) => Math.max(Math.floor(Math.min(one[axis], other[axis])), [top, left][axis]));
    const high = [0, 1].map((axis) => Math.min(Math.ceil(Math.max(one[axis], other[axis])), [bottom, right][axis]));
    return [...low, ...high];
  }

  moved(event) {
    const place = this.place(event);
    const dragged = this.from && Math.hypot(event.clientX - this.from[0], event.clientY - this.from[1]) > DRAG_PX;
    if (dragged || this.box) this.draw(this.boxBetween(this.start, place));
    else if (!this.from) this.point(this.cellAt(place));
  }

  released(event) {
    const wasDown = this.from;
    const box = this.box;
    const cell = this.cellAt(this.place(event));
    this.forget();
    if (box) this.ask("box", box);
    else if (wasDown || event.pointerType === "touch") this.ask("cell", cell);
  }

  forget() {
    this.from = this.start = this.box = null;
    this.drawn.setAttribute("visibility", "hidden");
  }

  pressed(event) {
    const step = STEPS[event.key];
    if (step && !(event.ctrlKey || event.metaKey || event.altKey)) {
      const { rows, cols } = this.grid;
      const cell = this.cell ?? [Math.floor((rows - 1) / 2), Math.floor((cols - 1) / 2)];
      const next = this.cell ? [cell[0] + step[0], cell[1] + step[1]] : cell;
      const moved = [Math.min(Math.max(next[0], 0), rows - 1), Math.min(Math.max(next[1], 0), cols - 1)];
      if (!event.shiftKey) {
        this.anchor = moved;
        this.forget();
      }
      this.point(moved);
      if (event.shiftKey) this.draw(this.boxOfCells(this.anchor ?? moved, moved));
    } else if (event.key === "Enter" && this.box) {
      const box = this.box;
      this.forget();
      this.ask("box", box);
    } else if (event.key === "Enter" && this.cell) this.ask("cell", this.cell);
    else if (event.key === "Escape") this.forget();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  boxOfCells(one, other) {
    const { top, left, height, width } = this.grid;
    const low = [Math.min(one[0], other[0]), Math.min(one[1], other[1])];
    const high = [Math.max(one[0], other[0]) + 1, Math.max(one[1], other[1]) + 1];
    return this.boxBetween(
      [top + low[0] * height, left + low[1] * width],
      [top + high[0] * height, left + high[1] * width],
    );
  }

  draw(box) {
    if (box[2] <= box[0] || box[3] <= box[1]) return;
    this.box = box;
    set(this.drawn, box[1], box[0], box[3] - box[1], box[2] - box[0]);
    this.pointed.value = `box ${box.join(", ")}`;
    ["top", "left", "bottom", "right"].forEach((side, number) => {
      const field = this.querySelector(`#box-${side}`);
      if (field) field.value = box[number];
    });
  }

  /** Frame a cell, say its value, and list its units as soon as the answer before is there: the newest cell wins. */
  async point(cell) {
    if (this.cell && cell[0] === this.cell[0] && cell[1] === this.cell[1] && this.wanted) return;
    this.cell = this.wanted = cell;
    const { top, left, height, width } = this.grid;
    set(this.frame, left + cell[1] * width, top + cell[0] * height, width, height);
    this.say(cell);
    if (this.asking) return;
    this.asking = true;
    for (let answered = null; answered !== this.wanted; ) {
      answered = this.wanted;
      await this.list(answered);
    }
    this.asking = false;
  }

  async say(cell) {
    const values = await this.values;
    if (cell !== this.wanted) return;
    const value = values?.values[cell[0]]?.[cell[1]];
    this.pointed.value = `row ${cell[0]}, column ${cell[1]}${value == null ? "" : `: ${values.unit} is ${value.toPrecision(4)}`}`;
  }

  async list(cell) {
    const address = this.address("cell", cell);
    address.pathname += "/here";
    const answer = await fetch(address).catch(() => null);
    if (answer?.ok) this.here.innerHTML = await answer.text();
    else if (answer?.status === 429) this.pointed.value += " (the model is busy)";
  }

  ask(name, numbers) {
    show(this.address(name, numbers).href.replaceAll("%2C", ","));
  }

  address(name, numbers) {
    const address = new URL(this.dataset.start, location.href);
    address.search = location.search;
    address.searchParams.set(name, numbers.join(","));
    return address;
  }
}

function set(rect, x, y, width, height) {
  for (const [name, value] of Object.entries({ x, y, width, height })) rect.setAttribute(name, value);
  rect.setAttribute("visibility", "visible");
}

customElements.define("picture-view", PictureView);
