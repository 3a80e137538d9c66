"""Textual inversion: one token and one row more, all other rows the same bits, and files that plain diffusers reads."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_parts

from course_utils.pipelines.picture_book import PICTURE_BOOK, assemble, load_picture_book, save_pipeline
from course_utils.text.new_words import add_word, load_word, only_row, save_word, train_row
from course_utils.text.tokens import encode, tokenize

PROMPTS = ["a <fox> in the snow", "<fox>, at night", "two birds on the grass"]


@pytest.fixture(scope="module")
def whole():
    parts = tiny_parts()
    return SimpleNamespace(tokenizer=parts["tokenizer"], text_encoder=parts["text_encoder"])


@pytest.fixture
def parts(whole):
    return copy.deepcopy(whole)


def table(parts):
    return parts.text_encoder.get_input_embeddings().weight


def hidden(parts, prompts=PROMPTS):
    with torch.no_grad():
        return encode(parts.tokenizer, parts.text_encoder, prompts)


def unchanged(parts, whole):
    """True if neither tokenizer nor text encoder knows more than before."""
    state, before = parts.text_encoder.state_dict(), whole.text_encoder.state_dict()
    return (
        parts.tokenizer.get_vocab() == whole.tokenizer.get_vocab()
        and state.keys() == before.keys()
        and all(torch.equal(tensor, before[name]) for name, tensor in state.items())
    )


def test_a_word_is_one_token_and_one_row(parts, whole):
    before, size = table(parts).detach().clone(), len(parts.tokenizer)
    row = add_word(parts.tokenizer, parts.text_encoder, "<fox>")
    assert row == size == len(parts.tokenizer) - 1
    assert table(parts).shape == (size + 1, 32) and torch.equal(table(parts)[:-1], before)
    assert torch.allclose(table(parts)[row], before.mean(0), atol=1e-7)
    assert parts.text_encoder.config.vocab_size == size + 1 and table(parts).requires_grad
    ids = tokenize(parts.tokenizer, PROMPTS)
    assert [tokens.tolist().count(row) for tokens in ids] == [1, 1, 0] and ids[0, 2] == row
    assert torch.equal(hidden(parts)[2], hidden(whole)[2])  # what has not the word is read as before


def test_it_may_start_from_other_words(parts):
    for word, like in [("<fox>", "corgi"), ("<snail>", "Red Ball")]:
        ids = parts.tokenizer(like).input_ids[1:-1]
        row = add_word(parts.tokenizer, parts.text_encoder, word, like=like)
        assert torch.equal(table(parts)[row], table(parts)[ids].mean(0)) and len(ids) == len(like.split())
    same = hidden(parts, ["a <fox> in the snow", "a corgi in the snow"])
    assert torch.equal(same[0], same[1])


def test_a_text_encoder_with_rows_to_spare_keeps_its_size(parts):
    parts.text_encoder.resize_token_embeddings(len(parts.tokenizer) + 8, mean_resizing=False)
    size = len(table(parts))
    row = add_word(parts.tokenizer, parts.text_encoder, "<fox>", like="cat")
    cat = parts.tokenizer("cat").input_ids[1]
    assert len(table(parts)) == size and torch.equal(table(parts)[row], table(parts)[cat])


@pytest.mark.parametrize(
    "word, words",
    [
        ("a fox", "without blanks, got 'a fox'"),
        ("<fox>\n", "without blanks"),
        ("", "without blanks, got ''"),
        (None, "without blanks, got None"),
        ("rass", "part of others, got 'rass'.*'<rass>'"),
        ("fox1", "part of others"),
        ("!", "token already"),
        ("cat</w>", "token already"),
        ("<|endoftext|>", "token already"),
    ],
)
def test_what_cannot_be_a_new_word(parts, whole, word, words):
    with pytest.raises(ValueError, match=words):
        add_word(parts.tokenizer, parts.text_encoder, word)
    assert unchanged(parts, whole)


@pytest.mark.parametrize("again", ["<fox>", "<FOX>"])
def test_a_word_is_added_once(parts, again):
    add_word(parts.tokenizer, parts.text_encoder, "<fox>")
    after = copy.deepcopy(parts)
    with pytest.raises(ValueError, match="token already"):
        add_word(parts.tokenizer, parts.text_encoder, again)
    assert unchanged(parts, after)


def test_what_it_cannot_start_from(parts, whole):
    with pytest.raises(ValueError, match="to start from, got ' '"):
        add_word(parts.tokenizer, parts.text_encoder, "<fox>", like=" ")
    assert unchanged(parts, whole)


def test_only_one_row_of_the_gradient_is_left():
    gradient = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    gradient[0] = math.nan
    before, kept = gradient.clone(), only_row(gradient, 2)
    assert torch.equal(kept[2], gradient[2]) and not kept[[0, 1, 3, 4]].any()
    assert torch.equal(gradient[1:], before[1:])


def test_training_changes_one_row_and_nothing_else(parts):
    encoder = parts.text_encoder
    encoder.text_projection = torch.nn.Linear(2, 2).requires_grad_(False)  # frozen before, and to be so afterwards
    row = add_word(parts.tokenizer, encoder, "<fox>", like="cat")
    state = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    trained = {name: p.requires_grad for name, p in encoder.named_parameters()}
    with train_row(encoder, row) as embedding:
        assert embedding is table(parts)
        optimizer, losses = torch.optim.Adam([embedding], lr=0.1), []
        for _ in range(5):
            optimizer.zero_grad()
            loss = encode(parts.tokenizer, encoder, ["a red <fox> in the snow"])[0, 5].sub(1).pow(2).mean()
            loss.backward()
            assert {name for name, p in encoder.named_parameters() if p.grad is not None} == {
                name for name, p in encoder.named_parameters() if p is embedding
            }
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < losses[0]
    after = encoder.state_dict()
    (changed,) = [name for name in state if not torch.equal(state[name], after[name])]
    others = torch.arange(len(embedding)) != row
    assert torch.equal(after[changed][others], state[changed][others])
    assert not torch.equal(after[changed][row], state[changed][row])
    assert {name: p.requires_grad for name, p in encoder.named_parameters()} == trained


def test_after_one_word_another_is_trained(parts):
    rows = [add_word(parts.tokenizer, parts.text_encoder, word) for word in ("<fox>", "<snail>")]
    for row in rows:
        with train_row(parts.text_encoder, row) as embedding:
            embedding.grad = None
            hidden_states = encode(parts.tokenizer, parts.text_encoder, ["a <fox> left of a <snail>"])
            hidden_states[..., 0].square().sum().backward()
            assert embedding.grad.any(1).nonzero().flatten().tolist() == [row]
    table(parts).grad = None
    encode(parts.tokenizer, parts.text_encoder, ["a <fox>"]).square()[..., 0].sum().backward()
    assert len(table(parts).grad.any(1).nonzero()) > 1  # the hook is gone


@pytest.mark.parametrize("row", [-1, 10_000])
def test_a_row_must_be_there(parts, row):
    with pytest.raises(ValueError, match=f"row from 0 to .*got {row}"), train_row(parts.text_encoder, row):
        pass


# Files


@pytest.fixture
def file(parts, tmp_path):
    """The file of a word that was changed since it was added."""
    row = add_word(parts.tokenizer, parts.text_encoder, "<fox>")
    table(parts).data[row] = torch.randn(32, generator=torch.Generator().manual_seed(1))
    path = tmp_path / "new folder" / "fox.safetensors"
    save_word(path, parts.text_encoder, parts.tokenizer, "<fox>")
    return path


def test_what_is_saved_comes_back(parts, whole, file):
    assert load_file(file).keys() == {"<fox>"}
    assert torch.equal(load_file(file)["<fox>"], table(parts)[-1:])
    loaded = copy.deepcopy(whole)
    assert load_word(loaded, str(file)) == "<fox>"
    assert torch.equal(table(loaded), table(parts)) and torch.equal(hidden(loaded), hidden(parts))


def test_plain_diffusers_reads_the_file(tmp_path):
    from diffusers import StableDiffusionPipeline

    plain = StableDiffusionPipeline.from_pretrained(PICTURE_BOOK, local_files_only=True)
    ours = SimpleNamespace(tokenizer=copy.deepcopy(plain.tokenizer), text_encoder=copy.deepcopy(plain.text_encoder))
    before, path = hidden(ours), tmp_path / "fox.safetensors"
    row = add_word(ours.tokenizer, ours.text_encoder, "<fox>", like="corgi")
    table(ours).data[row] += 0.1
    save_word(path, ours.text_encoder, ours.tokenizer, "<fox>")
    plain.load_textual_inversion(path)
    assert torch.equal(table(plain), table(ours))
    assert torch.equal(tokenize(plain.tokenizer, PROMPTS), tokenize(ours.tokenizer, PROMPTS))
    assert torch.equal(hidden(plain), hidden(ours)) and not torch.equal(hidden(ours)[0], before[0])
    embeddings, _ = plain.encode_prompt(PROMPTS[0], "cpu", 1, False)
    assert torch.equal(embeddings[0], hidden(ours)[0])


def test_files_of_diffusers_example_script_are_read(whole, tmp_path):
    embedding = torch.randn(32)
    for number, shape in enumerate([(32,), (1, 32)]):  # it writes (1, width), earlier versions (width,)
        path, word = tmp_path / "learned_embeds.safetensors", f"<toy-{number}>"
        save_file({word: embedding.reshape(shape).half()}, path)
        loaded = copy.deepcopy(whole)
        assert load_word(loaded, path) == word and torch.equal(table(loaded)[-1], embedding.half().float())


def test_a_pipeline_keeps_its_word(tmp_path):
    pipe = assemble(**tiny_parts())
    add_word(pipe.tokenizer, pipe.text_encoder, "<fox>", like="corgi")
    save_pipeline(pipe, tmp_path / "model")
    loaded = load_picture_book(tmp_path / "model")
    assert torch.equal(hidden(loaded), hidden(pipe))


def test_an_interrupted_save_leaves_the_file_as_it_was(parts, file, monkeypatch):
    class Killed(BaseException):
        """Stands for a kill."""

    def half(tensors, path, metadata):
        path.write_bytes(b"half")
        raise Killed

    before = file.read_bytes()
    monkeypatch.setattr("safetensors.torch.save_file", half)
    with pytest.raises(Killed):
        save_word(file, parts.text_encoder, parts.tokenizer, "<fox>")
    assert file.read_bytes() == before and list(file.parent.iterdir()) == [file]


def test_what_cannot_be_saved(parts, tmp_path):
    path = tmp_path / "fox.safetensors"
    for word in ("<fox>", "cat"):
        with pytest.raises(ValueError, match=f"word that was added, got '{word}'"):
            save_word(path, parts.text_encoder, parts.tokenizer, word)
    row = add_word(parts.tokenizer, parts.text_encoder, "<fox>")
    with pytest.raises(ValueError, match=r"ends in .safetensors, got .*fox.pt"):
        save_word(path.with_suffix(".pt"), parts.text_encoder, parts.tokenizer, "<fox>")
    table(parts).data[row, 0] = math.inf
    with pytest.raises(ValueError, match="got nan or infinity for '<fox>'"):
        save_word(path, parts.text_encoder, parts.tokenizer, "<fox>")
    assert not list(tmp_path.iterdir())


def holding(**tensors):
    return lambda path: save_file(tensors, path)


FAULTS = {
    "missing": (lambda path: path.unlink(), "got no file"),
    "empty": (lambda path: path.write_bytes(b""), "cannot be read"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-40]), "cannot be read"),
    "nothing in it": (holding(), "got 0 tensors"),
    "two words": (holding(a=torch.ones(32), b=torch.ones(32)), "got 2 tensors"),
    "other width": (holding(**{"<fox>": torch.ones(1, 768)}), r"of 32 numbers, got shape \(1, 768\)"),
    "two rows": (holding(**{"<fox>": torch.ones(2, 32)}), r"got shape \(2, 32\)"),
    "not finite": (holding(**{"<fox>": torch.full((32,), math.nan)}), "finite numbers"),
    "whole numbers": (holding(**{"<fox>": torch.ones(32, dtype=torch.int64)}), "finite numbers"),
    "known word": (holding(**{"!": torch.ones(32)}), "cannot be used: .*token already"),
    "blanks": (holding(**{"a fox": torch.ones(32)}), "cannot be used: .*without blanks"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_cannot_be_loaded_leaves_all_as_it_was(file, whole, name):
    fault, words = FAULTS[name]
    fault(file)
    parts = copy.deepcopy(whole)
    with pytest.raises(ValueError, match=words) as raised:
        load_word(parts, file)
    assert file.name in str(raised.value) and "\n" not in str(raised.value)
    assert unchanged(parts, whole)


def test_only_safetensors_are_read(whole, file):
    with pytest.raises(ValueError, match=r"ends in .safetensors, got .*fox.bin"):
        load_word(whole, file.with_suffix(".bin"))
