// Arrow keys over a grid of links. A sheet of tiles that a busy server refused is asked for once more.

const AGAIN_MS = 5000;

class TileGrid extends HTMLElement {
  connectedCallback() {
    this.addEventListener("error", (event) => this.askAgain(event.target), true);
    this.addEventListener("keydown", (event) => {
      const links = [...this.querySelectorAll("a")];
      const at = links.indexOf(document.activeElement);
      const to = at < 0 || event.ctrlKey || event.metaKey || event.altKey ? undefined : this.target(event.key, at, links);
      if (to === undefined) return;
      links[Math.min(Math.max(to, 0), links.length - 1)].focus();
      event.preventDefault();
      event.stopPropagation();
    });
  }

  askAgain(image) {
    if (!(image instanceof SVGImageElement) || image.dataset.asked) return;
    image.dataset.asked = "again";
    setTimeout(() => image.setAttribute("href", image.getAttribute("href")), AGAIN_MS);
  }

  target(key, at, links) {
    const top = links[0].getBoundingClientRect().top;
    const columns = links.findIndex((link) => link.getBoundingClientRect().top > top + 1);
    const across = columns < 0 ? links.length : columns;
    const targets = {
      ArrowLeft: at - 1,
      ArrowRight: at + 1,
      ArrowUp: at < across ? at : at - across,
      ArrowDown: at + across < links.length ? at + across : at,
      Home: 0,
      End: links.length - 1,
    };
    return targets[key];
  }
}

customElements.define("tile-grid", TileGrid);
