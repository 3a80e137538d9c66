// Chinese prompts in the English of the captions, as `data/picture_book/chinese.py` turns them, by its own tables.

/** Whether a prompt has Chinese characters. */
export function isChinese(prompt) {
  return /[\u3400-\u9fff]/.test(prompt);
}

/**
 * { text, unknown, subjects }: a Chinese prompt in the words of the captions, the pieces of it that are not in the
 * dictionary, and how many subjects it has.
 *
 * tables: what `model.json` has under `chinese`.
 */
export function toEnglish(prompt, tables) {
  const words = new Map(Object.entries(tables.words));
  const things = [];
  let coming = { count: 1 }; // what is said of the next subject
  let [place, style, relation, before, last] = ["", "", "", "", ""];
  const unknown = [];
  for (const word of pieces(prompt, words)) {
    const [kind, meaning] = words.get(word) ?? ["unknown", word];
    const noAdjective = word !== "的" && !["subject", "colour", "praise"].includes(kind);
    if (last === "unknown" && noAdjective) coming = { count: 1 }; // it was a thing, to which belonged what was said before
    if (kind === "subject") {
      things.push({ ...coming, kind: meaning });
      coming = { count: 1 };
    } else if (kind === "count" || kind === "colour" || kind === "praise") coming[kind] = meaning;
    else if (kind === "pose") (things.at(-1) ?? coming).pose = meaning;
    else if (kind === "place") place = meaning;
    else if (kind === "style") style = meaning;
    else if (kind === "side" && !relation) {
      // "A 在 B 左边" and "A 在左边，…": A is there; "A 的左边是 B": B is.
      relation = things.length > 1 || before === "在" ? meaning : tables.opposite[meaning];
    } else if (kind === "unknown") unknown.push(word);
    [before, last] = [word, kind];
  }
  const said = things.map((thing) => inEnglish(thing, tables));
  let text = relation && said.length === 2 ? said.join(` ${relation} `) : said.join(" and ");
  text = [text, tables.places[place]].filter(Boolean).join(" ");
  if (style) text = text ? tables.styles[style].replace("{}", text) : style;
  return { text, unknown, subjects: things.length };
}

/** The same. Throws a RangeError, in one sentence, if the prompt has no subject that is known. */
export function requireEnglish(prompt, tables, say) {
  const english = toEnglish(prompt, tables);
  if (english.subjects) return english;
  const subjects = tables.subjects.join("、");
  throw new RangeError(
    say("No subject of the picture book is in '{prompt}'; there are {subjects}.", { prompt, subjects }),
  );
}

function inEnglish({ kind, count, colour, praise, pose }, { names, numbers }) {
  const [one, several] = names[kind];
  const text = [praise, colour, count === 1 ? one : several, pose].filter(Boolean).join(" ");
  if (count > 1) return `${numbers[count]} ${text}`;
  return `${/^[aeiou]/.test(text) ? "an" : "a"} ${text}`;
}

/** The words of a prompt, each as long as the dictionary has it; what it lacks stays together. */
function pieces(prompt, words) {
  const longest = Math.max(...Array.from(words.keys(), (word) => word.length));
  const found = [];
  let [rest, lacking] = [prompt.replace(/(?<![A-Za-z])\s+|\s+(?![A-Za-z])/g, ""), ""];
  while (rest) {
    let word = rest.slice(0, longest);
    while (word && !words.has(word)) word = word.slice(0, -1);
    if (word) {
      if (lacking) found.push(lacking);
      found.push(word);
      lacking = "";
    } else lacking += rest[0];
    rest = rest.slice(word.length || 1);
  }
  return lacking ? [...found, lacking] : found;
}
