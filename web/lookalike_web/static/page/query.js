// What is searched for: the terms that are chosen in the panel, and queries as the service takes them.

/** How a picture can be turned before it is searched with, in words. */
export const TURNED = { mirror: "mirrored", rotate90: "turned right", rotate180: "upside down", rotate270: "turned left" };

/** The terms of the next search; those of a search that is shown take their place. */
const NOTHING = { filter: "", min_score: "", max_distance: "", group_by: "", distinct: false, exclude_self: false, variants: [], params: {}, consistency: "", model: "" };
export const terms = { limit: 24, ...NOTHING };

/** Take over the terms of a job, so that what is shown and what is asked next agree. */
export function adoptTerms(request) {
  for (const name of Object.keys(terms)) terms[name] = request[name] ?? NOTHING[name];
  terms.params = bare(terms.params);
}

const isSet = (value) => (typeof value === "object" ? Object.keys(value).length > 0 : value !== "" && value !== false);

/** The terms that are set, as fields of a request; the service lists in `offered` those it knows. */
export function termFields(offered) {
  return Object.fromEntries(Object.entries(terms).filter(([name, value]) => isSet(value) && (name === "limit" || name in offered)));
}

/** A query without the fields that say nothing, as a job's record has them. */
export function bare(query) {
  const said = Object.entries(query).filter(([, value]) => value !== null && !(Array.isArray(value) && !value.length));
  return Object.fromEntries(said.map(([name, value]) => [name, inner(value)]));
}

function inner(value) {
  if (Array.isArray(value)) return value.map(inner);
  return typeof value === "object" ? bare(value) : value;
}

/** Add a stored image to a query's examples; `wanted` says on which side. */
export function judged(query, id, wanted) {
  const others = (list) => list.filter((example) => example.image_id !== id);
  const positive = others(query.positive ?? [query]);
  const negative = others(query.negative ?? []);
  (wanted ? positive : negative).push({ image_id: id });
  return combined(positive, negative);
}

/** Take an example out of a query again. */
export function without(query, example) {
  const rest = (list) => (list ?? []).filter((each) => each !== example);
  return combined(rest(query.positive), rest(query.negative));
}

/** One positive example alone is a query of its own. */
const combined = (positive, negative) =>
  positive.length === 1 && !negative.length ? positive[0] : { positive, ...(negative.length ? { negative } : {}) };

/** What a query is called. */
export function nameOf(query) {
  if (query.positive) return "your examples";
  if (query.image_id) return "a stored image";
  return query.path ?? query.url ?? query.upload?.name ?? (query.upload ? "a picture" : "a vector");
}
