// What the model can read of a prompt: the sentences of `generate` on words that it never saw and on what is cut off.

import { speaker } from "./words.js";

const WORD = /[\p{L}\p{Nl}\p{No}]+/gu;
const MOST_SENTENCES = 5;
const SUGGESTIONS = 3;
const SHOWN = 60;

/** A sentence for each fault of a prompt, as `PromptReport.advice` has them. say: of `speaker`. */
export function advice(tokenizer, prompt, say = speaker()) {
  const { words: known, only_in: onlyIn, colours } = tokenizer.description;
  const vocabulary = new Set(known);
  const cut = tokenizer.cut(prompt);
  const said = (prompt.slice(0, prompt.length - cut.length).match(WORD) ?? []).map((word) => word.toLowerCase());
  const words = [...new Set(said)];
  const unknown = words.filter((word) => !vocabulary.has(word));
  const text = ` ${said.join(" ")} `;

  const sentences = [];
  if (!words.length) {
    sentences.push(say("The prompt has no word in letters, so the seed alone decides what is drawn."));
  }
  for (const word of unknown.slice(0, MOST_SENTENCES)) sentences.push(unlike(word));
  const more = unknown.slice(MOST_SENTENCES);
  if (more.length) {
    const values = { count: more.length, words: shortened(row(more)) };
    sentences.push(say("Nor do the captions have {count} further words: {words}.", values));
  }
  for (const word of words.filter((one) => onlyIn[one] && !text.includes(` ${onlyIn[one]} `))) {
    const values = { word: quoted(word), phrase: quoted(onlyIn[word]) };
    sentences.push(
      say("The captions have the word {word} only in {phrase}, so alone it hardly counts; write {phrase}.", values),
    );
  }
  if (cut) {
    const length = [...cut].length;
    const values = { cut: quoted(shortened(cut)), count: length.toLocaleString("en") };
    sentences.push(
      length > SHOWN
        ? say("The prompt is too long: the model does not read {cut} ({count} characters).", values)
        : say("The prompt is too long: the model does not read {cut}.", values),
    );
  }
  return sentences;

  /** A sentence on a word that is not in the vocabulary, and what is. */
  function unlike(word) {
    const isColour = colours.includes(word);
    const near = isColour ? colours.filter((colour) => vocabulary.has(colour)).sort() : closeMatches(word, known);
    if (!near.length) {
      return say("No training caption has the word {word}, so its effect is arbitrary.", { word: quoted(word) });
    }
    if (isColour) {
      const listed = near.length > 1 ? and(row(near.slice(0, -1)), near.at(-1)) : near[0];
      return say(
        "No training caption has the word {word}, so its effect is arbitrary; the captions' colours are {colours}.",
        { word: quoted(word), colours: listed },
      );
    }
    return say(
      "No training caption has the word {word}, so its effect is arbitrary; did you mean {words}?",
      { word: quoted(word), words: near.map(quoted).reduce(or) },
    );
  }

  function row(words) {
    return words.reduce((words, word) => say("{words}, {word}", { words, word }));
  }

  function and(words, word) {
    return say("{words} and {word}", { words, word });
  }

  function or(words, word) {
    return say("{words} or {word}", { words, word });
  }
}

function quoted(text) {
  return text.includes("'") && !text.includes('"') ? `"${text}"` : `'${text.replaceAll("'", "\\'")}'`;
}

function shortened(text) {
  const letters = [...text];
  return letters.length <= SHOWN ? text : `${letters.slice(0, SHOWN).join("")}…`;
}

/** The best few known words, without those that are only the end of a better one: Python's difflib. */
function closeMatches(word, known) {
  const matches = known
    .map((other) => ({ other, score: ratio([...other], [...word]) }))
    .filter(({ score }) => score >= 0.6)
    .sort((a, b) => b.score - a.score || (a.other < b.other ? 1 : -1))
    .slice(0, 2 * SUGGESTIONS)
    .map(({ other }) => other);
  return matches.filter((one) => !matches.some((other) => other !== one && other.endsWith(one))).slice(0, SUGGESTIONS);
}

function ratio(a, b) {
  return (2 * matching(a, b)) / (a.length + b.length);
}

/** How many letters are in common stretches: the longest one, then the longest on its left and on its right. */
function matching(a, b) {
  let best = { size: 0 };
  for (let i = 0; i < a.length; i++) {
    for (let j = 0; j < b.length; j++) {
      let size = 0;
      while (i + size < a.length && j + size < b.length && a[i + size] === b[j + size]) size++;
      if (size > best.size) best = { i, j, size };
    }
  }
  if (!best.size) return 0;
  const { i, j, size } = best;
  return size + matching(a.slice(0, i), b.slice(0, j)) + matching(a.slice(i + size), b.slice(j + size));
}
