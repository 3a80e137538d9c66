// The noise of a seed: the numbers of torch.randn(n, generator=torch.Generator().manual_seed(seed)) on a processor.

const N = 624; // words of the state
const M = 397;

/** The Mersenne Twister MT19937: a function that returns the next whole number from 0 to 2^32 - 1. */
export function mersenneTwister(seed) {
  const state = new Uint32Array(N);
  state[0] = seed;
  for (let j = 1; j < N; j++) {
    state[j] = Math.imul(1812433253, state[j - 1] ^ (state[j - 1] >>> 30)) + j;
  }
  let next = N;

  function twist() {
    for (let j = 0; j < N; j++) {
      const y = (state[j] & 0x80000000) | (state[(j + 1) % N] & 0x7fffffff);
      state[j] = state[(j + M) % N] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    next = 0;
  }

  return () => {
    if (next === N) twist();
    let y = state[next++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    y ^= y >>> 18;
    return y >>> 0;
  };
}

/**
 * `count` standard normal numbers, float32, at least 16.
 *
 * Box and Muller's method on blocks of 16 uniform numbers u: with r = sqrt(-2 log(1 - u_j)) and angle = 2 pi u_(j+8),
 * number j of the block is r cos(angle), and number j + 8 is r sin(angle). If 16 does not divide the count, the last 16
 * numbers are a block of fresh uniform numbers.
 */
export function randn(count, seed) {
  if (count < 16) throw new RangeError(`Expected at least 16 numbers, but got ${count}.`);
  const random = mersenneTwister(seed);
  const uniform = () => (random() & 0xffffff) / 0x1000000; // 24 bits: what a float32 holds
  const numbers = Float32Array.from({ length: count }, uniform);
  for (let start = 0; start + 16 <= count; start += 16) toNormal(numbers, start);
  if (count % 16) {
    for (let j = count - 16; j < count; j++) numbers[j] = uniform();
    toNormal(numbers, count - 16);
  }
  return numbers;
}

function toNormal(numbers, start) {
  for (let j = start; j < start + 8; j++) {
    const r = Math.fround(Math.sqrt(Math.fround(-2 * Math.fround(Math.log(1 - numbers[j])))));
    const angle = Math.fround(Math.fround(2 * Math.PI) * numbers[j + 8]);
    numbers[j] = r * Math.fround(Math.cos(angle));
    numbers[j + 8] = r * Math.fround(Math.sin(angle));
  }
}
