// What a picture is drawn from: prompt, seed, steps and guidance; checked as `generate` does, and kept in a link.

import { speaker } from "./words.js";

const NAMES = ["prompt", "seed", "steps", "guidance"];
// Python's white space at the ends of a line.
const ENDS = /^[\s\x1c-\x1f\x85]+|[\s\x1c-\x1f\x85]+$/g;

/** The prompt without blanks at the ends of its lines, which a PNG's text cannot hold. */
export function tidy(prompt) {
  const lines = prompt.split(/\r\n|\r|\n/).map((line) => line.replace(ENDS, ""));
  return lines.join("\n").replace(ENDS, "");
}

/**
 * Settings of what was typed, { prompt, seed, steps, guidance } as text. say: of `speaker`.
 *
 * Throws a RangeError, in one sentence.
 */
export function read(typed, most, say = speaker()) {
  const prompt = tidy(typed.prompt);
  if (!prompt) {
    throw new RangeError(
      say("The prompt is empty: say what to draw, such as “a cute corgi puppy on the grass”."),
    );
  }
  if (prompt.split("\n").some((line) => line.startsWith("Negative prompt:")) || /<lora:[^<>]+>/.test(prompt)) {
    throw new RangeError(
      say("This page draws from a prompt only: leave out negative prompts and the tags of LoRAs."),
    );
  }
  const guidance = typed.guidance.trim() ? Number(typed.guidance) : NaN;
  if (!(guidance === 0 || (guidance >= 1 && guidance <= most.guidance))) {
    throw new RangeError(
      say(
        "The guidance must be a number from 1 (no guidance) to {most}, or 0 (the prompt is ignored), but is “{typed}”.",
        { most: most.guidance, typed: typed.guidance },
      ),
    );
  }
  const seed = whole(typed.seed, 0, most.seed, (values) =>
    say("The seed must be a whole number from {lowest} to {highest}, but is “{typed}”.", values),
  );
  const steps = whole(typed.steps, 1, most.steps, (values) =>
    say("The number of steps must be a whole number from {lowest} to {highest}, but is “{typed}”.", values),
  );
  return { prompt, seed, steps, guidance };
}

/** The number that a text is; else throws what `fault` says. */
function whole(typed, lowest, highest, fault) {
  const number = /^\d+$/.test(typed.trim()) ? Number(typed) : NaN;
  if (!(number >= lowest && number <= highest)) throw new RangeError(fault({ lowest, highest, typed }));
  return number;
}

/** The part of an address that draws the same picture: #prompt=...&seed=...&steps=...&guidance=... */
export function toHash(settings) {
  return `#${new URLSearchParams(NAMES.map((name) => [name, settings[name]]))}`;
}

/** What an address says, as text by name; null if it has no prompt. */
export function fromHash(hash) {
  const given = new URLSearchParams(hash.slice(1));
  const names = NAMES.filter((name) => given.has(name));
  return given.has("prompt") ? Object.fromEntries(names.map((name) => [name, given.get(name)])) : null;
}

/** A file's name of the prompt's words: "A cute corgi!" -> "a-cute-corgi.png". */
export function fileName(prompt) {
  const words = prompt.toLowerCase().replace(/[^\p{L}\p{N}_]+/gu, "-").replace(/^-+|-+$/g, "");
  return `${[...words].slice(0, 60).join("").replace(/^-+|-+$/g, "") || "picture"}.png`;
}
