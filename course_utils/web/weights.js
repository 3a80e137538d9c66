// Networks travel with their weights in float16; a session computes faster where it is given them in float32.
//
// An ONNX file is a protocol buffer: fields, each a key (8 times its number, plus its kind) and a value, which is a
// whole number (kind 0), or a length and so many bytes (kind 2).

const [MODEL_GRAPH, GRAPH_NODE, GRAPH_INITIALIZER] = [7, 1, 5];
const [NODE_NAME, TENSOR_DIMS, TENSOR_KIND, TENSOR_NAME, TENSOR_BYTES] = [3, 1, 2, 8, 9];
const [FLOAT32, FLOAT16] = [1, 10];
const [HALF, CAST] = [".half", ".cast"]; // the ends of the names that `export.py` gives

/** The same ONNX file, bytes to bytes, with its float16 weights in float32 and without the casts of them. */
export function inSinglePrecision(bytes) {
  return joined(rewritten(bytes, MODEL_GRAPH, (graph) => joined(graphParts(graph))));
}

function graphParts(graph) {
  const parts = [];
  for (const field of fields(graph)) {
    if (field.number === GRAPH_NODE && text(valueOf(field.value, NODE_NAME)).endsWith(CAST)) continue;
    if (field.number === GRAPH_INITIALIZER) parts.push(...packed(GRAPH_INITIALIZER, tensor(field.value)));
    else parts.push(field.whole);
  }
  return parts;
}

function tensor(bytes) {
  if (valueOf(bytes, TENSOR_KIND) !== FLOAT16) return bytes;
  const name = text(valueOf(bytes, TENSOR_NAME)).slice(0, -HALF.length);
  const dims = [...fields(bytes)].filter((field) => field.number === TENSOR_DIMS).map((field) => field.whole);
  return joined([
    ...dims,
    Uint8Array.from([8 * TENSOR_KIND, FLOAT32]),
    ...packed(TENSOR_NAME, new TextEncoder().encode(name)),
    ...packed(TENSOR_BYTES, toSingle(valueOf(bytes, TENSOR_BYTES))),
  ]);
}

/** float16 numbers as float32 ones, both as bytes, the least significant first. */
function toSingle(bytes) {
  const table = (toSingle.table ??= Float32Array.from({ length: 65536 }, (_, bits) => half(bits)));
  const numbers = new Float32Array(bytes.length / 2);
  for (let j = 0; j < numbers.length; j++) numbers[j] = table[bytes[2 * j] | (bytes[2 * j + 1] << 8)];
  return new Uint8Array(numbers.buffer);
}

/** The number that 16 bits stand for: a sign, five bits of exponent, ten of fraction. */
function half(bits) {
  const sign = bits >> 15 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -24 * fraction);
}

function* fields(bytes) {
  let at = 0;
  while (at < bytes.length) {
    const start = at;
    const key = number();
    const [field, kind] = [Math.floor(key / 8), key % 8];
    let value;
    if (kind === 0) value = number();
    else {
      const length = kind === 2 ? number() : { 1: 8, 5: 4 }[kind];
      value = bytes.subarray(at, at + length);
      at += length;
    }
    yield { number: field, value, whole: bytes.subarray(start, at) };
  }

  function number() {
    let [result, factor] = [0, 1];
    for (;;) {
      const byte = bytes[at++];
      result += (byte & 127) * factor;
      factor *= 128;
      if (byte < 128) return result;
    }
  }
}

/** The value of the last field of that number; undefined if there is none. */
function valueOf(bytes, number) {
  return [...fields(bytes)].findLast((field) => field.number === number)?.value;
}

function rewritten(bytes, number, change) {
  return [...fields(bytes)].flatMap((field) =>
    field.number === number ? packed(number, change(field.value)) : [field.whole],
  );
}

/** A field of bytes: its key and length, and the bytes. */
function packed(number, bytes) {
  const head = [8 * number + 2];
  let length = bytes.length;
  for (; length > 127; length = Math.floor(length / 128)) head.push((length % 128) + 128);
  return [Uint8Array.from([...head, length]), bytes];
}

function joined(parts) {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

function text(bytes) {
  return bytes ? new TextDecoder().decode(bytes) : "";
}
