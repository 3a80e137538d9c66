// The sampler of `generate`: UniPC of order 2, as diffusers' UniPCMultistepScheduler takes its steps ("bh2", trailing).

/** `steps` times from T - 1 down, evenly spaced and counted from the noisy end: [999, 749, 499, 249]. */
export function trailingTimes(T, steps) {
  const stride = T / steps;
  const step = T - stride - T; // as numpy's arange takes it: its rounding decides where a time lies in the middle
  return Array.from({ length: Math.ceil(T / stride) }, (_, i) => halfToEven(T + i * step) - 1);
}

function halfToEven(number) {
  const below = Math.floor(number);
  return number - below === 0.5 ? below + (below % 2) : Math.round(number);
}

/** Noise levels of the times and of the clean picture: alpha, sigma and lambda = log(alpha / sigma). */
function levelsOf(times, alphaBar) {
  const levels = times.map((t) => ({ alpha: Math.sqrt(alphaBar[t]), sigma: Math.sqrt(1 - alphaBar[t]) }));
  levels.push({ alpha: 1, sigma: 0 });
  for (const level of levels) level.lambda = Math.log(level.alpha) - Math.log(level.sigma);
  return levels;
}

/** Return a x + b y + ... of pairs [a, x]. */
function sum(...pairs) {
  const total = new Float32Array(pairs[0][1].length);
  for (const [factor, values] of pairs) {
    for (let j = 0; j < total.length; j++) total[j] += factor * values[j];
  }
  return total;
}

/** The guess of the clean latents x0 that a prediction of the network implies. */
export function cleanGuess(kind, prediction, x, { alpha, sigma }) {
  if (kind === "v_prediction") return sum([alpha, x], [-sigma, prediction]);
  if (kind === "epsilon") return sum([1 / alpha, x], [-sigma / alpha, prediction]);
  if (kind === "sample") return prediction;
  throw new RangeError(`Expected v_prediction, epsilon or sample, but got ${kind}.`);
}

/** eps_null + w (eps_prompt - eps_null): classifier-free guidance. */
export function guide(none, prompt, w) {
  return none.map((value, j) => value + w * (prompt[j] - value));
}

/**
 * Yield { step, steps, x, x0 } after each evaluation of `predict(x, t)`; the last x is the sample.
 *
 *     h = lambda_t - lambda_s,   phi = exp(-h) - 1,   D = (x0_before - x0_s) / r,   r = (lambda_before - lambda_s) / h
 *     predictor  x_t = sigma_t / sigma_s x_s - alpha_t phi (x0_s + D / 2)
 *     corrector  x_t = sigma_t / sigma_s x_s - alpha_t phi (x0_s + c_1 D + c_2 (x0_t - x0_s))
 *
 * where s is the time before t. The corrector takes each step again once x0_t is known. The first step has no D, nor
 * has the last. UniPC (arXiv:2302.04867), algorithms 1 and 2.
 */
export async function* unipc({ predict, noise, alphaBar, times, kind }) {
  const levels = levelsOf(times, alphaBar);
  let x = noise;
  let last = null; // the step that led here: where it began, its guesses, its order
  for (let step = 0; step < times.length; step++) {
    let x0 = cleanGuess(kind, await predict(x, times[step]), x, levels[step]);
    if (last) x = take(levels, step, last, correctorWeights, x0);
    const order = Math.min(2, step + 1, times.length - step);
    last = { x, x0, before: last ? last.x0 : null, order };
    x = take(levels, step + 1, last, () => [0.5], null);
    yield { step: step + 1, steps: times.length, x, x0 };
  }
}

/** The step to level `to` from the one before it, with the guess x0 there (null: not known yet). */
function take(levels, to, { x, x0, before, order }, weights, ahead) {
  const [target, start] = [levels[to], levels[to - 1]];
  const h = target.lambda - start.lambda;
  const phi = Math.expm1(-h);
  const r = order === 2 ? (levels[to - 2].lambda - start.lambda) / h : null;
  const c = weights(h, phi, r);
  const scale = -target.alpha * phi;
  const terms = [[target.sigma / start.sigma, x], [scale, x0]];
  if (r !== null) terms.push([(scale * c[0]) / r, before], [(-scale * c[0]) / r, x0]);
  if (ahead) terms.push([scale * c.at(-1), ahead], [-scale * c.at(-1), x0]);
  return sum(...terms);
}

/** Solve c_1 + c_2 = b_1 and r c_1 + c_2 = b_2; of order 1, c_1 = 1/2 simply. */
function correctorWeights(h, phi, r) {
  if (r === null) return [0.5];
  const once = phi / -h - 1;
  const twice = once / -h - 1 / 2;
  const [b1, b2] = [once / phi, (2 * twice) / phi];
  const c1 = (b1 - b2) / (1 - r);
  return [c1, b1 - c1];
}
