"""The Web UI's prompt syntax: its documented examples, and weights on the features of a text encoder."""

import pytest
import torch
from tiny import tiny_parts

from course_utils.text import syntax
from course_utils.text.tokens import encode

FORMS = [
    ("normal text", [("normal text", 1.0)]),
    ("an (important) word", [("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
    ("a ((very)) [small] cat", [("a ", 1.0), ("very", 1.21), (" ", 1.0), ("small", 1 / 1.1), (" cat", 1.0)]),
    ("(unbalanced", [("unbalanced", 1.1)]),
    (r"\(literal\] \\", [("(literal] \\", 1.0)]),
    ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
    ("(blue : 0.5 ) bird", [("blue ", 0.5), (" bird", 1.0)]),
    ("time 10:30) no bracket", [("time 10:30) no bracket", 1.0)]),
    (
        "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
        [("a ", 1.0), ("house", 1.573), (" ", 1.1), ("on", 1.0), (" a ", 1.1), ("hill", 0.55), (", sun, ", 1.1),
         ("sky", 1.4641), (".", 1.1)],
    ),
]  # fmt: skip


@pytest.mark.parametrize("text, expected", FORMS)
def test_weights_are_those_of_the_web_ui(text, expected):
    (chunk,) = syntax.parse_weights(text)
    assert [piece for piece, _ in chunk] == [piece for piece, _ in expected]
    assert [weight for _, weight in chunk] == pytest.approx([weight for _, weight in expected])


SCHEDULES = [
    ("test", ["test"] * 10),
    ("a [b:3]", ["a "] * 3 + ["a b"] * 7),
    ("a [b: 3]", ["a "] * 3 + ["a b"] * 7),
    ("a [[[b]]:2]", ["a "] * 2 + ["a [[b]]"] * 8),
    ("[(a:2):3]", [""] * 3 + ["(a:2)"] * 7),
    ("a [b : c : 1] d", ["a b  d"] + ["a  c  d"] * 9),
    ("a[b:[c:d:2]:1]e", ["abe", "ace"] + ["ade"] * 8),
    ("a [unbalanced", ["a [unbalanced"] * 10),
    ("a [b:.5] c", ["a  c"] * 5 + ["a b c"] * 5),
    ("a [b::0.5] c", ["a b c"] * 5 + ["a  c"] * 5),
    ("((a][:b:c [d:3]", ["((a][:b:c "] * 3 + ["((a][:b:c d"] * 7),
    ("[a|(b:1.1)]", ["a", "(b:1.1)"] * 5),
    ("[a|b|c]", ["a", "b", "c"] * 3 + ["a"]),
    (r"\[a:b:0.5\]", [r"\[a:b:0.5\]"] * 10),
    ("[soft] light", ["[soft] light"] * 10),
]


@pytest.mark.parametrize("text, expected", SCHEDULES)
def test_changes_are_those_of_the_web_ui(text, expected):
    assert [syntax.prompt_at(text, step, 10) for step in range(1, 11)] == expected


def test_a_step_that_is_none_is_refused():
    with pytest.raises(ValueError, match="Expected a step from 1 to 10, got 11"):
        syntax.prompt_at("a", 11, 10)


def test_break_begins_a_chunk_and_only_as_a_word():
    assert syntax.parse_weights("a cat BREAK (on the BREAK beach)") == [
        [("a cat", 1.0)], [("on the", 1.1)], [("beach", 1.1)],
    ]  # fmt: skip
    assert syntax.parse_weights("BREAKFAST, break") == [[("BREAKFAST, break", 1.0)]]


def test_plain_text_keeps_the_words():
    assert syntax.plain_text(r"a (red:1.3) [cat:dog:0.5] BREAK \(1\) [sun]") == "a red dog (1) sun"


@pytest.fixture(scope="module")
def parts():
    made = tiny_parts()
    text_encoder = made["text_encoder"].requires_grad_(False)
    text_encoder.final_layer_norm.bias += 0.2  # fresh layers have the mean 0, trained ones do not
    return made["tokenizer"], text_encoder


@pytest.mark.parametrize("text", ["", "a red ball left of a white cat"])
def test_without_weights_the_features_are_the_encoders(parts, text):
    assert torch.equal(syntax.encode_weighted(*parts, text), encode(*parts, [text]))


def test_weights_scale_the_tokens_and_keep_the_mean(parts):
    plain, weighted = encode(*parts, ["a red ball"])[0], syntax.encode_weighted(*parts, "a (red:1.5) ball")[0]
    ratio = weighted / plain  # (length, width)
    assert ratio[2].mean() / ratio[1].mean() == pytest.approx(1.5, rel=1e-4)  # start, a, red, ball, end, ...
    others = torch.cat([ratio[:2], ratio[3:]])
    torch.testing.assert_close(others, ratio[0, 0].expand_as(others), rtol=1e-4, atol=0)
    assert weighted.mean().item() == pytest.approx(plain.mean().item(), rel=1e-3)


def test_the_web_uis_formula_written_again(parts):
    tokenizer, text_encoder = parts
    ids = tokenizer("a red ball", padding="max_length", return_tensors="pt").input_ids
    z = text_encoder(ids).last_hidden_state
    before = z.mean()
    w = torch.ones(ids.shape[1])
    w[1:4] = torch.tensor([1.21, 1.0, 0.7])
    z = z * w[None, :, None]
    torch.testing.assert_close(syntax.encode_weighted(*parts, "((a)) red (ball:0.7)"), z * (before / z.mean()))


def test_a_mean_of_zero_is_not_divided_by():
    made = tiny_parts()
    before = encode(made["tokenizer"], made["text_encoder"], ["a red ball"])
    assert abs(before.mean()) < 1e-6
    weighted = syntax.encode_weighted(made["tokenizer"], made["text_encoder"], "a (red:1.5) ball")
    assert weighted.std() < 3 * before.std()


def test_long_prompts_and_break_take_further_chunks(parts):
    length = parts[0].model_max_length
    long = "red ball " * 20  # 40 tokens
    assert syntax.encode_weighted(*parts, long).shape[1] == 2 * length
    both = syntax.encode_weighted(*parts, "a red ball BREAK a white cat")
    torch.testing.assert_close(both[0], encode(*parts, ["a red ball", "a white cat"]).flatten(0, 1))
    filled = syntax.encode_weighted(*parts, "a red ball", 2)
    torch.testing.assert_close(filled[0, length:], encode(*parts, [""])[0])


def test_a_schedule_has_as_many_tokens_in_each_step(parts):
    null, cond = syntax.encode_schedule(*parts, ["", "a [red:blue:0.5] ball BREAK cat"], 4)
    assert {z.shape for z in null + cond} == {(1, 2 * parts[0].model_max_length, 32)}
    assert torch.equal(cond[0], cond[1]) and torch.equal(cond[2], cond[3]) and not torch.equal(cond[1], cond[2])


@pytest.mark.parametrize("text, expected", FORMS)
def test_weights_are_read_as_one_list(text, expected):
    found = syntax.read_weights(text)
    assert [piece for piece, _ in found] == [piece for piece, _ in expected]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in expected])


def test_edges_of_read_weights():
    assert syntax.read_weights("") == syntax.read_weights("()") == []
    assert syntax.read_weights("a BREAK (b)") == [("a BREAK ", 1.0), ("b", 1.1)]
    assert syntax.read_weights("[b:2] (c") == [("b:2", 1 / 1.1), (" ", 1.0), ("c", 1.1)]


def test_weighted_features_keep_the_mean_of_each_chunk():
    hidden = torch.rand(3, 5, 4, generator=torch.Generator().manual_seed(0)) + 0.5
    weights = torch.tensor([[1.0, 1.3, 1, 1, 1], [1, 0.5, 2, 1, 1], [1.0, 1, 1, 1, 1]])
    got = syntax.weighted_features(hidden, weights)
    assert torch.allclose(got.mean((1, 2)), hidden.mean((1, 2)))
    ratio = got / hidden  # one factor a chunk, times the weight of each token
    assert torch.allclose(ratio / ratio[:, :1, :1], weights[:, :, None].expand_as(hidden))
    assert torch.equal(got[2], hidden[2]) and not torch.equal(got[1], hidden[1])
    assert torch.allclose(syntax.weighted_features(hidden, torch.full((3, 5), 1.5)), hidden)  # one weight for all


@pytest.mark.parametrize("weight", [2.0, 4.0, 0.5, -1.0])
def test_a_mean_that_would_change_too_much_is_not_kept(weight):
    hidden = torch.rand(1, 5, 4, generator=torch.Generator().manual_seed(1)) + 0.5
    assert torch.allclose(syntax.weighted_features(hidden, torch.full((1, 5), weight)), weight * hidden)
