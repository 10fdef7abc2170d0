// One image with its layers: zoom, pan, and a mask that follows the sliders.

const viewer = byId("viewer"), viewport = byId("viewport"), stage = byId("stage"), canvas = byId("map");
const layerControls = byId("layers").querySelectorAll("input"), sliders = byId("sliders").querySelectorAll("input");
const scored = { opacity: 0.7, t: report.parameters.t, threshold: report.parameters.threshold };
const view = { item: null, disease: null, layers: null, maps: null, mask: null, zoom: 1, x: 0, y: 0 };
const received = new Map(); // layers of the images seen last
const KEPT = 12;

// Scripts in report/ call this: a page opened from a disk may load scripts, but read no files.
function receiveLayers(id, layers) {
  received.set(id, layers);
  if (received.size > KEPT) received.delete(received.keys().next().value);
}

function loadLayers(id) {
  if (received.has(id)) return Promise.resolve(received.get(id));
  return new Promise((resolve, reject) => {
    const script = html("script", { src: `report/${id}.js`,
      load: () => { script.remove(); resolve(received.get(id)); },
      error: () => { script.remove(); reject(new Error("the layers of this image are not beside the page")); } });
    document.head.append(script);
  });
}

const bytesOf = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));

// The maps of a finding: heat map float32 [h, w], gradient map uint8 [height, width].
async function decodeMaps({ heatmap, shape, gradient }) {
  const image = new Image();
  image.src = gradient;
  await image.decode();
  const { width, height } = image, scratch = html("canvas", { width, height });
  const context = scratch.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const rgba = context.getImageData(0, 0, width, height).data;
  const gray = Uint8Array.from({ length: width * height }, (_, i) => rgba[4 * i]);
  return { heatmap: new Float32Array(bytesOf(heatmap).buffer), shape, gradient: gray, width, height };
}

async function openImage(item, diseaseName = null) {
  Object.assign(view, { item, layers: null, maps: null, mask: null });
  const found = report.diseases.indexOf(diseaseName);
  const best = [...item.boxes].sort((a, b) => item.probabilities[b.disease] - item.probabilities[a.disease])[0];
  view.disease = found >= 0 ? found : readFilters().disease ?? best?.disease ?? item.probabilities.indexOf(Math.max(...item.probabilities));
  if (!viewer.open) viewer.showModal();
  byId("picture").hidden = true;
  byId("viewer-title").textContent = baseName(item.path);
  byId("viewer-facts").textContent = [item.path, `${item.width} × ${item.height} px`, item.id, item.warnings].filter(Boolean).join(" · ");
  const index = shown.indexOf(item);
  byId("position").textContent = index < 0 ? "" : `${(index + 1).toLocaleString("en")} / ${shown.length.toLocaleString("en")}`;
  byId("marks").setAttribute("viewBox", `0 0 ${item.width} ${item.height}`);
  byId("truth-toggle").hidden = !item.truth.length;
  fit();
  await showDisease(view.disease);
}

async function showDisease(disease) {
  const { item } = view, say = (text) => { byId("message").textContent = text; };
  view.disease = disease;
  history.replaceState(null, "", `#${new URLSearchParams({ image: item.id, disease: report.diseases[disease] })}`);
  showProbabilities();
  say(item.hasLayers ? "Loading …" : "This run wrote no pictures (--write html): boxes only.");
  try {
    view.layers = item.hasLayers ? await loadLayers(item.id) : null;
    const finding = view.layers?.findings[report.diseases[disease]];
    const maps = finding ? await decodeMaps(finding) : null;
    if (item !== view.item || disease !== view.disease) return; // the reader has moved on
    view.maps = maps;
    if (view.layers) {
      byId("picture").src = view.layers.picture;
      byId("picture").hidden = false;
      say(maps ? "" : `${report.diseases[disease]} was not explained: no maps.`);
    }
  } catch (error) {
    if (item === view.item) say(error.message);
  }
  if (item === view.item) draw();
}

