// Starts the page.

function followLink() {
  const id = /^#image=([0-9a-f]+)$/.exec(location.hash)?.[1];
  const item = id && items.find((candidate) => candidate.id === id);
  if (item && item !== view.item) openImage(item);
}

function setTheme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  byId("theme").setAttribute("aria-pressed", String(dark));
}

showSummary();
showTruth();
startGallery();
startViewer();
setTheme(matchMedia("(prefers-color-scheme: dark)").matches);
byId("theme").addEventListener("click", () => setTheme(document.documentElement.dataset.theme !== "dark"));
byId("print").addEventListener("click", () => window.print());
window.addEventListener("beforeprint", () => { byId("provenance").open = true; });
window.addEventListener("hashchange", followLink);
followLink();
