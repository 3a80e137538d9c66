"""What a text-to-image model can read of a prompt: which words it never saw, and what it has no room for."""

import dataclasses
import difflib
import re
from typing import TYPE_CHECKING

from course_utils.text.tokens import known_words

if TYPE_CHECKING:  # named in hints only: importing it takes seconds
    from transformers import CLIPTokenizer

WORD = re.compile(r"[^\W\d_]+")  # letters only, as CLIP's tokenizer splits before its byte pairs
SUGGESTIONS = 3


@dataclasses.dataclass(frozen=True)
class PromptReport:
    """`unknown`: pairs (word, similar words that the model knows); `cut`: the end that it does not read."""

    unknown: list[tuple[str, list[str]]]
    cut: str

    def advice(self) -> list[str]:
        """Return a sentence for every unknown word, and one if the prompt is too long."""
        sentences = []
        for word, near in self.unknown:
            hint = f"; did you mean {' or '.join(repr(other) for other in near)}?" if near else "."
            sentences.append(f"The model never saw the word {word!r} in training, so it can only guess{hint}")
        if self.cut:
            sentences.append(f"The prompt is too long: the model does not read {self.cut!r}.")
        return sentences


def whole_word_tokens(tokenizer: "CLIPTokenizer") -> set[str]:
    """The words that are one token: a stand-in where a tokenizer keeps no list of the words it was taught.

    A byte-pair encoding has ends of words too ("uppy" on the way to "puppy"), which thus pass for known.
    """
    tokens = [token for token in tokenizer.get_vocab() if token.endswith("</w>")]
    # Tokens are spelt in a byte alphabet ("Ã©" is é): only the tokenizer can spell them back.
    words = [tokenizer.convert_tokens_to_string([token]).removesuffix("</w>").strip() for token in tokens]
    return {word for word in words if WORD.fullmatch(word)}


def inspect_prompt(tokenizer: "CLIPTokenizer", prompt: str, vocabulary: set[str] | None = None) -> PromptReport:
    """Report the words of `prompt` that are not in `vocabulary`, and what is cut off.

    vocabulary: lower-case words; None: the list that the tokenizer keeps, or else its `whole_word_tokens`.
    The tokenizer keeps `model_max_length` tokens, two of which mark beginning and end.
    Raises ValueError if the prompt has no text at all.
    """
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError("The prompt is empty: say what to draw, such as 'a cute corgi puppy on the grass'.")
    if vocabulary is None:
        vocabulary = known_words(tokenizer) or whole_word_tokens(tokenizer)
    words = dict.fromkeys(word.lower() for word in WORD.findall(prompt))  # each once, in order
    unknown = [(word, _near(word, vocabulary)) for word in words if word not in vocabulary]

    tokens = tokenizer(prompt, return_offsets_mapping=True, truncation=False, verbose=False)
    starts = [start for start, end in tokens["offset_mapping"][1:-1]]
    room = tokenizer.model_max_length - 2
    cut = prompt[starts[room] :] if len(starts) > room else ""
    return PromptReport(unknown, cut)


def _near(word: str, vocabulary: set[str]) -> list[str]:
    """The best few matches, without those that are only the end of a better one."""
    matches = difflib.get_close_matches(word, sorted(vocabulary), n=2 * SUGGESTIONS, cutoff=0.6)
    whole = [match for match in matches if not any(o != match and o.endswith(match) for o in matches)]
    return whole[:SUGGESTIONS]
