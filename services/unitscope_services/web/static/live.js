// The live page: frames go to the server one at a time, the newest first.
import { actsOf, listen } from "./live-acts.js";
import { columnsOf } from "./live-drawing.js";
import { Input } from "./live-input.js";
import { Link } from "./live-link.js";
import { METHODS, Panel, split } from "./live-panel.js";

const SLOW_MS = 1500;
const SLOW = "No answer yet. A server that has just started loads the network first, for some seconds.";

class LiveView extends HTMLElement {
  connectedCallback() {
    if (!("WebSocket" in window)) {
      document.getElementById("live-without").hidden = false;
      return;
    }
    this.hidden = false;
    const data = this.dataset;
    const asked = new URLSearchParams(location.search);
    const [layer, channel] = split(data.unit);
    this.state = { layer, channel, method: Math.max(METHODS.indexOf(asked.get("back")), 0), held: asked.get("hold") };
    this.look = { gamma: 0, zoom: 0, patches: false, signals: false, labels: true, stored: true };
    this.amongLayers = false;
    this.panel = new Panel(this);
    this.link = new Link(data.socket);
    this.input = new Input(data, () => this.offer(), (words) => this.panel.tell(words));
    listen(this, actsOf(this));
    this.panel.draw(this.look);
    this.input.begin(data.image, data.name);
  }

  // frames

  /** There is something new to look at; it is asked about as soon as the answer before is there. */
  offer() {
    this.showInput();
    if (this.busy && this.waiting) this.panel.rate.dropped += 1;
    this.waiting = true;
    if (!this.busy) this.ask();
  }

  async ask() {
    this.busy = true;
    while (this.waiting) {
      this.waiting = false;
      try {
        const frame = await this.input.frame();
        await this.panel.show(await this.answered(frame), frame, this.input);
        this.panel.tell("");
      } catch (fault) {
        await this.wait(fault);
      }
    }
    this.busy = false;
  }

  /** The answer to a frame; where it is long in coming, that is said. */
  async answered({ image, data }) {
    const slow = setTimeout(() => this.panel.tell(SLOW), SLOW_MS);
    try {
      return await this.link.ask(this.question(image), data);
    } finally {
      clearTimeout(slow);
    }
  }

  /** Say what went wrong; where the server is busy or lost, ask again later. */
  async wait({ message, retry_after_s }) {
    const words = `${message[0].toUpperCase()}${message.slice(1)}.`;
    this.panel.tell(retry_after_s ? `${words} Asking again in ${retry_after_s} s.` : words);
    if (!retry_after_s) return;
    await new Promise((resolve) => setTimeout(resolve, 1000 * retry_after_s));
    this.waiting = true;
  }

  question(image) {
    const { layer, channel, method, held } = this.state;
    const head = { unit: `${layer}:${channel}` };
    if (image) head.image = image;
    if (method) Object.assign(head, { method: METHODS[method], signals: this.look.signals });
    if (method && held) head.project = held;
    return head;
  }

  // what is chosen

  choose(layer, channel) {
    const within = Math.min(Math.max(channel || 0, 0), this.panel.units(layer) - 1);
    const same = this.state.layer === layer && this.state.channel === within;
    Object.assign(this.state, { layer, channel: within });
    this.again();
    if (!same) this.panel.fetchStored(`${layer}:${within}`);
  }

  /** By an arrow in the mosaic; above its first line are the layers. */
  move([across, down], steps) {
    const { layer, channel } = this.state;
    const columns = columnsOf(this.panel.units(layer));
    if (this.amongLayers && across) this.stepLayer(across);
    else if (this.amongLayers !== Boolean(down < 0 && channel < columns)) this.goAmong(down < 0);
    else if (!this.amongLayers) this.choose(layer, channel + steps * (across + down * columns));
  }

  goAmong(layers) {
    this.amongLayers = layers;
    this.panel.part("layer").classList.toggle("among", layers);
  }

  stepLayer(by) {
    const { options } = this.panel;
    const at = options.indexOf(this.panel.option(this.state.layer)) + by;
    this.choose(options[Math.min(Math.max(at, 0), options.length - 1)].value, this.state.channel);
  }

  toggle(name, value = !this.look[name]) {
    this.look[name] = value;
    this.showInput();
    this.panel.draw(this.look);
  }

  reset() {
    Object.assign(this.state, { method: 0, held: null });
    Object.assign(this.look, { gamma: 0, zoom: 0, patches: false, signals: false });
    this.goAmong(false);
    this.choose(this.panel.options[0].value, 0);
  }

  /** Another question about the same frame. */
  again() {
    this.panel.draw(this.look);
    this.offer();
  }

  showInput() {
    this.panel.showChoice(this.state, this.look, this.input);
    this.panel.part("name").textContent = this.input.name;
    const { layer, channel, method, held } = this.state;
    const address = new URL(this.dataset.start, location.href);
    const said = { unit: `${layer}:${channel}`, back: METHODS[method], hold: held, image: this.input.picture?.id };
    for (const [name, value] of Object.entries(said)) if (value) address.searchParams.set(name, value);
    history.replaceState(null, "", address.href.replaceAll("%3A", ":"));
  }
}

customElements.define("live-view", LiveView);
