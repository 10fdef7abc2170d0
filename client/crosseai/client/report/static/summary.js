// What the run found as a whole.

function showSummary() {
  const { model, runs, parameters, failures, diseases, images } = report;
  const scored = images.id.length, positives = images.positive.filter((bits) => bits > 0).length;
  byId("model").append(`${model.model}, version ${model.model_version} · preset ${parameters.preset}`);
  byId("notice").append(report.notice);
  byId("viewer-notice").append(`${report.notice} Model version ${model.model_version}.`);
  const last = runs.at(-1), rate = last.seconds > 0 ? last.files / last.seconds : 0;
  showPairs(byId("figures"), [
    ["Images scored", scored.toLocaleString("en"), report.status === "complete" ? "" : `run is ${report.status}`],
    ["With a positive disease", positives.toLocaleString("en"), scored ? percent(positives / scored) : ""],
    ["Boxes", report.boxes.length.toLocaleString("en"), `explained: ${baseName(model.explain)}`],
    ["Failed", failures.length.toLocaleString("en"), failures.length ? "see below" : "none"],
    ["Throughput", rate.toFixed(1), `files a second, ${last.seconds.toFixed(1)} s in the last run`],
  ]);
  byId("diseases").append(...diseases.map(diseaseCard));
  if (failures.length) showFailures();
  if (images.warnings.length) showWarnings();
  const settings = Object.entries(parameters).map(([name, value]) => `${name} = ${value}`).join(", ");
  const software = Object.entries(last.software).map(([name, version]) => `${name} ${version}`).join(", ");
  showPairs(byId("provenance").querySelector("dl"), [
    ["Model", `${model.model}, version ${model.model_version}`], ["SHA-256 of the model", model.model_sha256],
    ["Started", runs[0].started], ["Boxes", settings], ["Software", software],
  ]);
}

function showPairs(list, pairs) {
  list.append(...pairs.map(([term, value, note]) =>
    html("div", {}, html("dt", {}, term), html("dd", {}, value), note ? html("dd", { class: "hint" }, note) : null)));
}

function diseaseCard(disease, d) {
  const values = report.images.probabilities[d], line = report.operating_points[d];
  const count = report.images.positive.filter((bits) => (bits >> d) & 1).length;
  const label = `${disease}: ${count} of ${values.length} images positive at ${line.toFixed(2)} and above`;
  return html("button", { type: "button", class: "card", title: `Show the images positive for ${disease}`,
    click: () => showImages({ disease: String(d), status: "positive", sort: "probability" }) },
    html("span", { class: "name" }, html("i", { style: { background: report.colours[d] } }), disease),
    html("span", { class: "value" }, plural(count, "positive"),
      html("small", {}, values.length ? percent(count / values.length) : "")),
    histogramChart(histogram(values.map((p) => p / 10000), 25), label, line),
    html("small", {}, `operating point ${line.toFixed(2)}`));
}

function groups(names) {
  const counts = new Map();
  for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1]);
}

function showFailures() {
  const rows = groups(report.failures.map(([, error, , stage]) => `${error} (${stage})`)).map(([name, count]) => {
    const [error, stage] = name.slice(0, -1).split(" (");
    const example = report.failures.find((failure) => failure[1] === error && failure[3] === stage);
    return html("tr", {}, html("td", {}, error), html("td", {}, stage), html("td", { class: "number" }, String(count)),
      html("td", { class: "wide" }, example[2]),
      html("td", {}, html("button", { type: "button", click: () => showImages({ status: "failed", text: error }) }, "Show")));
  });
  const heads = ["Error", "Stage", "Files", "For example", ""];
  byId("failures").hidden = false;
  byId("failures").append(html("h3", {}, `Why ${plural(report.failures.length, "file")} failed`),
    html("table", {}, html("thead", {}, html("tr", {}, heads.map((head) => html("th", { scope: "col" }, head)))),
      html("tbody", {}, rows)));
}

function showWarnings() {
  const counts = groups(report.images.warnings.flatMap((text) => (text ? text.split("; ") : [])));
  byId("warnings").hidden = false;
  byId("warnings").append(html("h3", {}, "Warnings"),
    html("ul", {}, counts.map(([text, count]) => html("li", {}, `${text}: ${plural(count, "image")}`))));
}
