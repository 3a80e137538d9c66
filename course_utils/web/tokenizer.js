// From text to tokens, as the pipeline's CLIPTokenizer does it: byte pairs in words.

const PIECES = /'(?:s|t|re|ve|m|ll|d)|\p{L}+|\p{N}|[^\p{White_Space}\p{L}\p{N}]+/gu;
const SPECIAL = /(<\|startoftext\|>|<\|endoftext\|>)/;
const WORD_END = "</w>";

/** The character that stands for each byte in the vocabulary: printable ones for themselves, others from U+0100 on. */
function byteCharacters() {
  const printable = (byte) => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(printable(byte) ? byte : next++));
}

const CHARACTERS = byteCharacters();

export class Tokenizer {
  /** description: what `model.json` has under `tokenizer`. */
  constructor(description) {
    this.description = description;
    this.ids = new Map(description.tokens.map((token, id) => [token, id]));
    this.ranks = new Map(description.merges.map((pair, rank) => [pair.join(" "), rank]));
    this.known = new Map(); // words that were split before
  }

  /** Ids of a prompt, padded and cut to the model's length: Int32Array. */
  encode(text) {
    const { start, end, pad, length } = this.description;
    const ids = this.tokens(text).map((token) => token.id).slice(0, length - 2);
    const padding = new Array(length - 2 - ids.length).fill(pad);
    return Int32Array.from([start, ...ids, end, ...padding]);
  }

  /** The end of a text for which the model has no room, "" if there is none. */
  cut(text) {
    const first = this.tokens(text)[this.description.length - 2];
    return first ? plain(text).slice(first.at) : "";
  }

  /** The words of a prompt that the model reads, as { word, first, count }: which of the tokens of encode(text). */
  words(text) {
    const found = [];
    let first = 1; // behind the start
    for (const part of text.split(SPECIAL)) {
      if (SPECIAL.test(part)) first++;
      else {
        for (const [word] of lower(plain(part)).matchAll(PIECES)) {
          const count = this.split(word).length;
          if (first + count < this.description.length && /\p{L}/u.test(word)) found.push({ word, first, count });
          first += count;
        }
      }
    }
    return found;
  }

  /** All tokens of a text, as { id, at }: where in plain(text) each begins. */
  tokens(text) {
    const found = [];
    let offset = 0;
    for (const part of text.split(SPECIAL)) {
      if (SPECIAL.test(part)) found.push({ id: this.ids.get(part), at: offset });
      else found.push(...this.ordinary(plain(part), offset));
      offset += plain(part).length;
    }
    return found;
  }

  ordinary(text, offset) {
    const found = [];
    for (const piece of lower(text).matchAll(PIECES)) {
      let bytes = 0;
      for (const symbol of this.split(piece[0])) {
        found.push({ id: this.ids.get(symbol), at: offset + piece.index + charactersBefore(piece[0], bytes) });
        bytes += symbol.replace(WORD_END, "").length;
      }
    }
    return found;
  }

  /** The symbols of a word: pairs of neighbours are joined, the one learned first before others. */
  split(word) {
    if (this.known.has(word)) return this.known.get(word);
    const symbols = Array.from(new TextEncoder().encode(word), (byte) => CHARACTERS[byte]);
    symbols[symbols.length - 1] += WORD_END;
    for (;;) {
      const ranks = symbols.slice(1).map((right, i) => this.ranks.get(`${symbols[i]} ${right}`) ?? Infinity);
      const best = Math.min(...ranks);
      if (best === Infinity) break;
      const at = ranks.indexOf(best);
      symbols.splice(at, 2, symbols[at] + symbols[at + 1]);
    }
    this.known.set(word, symbols);
    return symbols;
  }
}

/** Text in Unicode's composed form, each stretch of white space as one blank. */
function plain(text) {
  return text.normalize("NFC").replace(/\p{White_Space}+/gu, " ");
}

/** Lower case, letter by letter: no letter's depends on its neighbours. */
function lower(text) {
  return Array.from(text, (letter) => letter.toLowerCase()).join("");
}

function charactersBefore(word, bytes) {
  let [at, seen] = [0, 0];
  for (const letter of word) {
    seen += new TextEncoder().encode(letter).length;
    if (seen > bytes) break;
    at += letter.length;
  }
  return at;
}
