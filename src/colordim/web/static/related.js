// @ts-check
/**
 * What belongs to a layer: its parameters, gradients, updates, parts, and its neighbours.
 *
 * @typedef {import("./run.js").RunModel} RunModel
 * @typedef {import("./run.js").Stream} Stream
 */

/** Kinds whose streams are named by the layer; those of the others by the parameter. */
const OF_OUTPUTS = ["activation", "gradient"];

/**
 * The layer that a stream is of: itself, the whole of a part, or the owner of a parameter.
 * @param {RunModel} model
 * @param {Stream} stream
 */
export function layerOf(model, stream) {
  if (stream.facet) return stream.facet.of;
  return OF_OUTPUTS.includes(stream.kind) ? stream.name : ownerOf(model, stream.name);
}

/**
 * The layer with the longest name that a parameter's begins with.
 * @param {RunModel} model
 * @param {string} parameter
 */
function ownerOf(model, parameter) {
  let owner = parameter.slice(0, Math.max(parameter.lastIndexOf("."), 0));
  let length = -1;
  for (const { name, kind, facet } of model.streams) {
    if (facet || !OF_OUTPUTS.includes(kind) || name.length <= length || !parameter.startsWith(`${name}.`)) continue;
    owner = name;
    length = name.length;
  }
  return owner;
}

/**
 * The streams of a kind that belong to a layer.
 * @param {RunModel} model
 * @param {string} layer
 * @param {string} kind
 * @returns {Stream[]}
 */
export function streamsOf(model, layer, kind) {
  if (OF_OUTPUTS.includes(kind)) return model.whole(kind).filter((stream) => stream.name === layer);
  return model.whole(kind).filter((stream) => stream.name.startsWith(`${layer}.`) && ownerOf(model, stream.name) === layer);
}

/**
 * The layers that one goes through from this one: all of its kind, or of a part all parts.
 * @param {RunModel} model
 * @param {string} name
 * @param {string} kind
 * @returns {{before: Stream | null, after: Stream | null, number: number, of: number}}
 */
export function neighboursOf(model, name, kind) {
  const stream = model.find(name, kind);
  const all = stream?.facet ? model.streams.filter((each) => each.kind === kind && each.facet?.of === stream.facet?.of) : model.whole(kind);
  const here = all.findIndex((each) => each.name === name);
  return { before: all[here - 1] ?? null, after: here < 0 ? null : all[here + 1] ?? null, number: here + 1, of: all.length };
}
