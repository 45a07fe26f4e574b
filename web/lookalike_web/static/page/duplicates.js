// Duplicates: what a duplicates job found, cluster by cluster, side by side; the others of a cluster can be deleted.

import { call, send, show } from "./api.js";
import { attempt, button, bytes, count, dialog, el, notify, plural } from "./dom.js";
import { outcome, showFiles } from "./job.js";

const PAGE = 40;
const AT_A_TIME = 4;

export async function showDuplicates(view, context) {
  view.append(el("h1", {}, "Duplicates"));
  const job = await outcome(view, context);
  if (!job) return;
  const { collection } = job.request;
  const text = await (await send(`/v1/jobs/${job.id}/files/clusters.jsonl`, { signal: context.signal })).text();
  const clusters = text.split("\n").filter(Boolean).map((line) => JSON.parse(line));
  const spare = clusters.reduce((sum, each) => sum + each.images.length - 1, 0);
  const list = el("div", { className: "clusters" });
  const left = new Set(clusters);
  const drop = (cluster, place) => {
    left.delete(cluster);
    place.replaceWith(el("p", { className: "hint" }, "The others are deleted."));
  };
  const all = button(`Delete all ${count(spare)} others`, () =>
    confirmed([...left], collection, () => list.replaceChildren(el("p", { className: "empty" }, "The others are deleted."))),
  );
  view.append(
    el("p", { className: "lead" }, clusters.length ? `${plural(clusters.length, "group")} in ${collection}; ${plural(spare, "image")} could go.` : `No duplicates in ${collection}.`),
    el("div", { className: "actions" }, clusters.length && !job.result.deleted ? all : null, el("a", { className: "button", href: `#/collections/${collection}` }, "Back to the collection")),
    list,
  );
  let shown = 0;
  const more = button("More groups", () => page(), { className: "more" });
  const page = () => {
    for (const cluster of clusters.slice(shown, shown + PAGE)) list.append(card(cluster, collection, drop));
    shown += PAGE;
    more.hidden = shown >= clusters.length;
  };
  page();
  view.append(more);
  await attempt(() => showFiles(view, job, context));
}

function card(cluster, collection, drop) {
  const others = cluster.images.length - 1;
  const pictures = cluster.images.map((image) => {
    const picture = el("img", { alt: "", decoding: "async" });
    picture.addEventListener("error", () => picture.replaceWith(el("span", { className: "gone" }, "not there any more")), { once: true });
    show(picture, `/v1/images/${image.id}/thumbnail?collection=${collection}`);
    const isKept = image.id === cluster.keep;
    const far = isKept || image.distance === null || image.distance === undefined ? null : `distance ${Number(image.distance.toFixed(4))}`;
    const size = [image.width && `${count(image.width)} × ${count(image.height)}`, image.size && bytes(image.size), far].filter(Boolean).join(", ");
    return el(
      "figure",
      { className: isKept ? "twin kept" : "twin" },
      picture,
      el("figcaption", {}, isKept ? el("strong", {}, "Keep ") : null, el("span", { title: image.uri }, image.name || image.uri), el("br"), el("span", { className: "hint" }, size)),
    );
  });
  const place = el("section", { className: "card cluster", "aria-label": `${cluster.images.length} images` }, el("div", { className: "twins", tabIndex: 0, role: "group", "aria-label": "Images of this group" }, pictures));
  place.append(el("div", { className: "actions" }, button(`Delete the other ${others === 1 ? "one" : count(others)}`, () => confirmed([cluster], collection, () => drop(cluster, place)))));
  return place;
}

/** Delete what is not kept of some clusters, once the user has agreed. */
function confirmed(clusters, collection, done) {
  const ids = clusters.flatMap((cluster) => cluster.images.map((image) => image.id).filter((id) => id !== cluster.keep));
  const onsubmit = () =>
    attempt(async () => {
      const waiting = ids.values();
      const worker = async () => {
        for (const id of waiting) await gone(call(`/v1/images/${id}?collection=${collection}`, { method: "DELETE" }));
      };
      await Promise.all(Array.from({ length: AT_A_TIME }, worker));
      done();
      notify(`${plural(ids.length, "image")} deleted from ${collection}.`);
    });
  dialog({ className: "ask", "aria-labelledby": "spare-title" }, (close) => [
    el(
      "form",
      { method: "dialog", onsubmit },
      el("h2", { id: "spare-title" }, `Delete ${plural(ids.length, "image")} from ${collection}?`),
      el("p", {}, "They can no longer be found; their files stay where they are. The image marked Keep stays in each group."),
      el("div", { className: "actions" }, el("button", { className: "primary" }, "Delete"), button("Keep all", close)),
    ),
  ]);
}

/** What was deleted before need not be deleted again. */
const gone = (request) =>
  request.catch((error) => {
    if (error.code !== "image_not_found") throw error;
  });
