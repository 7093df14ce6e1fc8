// A list that goes on where its end is seen: the link to the next page loads in place. With `asked` it waits for the
// link to be followed once, for what stands below it would else never be reached.

class EndlessList extends HTMLElement {
  connectedCallback() {
    this.seen = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && this.extend(), {
      rootMargin: "200px",
    });
    this.addEventListener("click", (event) => this.ask(event));
    this.watch();
  }

  disconnectedCallback() {
    this.seen.disconnect();
  }

  watch() {
    this.link = this.querySelector("a.next");
    if (this.link && !this.hasAttribute("asked")) this.seen.observe(this.link);
  }

  ask(event) {
    const plain = event.button === 0 && !(event.metaKey || event.ctrlKey || event.shiftKey || event.altKey);
    if (!plain || !this.link || event.target !== this.link) return;
    event.preventDefault();
    if (this.link.hasAttribute("aria-busy")) return;
    this.removeAttribute("asked");
    this.extend();
  }

  async extend() {
    const link = this.link;
    this.seen.unobserve(link);
    link.setAttribute("aria-busy", "true");
    const answer = await fetch(link.href, { headers: { Accept: "text/html" } }).catch(() => null);
    if (!answer?.ok) {
      link.removeAttribute("aria-busy");
      return;
    }
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const next = page.querySelector(`endless-list[name="${this.getAttribute("name")}"]`);
    this.querySelector("ol, ul, tbody").append(...next.querySelector("ol, ul, tbody").children);
    const following = next.querySelector("a.next");
    if (following) link.replaceWith(following);
    else link.closest("p").remove();
    this.watch();
  }
}

customElements.define("endless-list", EndlessList);