function showProbabilities() {
  const { item } = view, body = byId("probabilities").tBodies[0], focusedHere = body.contains(document.activeElement);
  body.replaceChildren(...report.diseases.map((name, d) => {
    const p = item.probabilities[d], box = item.boxes.find(({ disease }) => disease === d);
    const truth = item.truth.filter(({ disease }) => disease === d).map(({ iou }) => `IoU ${iou.toFixed(2)}`).join(", ");
    return html("tr", { class: (item.positive >> d) & 1 ? "positive" : null },
      html("th", { scope: "row" }, html("button", { type: "button", "aria-pressed": String(d === view.disease), click: () => showDisease(d) },
        html("i", { style: { background: report.colours[d] } }), name)),
      html("td", { class: "meter" }, html("span", { style: { width: `${100 * p}%` } })), html("td", { class: "number" }, p.toFixed(2)),
      html("td", { class: "hint" }, truth || (box ? `score ${box.score.toFixed(0)}` : "")));
  }));
  if (focusedHere) body.querySelector("[aria-pressed=true]").focus();
}

const controls = (nodes) => Object.fromEntries([...nodes].filter(({ type, checked }) => type !== "radio" || checked)
  .map((node) => [node.name, node.type === "checkbox" ? node.checked : node.type === "range" ? Number(node.value) : node.value]));

function draw() {
  const { layer, mask: maskOn, box: boxOn, truth: truthOn } = controls(layerControls), { opacity, t, threshold } = controls(sliders);
  const { maps, item } = view, parameters = { ...report.parameters, t, threshold };
  for (const slider of sliders) slider.nextElementSibling.value = Number(slider.value).toFixed(2);
  canvas.hidden = !maps || layer === "none";
  view.mask = null;
  let outline = "";
  if (maps) {
    const fused = fuse(maps, parameters);
    view.mask = binarize(fused, maps.height, maps.width, parameters);
    if (maskOn) outline = maskOutline(view.mask, maps.width, maps.height);
    if (!canvas.hidden) paint({ fused: () => fused, heatmap: () => fuse(maps, { ...parameters, t: 1 }), gradient: () => fuse(maps, { ...parameters, t: 0 }) }[layer]());
    canvas.style.opacity = opacity;
  }
  const share = view.mask ? view.mask.reduce((a, b) => a + b, 0) / view.mask.length : 0;
  const moved = t !== scored.t || threshold !== scored.threshold ? " The box is that of the scored parameters." : "";
  byId("mask-share").textContent = view.mask ? `Mask: ${percent(share)} of the image.${moved}` : "";
  const rectangle = ([x0, y0, x1, y1], className, colour) => [className + " halo", className].map((name) =>
    svg("rect", { class: name, x: x0, y: y0, width: x1 - x0, height: y1 - y0, style: name === className && colour ? { stroke: colour } : {} }));
  const ours = (entry) => entry.disease === view.disease;
  const scale = maps ? `scale(${item.width / maps.width} ${item.height / maps.height})` : "";
  byId("marks").replaceChildren(
    svg("path", { class: "mask", d: outline, transform: scale }),
    ...(truthOn ? item.truth.filter(ours) : []).flatMap(({ box }) => rectangle(box, "truth", null)),
    ...(boxOn ? item.boxes.filter(ours) : []).flatMap(({ disease, box }) => rectangle(box, "box", report.colours[disease])));
}

// Bytes of red, green, blue, alpha for each level; what is low is transparent, so that the radiograph stays visible.
const palette = new Uint32Array(Uint8ClampedArray.from(
  report.colour_map.flatMap(([red, green, blue], level) => [red, green, blue, 4 * (level - 20)])).buffer);

// Paints a map 0..255.
function paint(values) {
  const { width, height } = view.maps;
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d"), image = context.createImageData(width, height);
  new Uint32Array(image.data.buffer).set(Uint32Array.from(values, (value) => palette[Math.min(255, Math.round(value))]));
  context.putImageData(image, 0, 0);
}

