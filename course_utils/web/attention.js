// Where a picture attended to a word: the picture, dark where it did so least.

const DARKEST = 0.15; // of the brightness

/** The map of a word of several tokens: how much each place attended to all of them together. */
export function mapOf(maps, { first, count }) {
  return maps[first].map((_, place) => {
    let share = 0;
    for (let token = first; token < first + count; token++) share += maps[token][place];
    return share;
  });
}

/** RGBA of a picture (side x side), bright in proportion to a map, from its least to its greatest value. */
export function shaded(pixels, side, map) {
  const across = Math.sqrt(map.length);
  const least = Math.min(...map);
  const range = Math.max(...map) - least || 1;
  const shown = Uint8ClampedArray.from(pixels);
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      const share = (between(map, across, (x + 0.5) / side, (y + 0.5) / side) - least) / range;
      for (let rgb = 0; rgb < 3; rgb++) shown[4 * (y * side + x) + rgb] *= DARKEST + (1 - DARKEST) * share;
    }
  }
  return shown;
}

/** The value of a map at a point of [0, 1]^2, bilinear between the middles of its places. */
function between(map, across, x, y) {
  const [left, toRight] = split(x * across - 0.5, across);
  const [top, toBottom] = split(y * across - 0.5, across);
  const row = (at) => (1 - toRight) * map[at * across + left] + toRight * map[at * across + Math.min(left + 1, across - 1)];
  return (1 - toBottom) * row(top) + toBottom * row(Math.min(top + 1, across - 1));
}

function split(at, across) {
  const inside = Math.min(Math.max(at, 0), across - 1);
  return [Math.floor(inside), inside - Math.floor(inside)];
}
