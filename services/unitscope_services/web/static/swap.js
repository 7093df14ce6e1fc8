// Shows another address in place: its <main> instead of this one's, without losing scroll and focus.

let shown = location.pathname + location.search;
let asked = 0;

/** Show an address; a page that cannot be had is gone to plainly, so that its error is seen. */
export async function show(address, push = true) {
  const turn = ++asked;
  const main = document.querySelector("main");
  main.setAttribute("aria-busy", "true");
  const answer = await fetch(address, { headers: { Accept: "text/html" } }).catch(() => null);
  if (turn !== asked) return;
  if (!answer?.ok) {
    location.assign(address);
    return;
  }
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (turn !== asked) return;
  const focused = document.activeElement?.id;
  main.replaceWith(document.adoptNode(page.querySelector("main")));
  document.title = page.title;
  if (push) history.pushState(null, "", answer.url);
  shown = location.pathname + location.search;
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

/** The address that a form asks for; several fields of one name are written as one. */
export function addressOf(form) {
  const fields = new FormData(form);
  const address = new URL(form.action);
  address.hash = "";
  for (const name of new Set(fields.keys())) {
    const text = fields.getAll(name).join(name === "quantile" ? ".." : ",");
    if (text) address.searchParams.set(name, text);
  }
  return address.href.replaceAll("%2C", ",").replaceAll("%3A", ":");
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[data-swap], [data-swap] a");
  const plain = event.button === 0 && !(event.metaKey || event.ctrlKey || event.shiftKey || event.altKey);
  if (!link || !plain || event.defaultPrevented) return;
  event.preventDefault();
  show(link.href);
});

document.addEventListener("submit", (event) => {
  if (!event.target.matches("form[data-swap]") || event.defaultPrevented) return;
  event.preventDefault();
  show(addressOf(event.target));
});

addEventListener("popstate", () => {
  if (location.pathname + location.search !== shown) show(location.href, false);
});
