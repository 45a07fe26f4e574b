// What this service can do, from its own description: a control appears only where there is something behind it.

import { call } from "./api.js";

let asked = null;

/** Learn what the service offers; an empty description where it gives none. */
export function features() {
  asked ??= call("/openapi.json")
    .then((api) => new Features(api))
    .catch(() => {
      asked = null; // It may be there the next time.
      return new Features({});
    });
  return asked;
}

class Features {
  constructor(api) {
    this.api = api;
  }

  /** True where there is such an address with this method. */
  has(path, method = "post") {
    return Boolean(this.api.paths?.[path]?.[method]);
  }

  /** The fields of the JSON body of a POST, or those of the items of one of its lists. */
  fields(path, list = null) {
    const body = this.api.paths?.[path]?.post?.requestBody?.content?.["application/json"]?.schema;
    const schema = this.resolve(body);
    const wanted = list ? this.resolve(schema.properties?.[list]?.items) : schema;
    return wanted.properties ?? {};
  }

  resolve(schema) {
    const name = schema?.$ref?.split("/").pop();
    return (name ? this.api.components.schemas[name] : schema) ?? {};
  }
}
