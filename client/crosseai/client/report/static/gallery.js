// All images as tiles, of which only those in view are elements of the page.

const TILE = { width: 168, height: 232, gap: 12 }; // px; columns are stretched to fill the row
const STATUSES = [["all", "all files"], ["positive", "positive"], ["negative", "negative"], ["box", "with a box"],
  ["warned", "with a warning"], ["failed", "failed"]];
const TRUTH_STATUSES = [["hit", "ground truth hit"], ["miss", "ground truth missed"]];
const SORTS = [["path", "file name"], ["probability", "probability, highest first"], ["unsure", "probability, lowest first"],
  ["score", "box score, highest first"]];
const TRUTH_SORTS = [["iou", "IoU, lowest first"], ["best", "IoU, highest first"]];

const items = report.images.id.map((id, row) => ({
  id, path: report.images.path[row], width: report.images.width[row], height: report.images.height[row],
  hasLayers: report.images.layers[row] === 1, warnings: report.images.warnings[row] ?? "",
  positive: report.images.positive[row], probabilities: report.images.probabilities.map((column) => column[row] / 10000),
  boxes: [], truth: [],
}));
for (const [row, disease, x0, y0, x1, y1, score] of report.boxes) items[row].boxes.push({ disease, box: [x0, y0, x1, y1], score });
for (const [row, disease, x0, y0, x1, y1, iou] of report.truth?.boxes ?? []) {
  items[row].truth.push({ disease: report.diseases.indexOf(disease), name: disease, box: [x0, y0, x1, y1], iou });
}
items.push(...report.failures.map(([path, error, message, stage]) => ({ path, failure: { error, message, stage } })));

const filters = byId("filters"), gallery = byId("gallery"), tiles = new Map();
let shown = items, focused = 0, columns = 1, pitch = TILE.width;

function readFilters() {
  const value = Object.fromEntries(new FormData(filters));
  const number = (text, otherwise) => (text === "" || Number.isNaN(Number(text)) ? otherwise : Number(text));
  return { ...value, disease: value.disease === "" ? null : Number(value.disease), text: value.text.toLowerCase(),
    low: number(value.low, 0), high: number(value.high, 1), hit: Number(value.hit) };
}

const ofDisease = (list, disease) => (disease === null ? list : list.filter((entry) => entry.disease === disease));
const probabilityOf = (item, disease) => (disease === null ? Math.max(...item.probabilities) : item.probabilities[disease]);
const scoreOf = (item, disease) => Math.max(-1, ...ofDisease(item.boxes, disease).map((box) => box.score));
const iouOf = (item, disease) => Math.min(...ofDisease(item.truth, disease).map((truth) => truth.iou));

function passes(item, { text, disease, status, low, high, hit }) {
  if (item.failure) {
    const { error, message } = item.failure;
    return (status === "all" || status === "failed") && disease === null && low === 0 && high === 1 &&
      `${item.path} ${error} ${message}`.toLowerCase().includes(text);
  }
  const probability = probabilityOf(item, disease), truth = ofDisease(item.truth, disease);
  if (probability < low || probability > high || !item.path.toLowerCase().includes(text)) return false;
  const positive = disease === null ? item.positive !== 0 : ((item.positive >> disease) & 1) === 1;
  return { all: true, positive, negative: !positive, box: ofDisease(item.boxes, disease).length > 0,
    warned: item.warnings !== "", failed: false, hit: truth.some(({ iou }) => iou >= hit),
    miss: truth.some(({ iou }) => iou < hit) }[status];
}

function sorted(list, { sort, disease }) {
  const key = { path: () => 0, probability: (item) => -probabilityOf(item, disease), unsure: (item) => probabilityOf(item, disease),
    score: (item) => -scoreOf(item, disease), iou: (item) => iouOf(item, disease),
    best: (item) => (item.truth.length ? -iouOf(item, disease) : Infinity) }[sort];
  const keyed = list.map((item) => [item.failure ? Infinity : key(item), item]);
  const byPath = (a, b) => (a.path < b.path ? -1 : Number(a.path > b.path));
  return keyed.sort((a, b) => (a[0] === b[0] ? byPath(a[1], b[1]) : a[0] - b[0])).map(([, item]) => item);
}

function applyFilters() {
  const wanted = readFilters();
  shown = sorted(items.filter((item) => passes(item, wanted)), wanted);
  byId("count").value = `${shown.length.toLocaleString("en")} of ${plural(items.length, "file")}`;
  focused = 0;
  layOut();
}

function showImages(values) {
  filters.reset();
  for (const [name, value] of Object.entries(values)) filters.elements[name].value = value;
  applyFilters();
  byId("images").scrollIntoView();
}

function layOut() {
  columns = Math.max(1, Math.floor((gallery.clientWidth + TILE.gap) / (TILE.width + TILE.gap)));
  pitch = (gallery.clientWidth + TILE.gap) / columns;
  gallery.style.height = `${Math.ceil(shown.length / columns) * (TILE.height + TILE.gap)}px`;
  gallery.replaceChildren();
  tiles.clear();
  renderTiles();
}

