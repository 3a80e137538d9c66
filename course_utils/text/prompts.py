"""What a text-to-image model can read of a prompt: which words it never saw, and what it has no room for."""

import dataclasses
import difflib
import re
from typing import TYPE_CHECKING

from course_utils.language import label, translated
from course_utils.text.tokens import known_words

if TYPE_CHECKING:  # named in hints only: importing it takes seconds
    from transformers import CLIPTokenizer

WORD = re.compile(r"[^\W\d_]+")  # letters only, as CLIP's tokenizer splits before its byte pairs
SUGGESTIONS = 3
MOST_SENTENCES = 5  # unknown words that get a sentence of their own
SHOWN = 60  # characters of a part of the prompt that a sentence quotes

# Words of the picture book's captions that stand there in one phrase only: alone they hardly count.
ONLY_IN = {
    "dog": "corgi dog", "dogs": "corgi dogs", "fir": "fir trees", "living": "living room", "pixel": "pixel art",
    "art": "pixel art", "coloured": "coloured pencil", "colored": "colored pencil", "day": "snowy day",
    "sand": "desert sand",
}  # fmt: skip
COLOURS = {
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "white", "black", "brown", "grey", "gray", "gold",
    "golden", "silver", "beige", "turquoise", "cyan", "magenta", "violet", "indigo", "maroon", "navy", "olive", "teal",
    "crimson", "scarlet", "lilac",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class PromptReport:
    """`unknown`: pairs (word, words that the model knows instead); `cut`: the end that it does not read.

    `only_in`: pairs (word, the one phrase that it was ever seen in); `wordless`: whether there is no word at all.
    """

    unknown: list[tuple[str, list[str]]]
    cut: str
    only_in: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    wordless: bool = False

    def advice(self) -> list[str]:
        """Return a sentence for every fault; where many words are unknown, one for all beyond the first few."""
        sentences = []
        if self.wordless:
            sentences.append("The prompt has no word in letters, so the seed alone decides what is drawn.")
        for word, near in self.unknown[:MOST_SENTENCES]:
            hint = "."
            if near and word in COLOURS:
                hint = f"; the captions' colours are {_listed(near)}."
            elif near:
                either = f" {label('or')} ".join(map(repr, near))
                hint = f"; did you mean {either}?"
            sentences.append(f"No training caption has the word {word!r}, so its effect is arbitrary{hint}")
        if more := [word for word, _ in self.unknown[MOST_SENTENCES:]]:
            sentences.append(f"Nor do the captions have {len(more)} further words: {_shortened(', '.join(more))}.")
        for word, phrase in self.only_in:
            sentences.append(
                f"The captions have the word {word!r} only in {phrase!r}, so alone it hardly counts; write {phrase!r}."
            )
        if self.cut:
            length = f" ({len(self.cut):,} characters)" if len(self.cut) > SHOWN else ""
            sentences.append(f"The prompt is too long: the model does not read {_shortened(self.cut)!r}{length}.")
        return [translated(sentence) for sentence in sentences]


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1])] * (len(words) > 1) + words[-1:])


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def whole_word_tokens(tokenizer: "CLIPTokenizer") -> set[str]:
    """The words that are one token: a stand-in where a tokenizer keeps no list of the words it was taught.

    A byte-pair encoding has ends of words too ("uppy" on the way to "puppy"), which thus pass for known.
    """
    tokens = [token for token in tokenizer.get_vocab() if token.endswith("</w>")]
    # Tokens are spelt in a byte alphabet ("Ã©" is é): only the tokenizer can spell them back.
    words = [tokenizer.convert_tokens_to_string([token]).removesuffix("</w>").strip() for token in tokens]
    return {word for word in words if WORD.fullmatch(word)}


def inspect_prompt(tokenizer: "CLIPTokenizer", prompt: str, vocabulary: set[str] | None = None) -> PromptReport:
    """Report the words of `prompt` that are not in `vocabulary`, and what is cut off; what is cut off is not looked at.

    vocabulary: lower-case words; None: the list that the tokenizer keeps, or else its `whole_word_tokens`.
    The tokenizer keeps `model_max_length` tokens, two of which mark beginning and end.
    Raises ValueError if the prompt has no text at all.
    """
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError("The prompt is empty: say what to draw, such as 'a cute corgi puppy on the grass'.")
    tokens = tokenizer(prompt, return_offsets_mapping=True, truncation=False, verbose=False)
    starts = [start for start, end in tokens["offset_mapping"][1:-1]]
    room = tokenizer.model_max_length - 2
    cut = prompt[starts[room] :] if len(starts) > room else ""

    taught = known_words(tokenizer) if vocabulary is None else set()
    vocabulary = vocabulary or taught or whole_word_tokens(tokenizer)
    said = [word.lower() for word in WORD.findall(prompt[: len(prompt) - len(cut)])]
    words = dict.fromkeys(said)  # each once, in order
    unknown = [(word, _near(word, vocabulary)) for word in words if word not in vocabulary]
    text = f" {' '.join(said)} "
    only_in = [(w, ONLY_IN[w]) for w in words if w in taught & set(ONLY_IN) and f" {ONLY_IN[w]} " not in text]
    return PromptReport(unknown, cut, only_in, wordless=not words)


def _near(word: str, vocabulary: set[str]) -> list[str]:
    """The best few matches, without those that are only the end of a better one; for a colour, all that are known."""
    if word in COLOURS:
        return sorted(COLOURS & vocabulary)
    matches = difflib.get_close_matches(word, sorted(vocabulary), n=2 * SUGGESTIONS, cutoff=0.6)
    whole = [match for match in matches if not any(o != match and o.endswith(match) for o in matches)]
    return whole[:SUGGESTIONS]
