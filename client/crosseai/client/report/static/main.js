// Starts the page.

function followLink() {
  const link = new URLSearchParams(location.hash.slice(1)), disease = link.get("disease");
  const item = items.find(({ id }) => id === link.get("image"));
  if (item && (item !== view.item || disease !== report.diseases[view.disease])) openImage(item, disease);
}

// A browser may keep nothing for pages from a disk; then the choice lasts as long as the page.
function storedTheme(...choice) {
  try {
    if (choice.length) localStorage.setItem("crosseai-theme", choice[0]);
    return localStorage.getItem("crosseai-theme");
  } catch {
    return null;
  }
}

function setTheme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  byId("theme").setAttribute("aria-pressed", String(dark));
}

showSummary();
showTruth();
startGallery();
startViewer();
setTheme((storedTheme() ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark");
byId("theme").addEventListener("click", () => {
  setTheme(document.documentElement.dataset.theme !== "dark");
  storedTheme(document.documentElement.dataset.theme);
});
byId("print").addEventListener("click", () => window.print());
window.addEventListener("beforeprint", () => { byId("provenance").open = true; });
window.addEventListener("hashchange", followLink);
followLink();
