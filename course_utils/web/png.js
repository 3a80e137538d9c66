// A PNG that remembers how it was made, as `pipelines/png_info.py` writes it.

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];

/** The text of the chunk `parameters`. settings: { prompt, steps, sampler, guidance, seed, side, model }. */
export function parameters({ prompt, steps, sampler, guidance, seed, side, model }) {
  const values = { Steps: steps, Sampler: sampler, "CFG scale": guidance, Seed: seed, Size: `${side}x${side}` };
  if (model) values.Model = model;
  const line = Object.entries(values).map(([key, value]) => `${key}: ${quote(String(value))}`);
  return `${prompt}\n${line.join(", ")}`;
}

function quote(value) {
  return /[,:\n"]|^\s|\s$/.test(value) ? JSON.stringify(value) : value;
}

/** The bytes of a PNG. pixels: RGBA, as a canvas has them, all opaque; side: in pixels; text: of `parameters`. */
export async function encodePng(pixels, side, text) {
  const rows = new Uint8Array(side * (1 + 3 * side)); // each begins with its filter, 0: none
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      const from = 4 * (y * side + x);
      rows.set(pixels.subarray(from, from + 3), y * (1 + 3 * side) + 1 + 3 * x);
    }
  }
  const header = [...bytesOf(side), ...bytesOf(side), 8, 2, 0, 0, 0]; // 8 bits, RGB
  const chunks = [chunk("IHDR", header), textChunk(text), chunk("IDAT", await deflate(rows)), chunk("IEND", [])];
  return Uint8Array.from([...SIGNATURE, ...chunks.flat()]);
}

/** tEXt where Latin-1 has all letters, else iTXt, which is UTF-8. */
function textChunk(text) {
  const keyword = [...new TextEncoder().encode("parameters"), 0];
  const codes = Array.from(text, (letter) => letter.codePointAt(0));
  if (codes.every((code) => code < 256)) return chunk("tEXt", [...keyword, ...codes]);
  return chunk("iTXt", [...keyword, 0, 0, 0, 0, ...new TextEncoder().encode(text)]);
}

function chunk(kind, data) {
  const content = [...new TextEncoder().encode(kind), ...data];
  return [...bytesOf(data.length), ...content, ...bytesOf(checksum(content))];
}

function bytesOf(number) {
  return [number >>> 24, (number >>> 16) & 255, (number >>> 8) & 255, number & 255];
}

/** CRC-32, as PNG and zip have it. */
function checksum(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return (crc ^ 0xffffffff) >>> 0;
}

async function deflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
