// Keys of every page; single characters can be switched off in their list (WCAG 2.1.4).

const OFF = "unitscope-keys-off";
const dialog = document.getElementById("keys");
const single = document.getElementById("keys-single");

single.checked = localStorage.getItem(OFF) === null;
single.addEventListener("change", () => (single.checked ? localStorage.removeItem(OFF) : localStorage.setItem(OFF, "1")));
document.getElementById("keys-open").addEventListener("click", () => dialog.showModal());
document.getElementById("keys-open").hidden = false;

const follow = (rel) => () => document.querySelector(`main a[rel="${rel}"]`)?.click();
const tile = (step) => () => {
  const links = [...document.querySelectorAll("main tile-grid a, main .patches a, main .pairs a.mono, main .kin a.mono")];
  const at = links.indexOf(document.activeElement);
  links[Math.min(Math.max(at + step, 0), links.length - 1)]?.focus();
};
const ACTS = {
  "?": () => dialog.showModal(),
  "/": () => document.getElementById("find")?.focus(),
  ArrowLeft: follow("prev"),
  ArrowRight: follow("next"),
  j: tile(1),
  k: tile(-1),
  u: () => [...document.querySelectorAll(".mark, .trail a")].at(-1)?.click(),
};

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, textarea, select, dialog, [contenteditable]");
  const off = event.key.length === 1 && !single.checked;
  if (typing || off || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  const act = ACTS[event.key];
  if (!act) return;
  act();
  if (event.key.length === 1) event.preventDefault();
});
