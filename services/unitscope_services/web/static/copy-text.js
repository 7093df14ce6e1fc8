// A text to take along: a button copies it, or where the browser does not let pages copy, selects it.

class CopyText extends HTMLElement {
  connectedCallback() {
    if (this.querySelector("button")) return;
    const text = this.querySelector("pre");
    const button = document.createElement("button");
    button.type = "button";
    button.className = "plain";
    button.textContent = "Copy";
    button.setAttribute("aria-label", `Copy ${this.getAttribute("name") || "the command"}`);
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(text);
        button.textContent = "Selected";
      }
    });
    this.append(button);
  }
}

customElements.define("copy-text", CopyText);
