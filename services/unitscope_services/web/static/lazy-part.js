// A part of a page that has an address of its own: the section found there takes its place when it comes near.

class LazyPart extends HTMLElement {
  connectedCallback() {
    this.near = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && this.begin(), {
      rootMargin: "300px",
    });
    this.near.observe(this);
    this.addEventListener("click", (event) => this.choose(event));
  }

  disconnectedCallback() {
    this.near.disconnect();
  }

  begin() {
    this.near.disconnect();
    this.load(this.getAttribute("src")); // where it fails the plain link stays
  }

  async choose(event) {
    const link = event.target.closest?.("[data-parts] a");
    const plain = event.button === 0 && !(event.metaKey || event.ctrlKey || event.shiftKey || event.altKey);
    if (!link || !plain) return;
    event.preventDefault();
    if (!(await this.load(link.href))) location.assign(link.href);
    else this.querySelector("[data-parts] a[aria-current]")?.focus({ preventScroll: true });
  }

  async load(address) {
    this.setAttribute("aria-busy", "true");
    const answer = await fetch(address, { headers: { Accept: "text/html" } }).catch(() => null);
    const page = answer?.ok && new DOMParser().parseFromString(await answer.text(), "text/html");
    this.removeAttribute("aria-busy");
    if (!page) return false;
    this.replaceChildren(document.adoptNode(page.querySelector("main section[data-part]")));
    return true;
  }
}

customElements.define("lazy-part", LazyPart);
