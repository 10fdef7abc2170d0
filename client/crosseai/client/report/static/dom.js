// Elements are built from text nodes and attributes, never from markup: no string of the report can become an element.

const SVG = "http://www.w3.org/2000/svg";
const report = JSON.parse(document.getElementById("content").textContent);
const byId = (id) => document.getElementById(id);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (name === "style") for (const [key, style] of Object.entries(value)) node.style.setProperty(key, style);
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null));
  return node;
}

const html = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

const percent = (share) => `${(100 * share).toFixed(share > 0 && share < 0.0995 ? 1 : 0)} %`;
const plural = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
const baseName = (path) => path.slice(path.lastIndexOf("/") + 1);

// Counts of values in 0..1.
function histogram(values, bins) {
  const counts = new Array(bins).fill(0);
  for (const value of values) counts[Math.min(bins - 1, Math.floor(value * bins))]++;
  return counts;
}

// A bar for each count over 0..1, with an optional line; the axis' ends are labelled.
function histogramChart(counts, label, line = null) {
  const [width, height, base] = [200, 74, 58], peak = Math.max(1, ...counts), step = width / counts.length;
  const bars = counts.map((count, i) => {
    const tall = count ? Math.max(1.5, (count / peak) * (base - 14)) : 0;
    const title = `${(i / counts.length).toFixed(2)} to ${((i + 1) / counts.length).toFixed(2)}: ${count}`;
    return svg("rect", { class: line !== null && (i + 0.5) / counts.length >= line ? "bar above" : "bar",
      x: i * step + 0.5, y: base - tall, width: step - 1, height: tall }, svg("title", {}, title));
  });
  return svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
    svg("line", { class: "axis", x1: 0, x2: width, y1: base, y2: base }), bars,
    line === null ? null : svg("line", { class: "mark", x1: line * width, x2: line * width, y1: 2, y2: base }),
    svg("text", { x: 0, y: height - 3 }, "0"), svg("text", { x: width, y: height - 3, "text-anchor": "end" }, "1"),
    svg("text", { x: width, y: 9, "text-anchor": "end" }, `highest bar ${peak.toLocaleString("en")}`));
}