// Adds the tiles that came into view, a screen ahead, and removes those that left.
function renderTiles() {
  const row = TILE.height + TILE.gap, above = -gallery.getBoundingClientRect().top;
  const first = Math.max(0, Math.floor(above / row) - 2) * columns;
  const last = Math.min(shown.length, (Math.ceil((above + window.innerHeight) / row) + 2) * columns);
  for (const [index, tile] of tiles) {
    if ((index < first || index >= last) && index !== focused) {
      tile.remove();
      tiles.delete(index);
    }
  }
  for (let index = first; index < last; index++) {
    if (!tiles.has(index)) {
      const tile = makeTile(shown[index], index);
      tiles.set(index, tile);
      gallery.append(tile);
    }
  }
}

function makeTile(item, index) {
  const left = (index % columns) * pitch, top = Math.floor(index / columns) * (TILE.height + TILE.gap);
  const { disease } = readFilters(), name = baseName(item.path);
  const content = item.failure
    ? [html("span", { class: "thumbnail failed" }, item.failure.message), html("b", { title: item.path }, name),
        html("span", { class: "hint" }, item.failure.error)]
    : [thumbnail(item), html("b", { title: item.path }, name), probabilityLine(item, disease),
        html("span", { class: "hint" }, item.truth.length ? `IoU ${iouOf(item, disease).toFixed(2)}` : item.warnings)];
  return html("li", { "aria-setsize": shown.length, "aria-posinset": index + 1,
    style: { transform: `translate(${left}px, ${top}px)`, width: `${pitch - TILE.gap}px`, height: `${TILE.height}px` } },
    html("button", { type: "button", class: "tile", tabindex: index === focused ? 0 : -1, "data-index": index,
      "aria-disabled": item.failure ? "true" : null, click: () => { setFocus(index); if (!item.failure) openImage(item); } }, content));
}

function thumbnail(item) {
  const scale = Math.max(item.width, item.height) / 160;
  const frame = item.boxes.map(({ disease, box: [x0, y0, x1, y1] }) =>
    svg("rect", { x: x0, y: y0, width: x1 - x0, height: y1 - y0, stroke: report.colours[disease] }));
  return html("span", { class: "thumbnail" },
    item.hasLayers ? html("img", { src: `report/${item.id}.jpg`, alt: "", loading: "lazy", decoding: "async" }) : null,
    svg("svg", { viewBox: `0 0 ${item.width} ${item.height}`, "aria-hidden": "true", "stroke-width": 2 * scale }, frame));
}

function probabilityLine(item, disease) {
  const d = disease ?? item.probabilities.indexOf(probabilityOf(item, null));
  const positive = (item.positive >> d) & 1;
  return html("span", { class: positive ? "call positive" : "call" }, html("i", { style: { background: report.colours[d] } }),
    `${report.diseases[d]} ${item.probabilities[d].toFixed(2)}`);
}

// One tile can be reached with Tab; the arrows move that place.
function setFocus(index) {
  tiles.get(focused)?.firstChild.setAttribute("tabindex", -1);
  focused = Math.min(Math.max(index, 0), shown.length - 1);
  if (focused < 0) return;
  const row = TILE.height + TILE.gap, top = gallery.getBoundingClientRect().top + Math.floor(focused / columns) * row;
  const head = filters.getBoundingClientRect().height + 60;
  if (top < head) window.scrollBy(0, top - head);
  else if (top + row > window.innerHeight) window.scrollBy(0, top + row - window.innerHeight);
  renderTiles();
  const tile = tiles.get(focused).firstChild;
  tile.setAttribute("tabindex", 0);
  tile.focus({ preventScroll: true });
}

function startGallery() {
  const options = (list) => list.map(([value, text]) => html("option", { value }, text));
  const { disease, status, sort, hit } = filters.elements, truth = Boolean(report.truth?.table);
  disease.append(...options(report.diseases.map((name, d) => [d, name])));
  status.append(...options(truth ? [...STATUSES, ...TRUTH_STATUSES] : STATUSES));
  sort.append(...options(truth ? [...SORTS, ...TRUTH_SORTS] : SORTS));
  hit.append(...options((report.truth?.table?.thresholds ?? [0.5]).map((t) => [t, t])));
  byId("hit-label").hidden = !truth;
  byId("no-layers").hidden = items.some((item) => item.hasLayers) || report.images.id.length === 0;
  filters.addEventListener("input", applyFilters);
  filters.addEventListener("change", applyFilters); // all that some browsers send for a select
  filters.addEventListener("reset", () => setTimeout(applyFilters));
  filters.addEventListener("submit", (event) => event.preventDefault());
  window.addEventListener("scroll", () => requestAnimationFrame(renderTiles), { passive: true });
  window.addEventListener("resize", layOut);
  gallery.addEventListener("keydown", (event) => {
    const page = Math.max(1, Math.floor(window.innerHeight / (TILE.height + TILE.gap)) - 1) * columns;
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, PageDown: page, PageUp: -page,
      Home: -shown.length, End: shown.length }[event.key];
    if (!step) return;
    event.preventDefault();
    setFocus(focused + step);
  });
  applyFilters();
}