// Edges between mask and rest as an SVG path in map pixels, runs of edges joined.
function maskOutline(mask, width, height) {
  const path = [], at = (x, y) => (x < 0 || y < 0 || x >= width || y >= height ? 0 : mask[y * width + x]);
  for (let y = 0; y <= height; y++) {
    for (let x = 0, start = -1; x <= width; x++) {
      const edge = x < width && at(x, y) !== at(x, y - 1);
      if (edge && start < 0) start = x;
      if (!edge && start >= 0) { path.push(`M${start} ${y}H${x}`); start = -1; }
    }
  }
  for (let x = 0; x <= width; x++) {
    for (let y = 0, start = -1; y <= height; y++) {
      const edge = y < height && at(x, y) !== at(x - 1, y);
      if (edge && start < 0) start = y;
      if (!edge && start >= 0) { path.push(`M${x} ${start}V${y}`); start = -1; }
    }
  }
  return path.join("");
}

function fit() {
  if (!view.item) return;
  const { width, height } = view.item, scale = Math.min(viewport.clientWidth / width, viewport.clientHeight / height);
  Object.assign(view, { zoom: 1, x: (viewport.clientWidth - width * scale) / 2, y: (viewport.clientHeight - height * scale) / 2 });
  stage.style.width = `${width * scale}px`;
  stage.style.height = `${height * scale}px`;
  move(0, 0);
}

function move(dx, dy) {
  view.x += dx;
  view.y += dy;
  stage.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.zoom})`;
}

// Zooms about a point of the viewport, its middle unless told otherwise.
function zoomBy(factor, x = viewport.clientWidth / 2, y = viewport.clientHeight / 2) {
  const zoom = Math.min(Math.max(view.zoom * factor, 0.5), 32), ratio = zoom / view.zoom;
  view.zoom = zoom;
  move((x - view.x) * (1 - ratio), (y - view.y) * (1 - ratio));
}

function step(by) {
  for (let index = shown.indexOf(view.item) + by; index >= 0 && index < shown.length; index += by) {
    if (!shown[index].failure) return openImage(shown[index]);
  }
  return null;
}

function asScored() {
  for (const slider of sliders) slider.value = scored[slider.name];
  draw();
}

function choose(name, value = null) {
  for (const node of layerControls) {
    if (node.name === name && (value === null || node.value === value)) node.checked = value !== null || !node.checked;
  }
  draw();
}

const KEYS = {
  ArrowLeft: () => step(-1), ArrowRight: () => step(1), "+": () => zoomBy(1.25), "=": () => zoomBy(1.25), "-": () => zoomBy(0.8), 0: fit,
  1: () => choose("layer", "none"), 2: () => choose("layer", "heatmap"), 3: () => choose("layer", "gradient"),
  4: () => choose("layer", "fused"), m: () => choose("mask"), b: () => choose("box"), g: () => choose("truth"), r: asScored,
};

function startViewer() {
  for (const slider of sliders) slider.value = scored[slider.name];
  for (const node of [...layerControls, ...sliders]) node.addEventListener("input", draw);
  const clicks = { close: () => viewer.close(), previous: () => step(-1), next: () => step(1), "as-scored": asScored,
    "zoom-in": () => zoomBy(1.25), "zoom-out": () => zoomBy(0.8), "zoom-fit": fit };
  for (const [id, action] of Object.entries(clicks)) byId(id).addEventListener("click", action);
  document.addEventListener("keydown", (event) => {
    if (!viewer.open) return;
    const slides = event.target.type === "range" || event.target.type === "radio";
    if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in KEYS) || (slides && event.key.startsWith("Arrow"))) return;
    event.preventDefault();
    KEYS[event.key]();
  });
  viewer.addEventListener("close", () => {
    history.replaceState(null, "", "#images");
    const index = shown.indexOf(view.item);
    view.item = null;
    if (index >= 0) setFocus(index);
  });
  viewport.addEventListener("wheel", (event) => {
    event.preventDefault();
    const { left, top } = viewport.getBoundingClientRect();
    zoomBy(Math.exp(-event.deltaY / 400), event.clientX - left, event.clientY - top);
  }, { passive: false });
  viewport.addEventListener("pointerdown", (event) => { if (event.target === viewport) viewport.setPointerCapture(event.pointerId); });
  viewport.addEventListener("pointermove", (event) => { if (event.buttons & 1) move(event.movementX, event.movementY); });
  viewport.addEventListener("dblclick", (event) => { if (event.target === viewport) fit(); });
  window.addEventListener("resize", fit);
}
