// Comparison with ground truth, where it was given.

function showTruth() {
  const { truth, roc } = report, section = byId("truth");
  if (!truth && !roc) return;
  section.hidden = byId("truth-link").hidden = false;
  if (truth && !truth.table) {
    section.append(html("p", { class: "hint" }, `No box of a scored image: ${plural(truth.left_out, "box", "boxes")} left out.`));
  }
  if (truth?.table) {
    const left = truth.left_out ? ` ${plural(truth.left_out, "box", "boxes")} of images that were not scored left out.` : "";
    section.append(html("h3", {}, "Share of boxes found at T(IoU)"),
      html("p", { class: "hint" }, `With 95 % bootstrap interval over images. A disease without a box counts as IoU 0.${left}`),
      localisationTable(truth.table),
      html("div", { class: "columns" },
        html("div", {}, html("h3", {}, `IoU of ${plural(truth.boxes.length, "box", "boxes")}`),
          histogramChart(histogram(truth.boxes.map((box) => box[6]), 20), "Ground-truth boxes by IoU")),
        html("div", {}, html("h3", {}, "Worst misses"),
          html("p", { class: "hint" }, "Lowest IoU first, then highest probability."), worstMisses(truth.boxes))));
  }
  if (roc) {
    section.append(html("h3", {}, "ROC by image labels"),
      roc.length ? html("div", { class: "cards" }, roc.map(rocCard))
        : html("p", { class: "hint" }, "No disease has both labelled and unlabelled images."));
  }
}

function localisationTable({ thresholds, diseases, boxes, mean_iou: meanIou, accuracy, low, high }) {
  const cell = (row, k) => html("td", { class: "number share", style: { "--share": accuracy[row][k] } },
    accuracy[row][k].toFixed(2), html("small", {}, `${low[row][k].toFixed(2)}–${high[row][k].toFixed(2)}`));
  const heads = ["Disease", "Boxes", "Mean IoU", ...thresholds.map((t) => `T = ${t}`)];
  return html("table", { id: "localisation" },
    html("thead", {}, html("tr", {}, heads.map((head) => html("th", { scope: "col" }, head)))),
    html("tbody", {}, diseases.map((disease, row) => html("tr", {}, html("th", { scope: "row" }, disease),
      html("td", { class: "number" }, String(boxes[row])), html("td", { class: "number" }, meanIou[row].toFixed(3)),
      thresholds.map((_, k) => cell(row, k))))));
}

function worstMisses(boxes) {
  const probability = ([row, disease]) => items[row].probabilities[report.diseases.indexOf(disease)] ?? 0;
  const worst = [...boxes].sort((a, b) => a[6] - b[6] || probability(b) - probability(a)).slice(0, 10);
  return html("ol", { class: "misses" }, worst.map((box) => html("li", {},
    html("button", { type: "button", click: () => openImage(items[box[0]], box[1]) }, baseName(items[box[0]].path)),
    ` ${box[1]}, probability ${probability(box).toFixed(2)}, IoU ${box[6].toFixed(2)}`)));
}

function rocCard({ disease, auc, positives, images, false_positives: xs, true_positives: ys }) {
  const points = xs.map((x, i) => `${(100 * x).toFixed(2)},${(100 - 100 * ys[i]).toFixed(2)}`).join(" ");
  return html("div", { class: "card" }, html("span", { class: "name" }, disease),
    html("span", { class: "value" }, `AUC ${auc.toFixed(3)}`, html("small", {}, `${positives} of ${images} labelled`)),
    svg("svg", { class: "chart roc", viewBox: "-9 -1 110 112", role: "img", "aria-label": `ROC of ${disease}, AUC ${auc.toFixed(3)}` },
      svg("rect", { class: "frame", x: 0, y: 0, width: 100, height: 100 }),
      svg("line", { class: "axis", x1: 0, y1: 100, x2: 100, y2: 0 }), svg("polyline", { class: "curve", points }),
      svg("text", { x: 50, y: 109, "text-anchor": "middle" }, "false positive rate"),
      svg("text", { x: -50, y: -3, transform: "rotate(-90)", "text-anchor": "middle" }, "true positive rate")));
}
