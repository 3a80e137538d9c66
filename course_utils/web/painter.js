// Text to image, with the three networks of a pipeline in ONNX Runtime Web: the picture of `generate`.

import { randn } from "./noise.js";
import { guide, trailingTimes, unipc } from "./sampler.js";
import { Tokenizer } from "./tokenizer.js";

export class Painter {
  /**
   * ort: ONNX Runtime Web. description: `model.json`. networks: a session of each, by the names of description.files.
   */
  constructor(ort, description, networks) {
    this.ort = ort;
    this.description = description;
    this.networks = networks;
    this.tokenizer = new Tokenizer(description.tokenizer);
  }

  /**
   * Yield { step, steps, pixels, side, finished } after each step: a rough picture, a pixel a latent; then the picture,
   * with maps: for each token of the prompt how much each place attended to it, the mean over all steps; null without
   * a prompt.
   *
   * pixels: RGBA, Uint8ClampedArray. guidance 1 evaluates the network once a step, 0 ignores the prompt.
   */
  async *draw({ prompt, seed, steps, guidance }) {
    const { latents, alpha_bar: alphaBar, prediction_type: kind } = this.description;
    const alone = guidance === 0 || guidance === 1;
    const cond = await this.encode(alone ? [guidance === 0 ? "" : prompt] : ["", prompt]);
    let maps = null;
    const predict = async (x, t) => {
      const { prediction, maps: all } = await this.evaluate(alone ? [x] : [x, x], t, cond);
      if (guidance !== 0) maps = sum(maps, all.at(-1));
      return alone ? prediction : guide(prediction.subarray(0, x.length), prediction.subarray(x.length), guidance);
    };
    const noise = randn(latents.channels * latents.side ** 2, seed);
    const times = trailingTimes(alphaBar.length, steps);
    let last;
    for await (last of unipc({ predict, noise, alphaBar, times, kind })) {
      yield { step: last.step, steps: last.steps, pixels: this.rough(last.x0), side: latents.side, finished: false };
    }
    const pixels = await this.decode(last.x);
    maps = maps?.map((map) => map.map((share) => share / last.steps)) ?? null;
    yield { step: last.steps, steps: last.steps, pixels, side: this.description.side, maps, finished: true };
  }

  /** Features of texts, a tensor (texts, words, width). */
  async encode(texts) {
    const length = this.description.tokenizer.length;
    const tokens = new Int32Array(texts.length * length);
    texts.forEach((text, i) => tokens.set(this.tokenizer.encode(text), i * length));
    const input = new this.ort.Tensor("int32", tokens, [texts.length, length]);
    return (await this.networks.text_encoder.run({ tokens: input })).cond;
  }

  /**
   * Predictions of the U-Net for latents that are all at time t, one after the other, and for each of them the maps:
   * an array of Float32Array, by token.
   */
  async evaluate(batch, t, cond) {
    const { channels, side } = this.description.latents;
    const numbers = new Float32Array(batch.length * batch[0].length);
    batch.forEach((x, i) => numbers.set(x, i * x.length));
    const inputs = {
      x_t: new this.ort.Tensor("float32", numbers, [batch.length, channels, side, side]),
      t: new this.ort.Tensor("float32", [t], []),
      cond,
    };
    const { prediction, maps } = await this.networks.unet.run(inputs);
    const [count, tokens, places] = maps.dims;
    const at = (i, token) => maps.data.subarray((i * tokens + token) * places, (i * tokens + token + 1) * places);
    const ofAll = Array.from({ length: count }, (_, i) => Array.from({ length: tokens }, (_, token) => at(i, token)));
    return { prediction: prediction.data, maps: ofAll };
  }

  /** Pixels of finished latents. */
  async decode(x) {
    const { channels, side, scale, shift } = this.description.latents;
    const z = x.map((number) => number / scale + shift);
    const input = new this.ort.Tensor("float32", z, [1, channels, side, side]);
    return toPixels((await this.networks.decoder.run({ z: input })).picture.data);
  }

  /** Pixels of latents by a linear map: colour = weights z + bias. */
  rough(x0) {
    const { weights, bias } = this.description.latents;
    const places = x0.length / weights[0].length;
    const colours = new Float32Array(3 * places);
    for (let rgb = 0; rgb < 3; rgb++) {
      for (let place = 0; place < places; place++) {
        let colour = bias[rgb];
        weights[rgb].forEach((weight, channel) => (colour += weight * x0[channel * places + place]));
        colours[rgb * places + place] = colour;
      }
    }
    return toPixels(colours);
  }
}

/** Maps added up, number by number; those of the first time are copied. */
function sum(total, maps) {
  return maps.map((map, token) => map.map((share, place) => share + (total?.[token][place] ?? 0)));
}

/** RGBA of colours in [-1, 1], of which first all reds are given, then all greens, then all blues. */
function toPixels(colours) {
  const places = colours.length / 3;
  const pixels = new Uint8ClampedArray(4 * places);
  for (let place = 0; place < places; place++) {
    for (let rgb = 0; rgb < 3; rgb++) pixels[4 * place + rgb] = (colours[rgb * places + place] / 2 + 0.5) * 255;
    pixels[4 * place + 3] = 255;
  }
  return pixels;
}
