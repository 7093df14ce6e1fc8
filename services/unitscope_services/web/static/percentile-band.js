// The percentile band on a histogram: two handles for mouse and keys; the address changes when one is let go.
import { addressOf, show } from "./swap.js";

const FINE = 0.01;
const COARSE = 0.1;
const STEPS = { ArrowLeft: -FINE, ArrowDown: -FINE, ArrowRight: FINE, ArrowUp: FINE, PageDown: -COARSE, PageUp: COARSE };

class PercentileBand extends HTMLElement {
  connectedCallback() {
    this.svg = this.querySelector("svg");
    this.svg.setAttribute("role", "group"); // an image may hold nothing that takes the focus
    this.form = this.querySelector("form");
    this.fields = [...this.form.querySelectorAll("input[type=number]")];
    this.handles = [...this.querySelectorAll(".handle")];
    this.inside = this.querySelector(".band-count");
    this.counts = this.dataset.counts.split(",").map(Number);
    this.total = this.counts.reduce((sum, count) => sum + count, 0);
    this.handles.forEach((handle, side) => this.arm(handle, side));
    this.place();
  }

  get band() {
    return this.fields.map((field) => Number(field.value));
  }

  arm(handle, side) {
    handle.setAttribute("tabindex", "0");
    handle.setAttribute("role", "slider");
    handle.setAttribute("aria-label", ["Band from percentile", "Band to percentile"][side]);
    handle.setAttribute("aria-valuemin", "0");
    handle.setAttribute("aria-valuemax", "1");
    handle.addEventListener("pointerdown", (event) => {
      handle.setPointerCapture(event.pointerId);
      this.dragged = true;
      event.preventDefault();
      handle.focus({ preventScroll: true });
    });
    handle.addEventListener("pointermove", (event) => this.dragged && this.put(side, this.shareAt(event)));
    handle.addEventListener("pointerup", () => {
      this.dragged = false;
      this.go();
    });
    handle.addEventListener("keydown", (event) => this.pressed(event, side));
    handle.addEventListener("keyup", (event) => (event.key in STEPS || ["Home", "End"].includes(event.key)) && this.go());
  }

  pressed(event, side) {
    if (event.key in STEPS) this.put(side, this.band[side] + STEPS[event.key]);
    else if (event.key === "Home") this.put(side, 0);
    else if (event.key === "End") this.put(side, 1);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** Move one end, never beyond the other. */
  put(side, share) {
    const [low, high] = this.band;
    const bounded = side ? Math.min(Math.max(share, low), 1) : Math.max(Math.min(share, high), 0);
    this.fields[side].value = String(Number(bounded.toFixed(3)));
    this.place();
  }

  /** The share of images below the pointer, from the counts of the bins. */
  shareAt(event) {
    const { left, width } = this.svg.getBoundingClientRect();
    const place = Math.min(Math.max((event.clientX - left) / width, 0), 1) * this.counts.length;
    const whole = Math.floor(place);
    const below = this.counts.slice(0, whole).reduce((sum, count) => sum + count, 0);
    return (below + (this.counts[whole] ?? 0) * (place - whole)) / this.total;
  }

  /** Where a share lies along the bins, from 0 to 1; the same as `charts.place_of`. */
  placeOf(share) {
    if (share <= 0) return 0;
    let below = 0;
    for (const [bin, count] of this.counts.entries()) {
      if (below + count >= share * this.total) return (bin + (share * this.total - below) / count) / this.counts.length;
      below += count;
    }
    return 1;
  }

  place() {
    const width = this.svg.viewBox.baseVal.width;
    this.handles.forEach((handle, side) => {
      const share = this.band[side];
      handle.setAttribute("transform", `translate(${this.placeOf(share) * width} 0)`);
      handle.setAttribute("aria-valuenow", String(share));
      handle.setAttribute("aria-valuetext", `${(share * 100).toFixed(1)} %`);
    });
    const count = this.imagesInside();
    this.inside.textContent = `${count.toLocaleString("en").replaceAll(",", "\u202f")} ${count === 1 ? "image" : "images"}`;
  }

  /** How many images lie in the band; the same as `exemplars.rank_range`. */
  imagesInside() {
    const images = Number(this.dataset.images);
    const [low, high] = this.band;
    const slack = 1e-9 * images;
    const first = Math.ceil((1 - high) * images - slack);
    const last = Math.min(images - 1, Math.floor((1 - low) * images + slack));
    return Math.max(0, last - first + 1);
  }

  go() {
    const address = addressOf(this.form);
    if (address !== location.href) show(address);
  }
}

customElements.define("percentile-band", PercentileBand);
