// Evaluations: what a recall, labels or robustness job measured, as tables.

import { call } from "./api.js";
import { attempt, button, count, el, row, table } from "./dom.js";
import { features } from "./features.js";
import { outcome, showFiles } from "./job.js";

const TITLES = { recall: "Recall", labels: "Quality by labels", robustness: "Robustness" };
const share = (value) => value.toFixed(3);
const range = ({ mean, low, high }) => `${share(mean)} (${share(low)} to ${share(high)})`;
const written = (params) => Object.entries(params ?? {}).map(([name, value]) => `${name} ${count(value)}`).join(", ") || "none";

export async function showEvaluation(view, context) {
  const title = el("h1", {}, "Evaluation");
  view.append(title);
  const job = await outcome(view, context);
  if (!job) return;
  const { result } = job;
  const offered = await features();
  title.textContent = TITLES[result.type] ?? title.textContent;
  view.append(el("p", { className: "lead" }, `${count(result.sample)} of ${count(result.rows)} images of `, el("a", { href: `#/collections/${result.collection}` }, result.collection), " were searched for."));
  if (result.passed !== null && result.passed !== undefined) view.append(el("p", { className: result.passed ? "state succeeded" : "state failed" }, result.passed ? "The pass mark was reached." : "The pass mark was missed."));
  if (result.recall) view.append(...recall(result, offered));
  if (result.labels) view.append(...labels(result.labels));
  if (result.robustness) view.append(robustness(result.robustness));
  await attempt(() => showFiles(view, job, context));
}

function recall({ recall: report, collection }, offered) {
  const names = ["Search parameter", "Recall@1", "Recall@10", "Recall@100", "Median", "95th percentile"];
  const lines = report.points.map((point) =>
    row(`${written(point.params)}${point.default ? " (in use)" : ""}`, share(point.recall_at_1), share(point.recall_at_10), share(point.recall_at_100), `${point.p50_ms.toFixed(1)} ms`, `${point.p95_ms.toFixed(1)} ms`),
  );
  const advice = report.exact
    ? `The index ${report.index_type} compares every image: nothing is missed, and there is nothing to choose.`
    : report.suggested
      ? `The least effort that finds ${share(report.target)} of the ten nearest: ${written(report.suggested)}.`
      : `No parameter finds ${share(report.target)} of the ten nearest. Another index may.`;
  const path = "/v1/collections/{name}/reindex";
  const apply = report.suggested && Object.keys(report.suggested).length && offered.has(path) && "search" in offered.fields(path);
  const use = async () => {
    const job = await call(`/v1/collections/${collection}/reindex`, { method: "POST", json: { search: report.suggested } });
    location.hash = `#/jobs/${job.id}`;
  };
  return [el("p", {}, advice), apply ? button("Search with it from now on", () => attempt(use), { className: "primary" }) : "", table("Recall", names, lines).view];
}

function labels(report) {
  const lines = report.labels.map((each) => row(each.label, count(each.images), count(each.queries), share(each.map_at_10), share(each.precision_at_1)));
  return [
    el("p", {}, `mAP@10 ${range(report.map_at_10)}, precision@1 ${range(report.precision_at_1)}, by the field ${report.field}; with a confidence of 95 %.`),
    table("Labels", ["Label", "Images", "Searched for", "mAP@10", "Precision@1"], lines).view,
  ];
}

const robustness = (report) =>
  table(
    "Robustness",
    ["Alteration", "Images", "Recall@1", "Recall@10"],
    report.alterations.map((each) => row(each.alteration, count(each.queries), range(each.recall_at_1), range(each.recall_at_10))),
  ).view;
