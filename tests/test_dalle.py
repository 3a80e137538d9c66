"""DALL·E in miniature: who sees whom, keys and values kept, drawing, guidance, filters, and the libraries' own."""

import itertools
import json
import math

import numpy
import pytest
import torch
from torch.nn import functional as F

from course_utils.data import picture_book as book
from course_utils.models import tokens_to_pixels as tp
from course_utils.models.attention import attention_weights, merge_heads, split_heads
from course_utils.models.tokens_to_pixels import Dalle, DalleConfig, causal_mask, dalle_loss, filter_logits, sample
from course_utils.pipelines import dalle as pipeline
from course_utils.pipelines.dalle import DallePipeline, draw_best, load_dalle, load_tokenizer, rank, similarity
from course_utils.pipelines.picture_tokens import load_picture_tokens
from course_utils.recipes import dalle as recipe
from course_utils.recipes import load_clip
from course_utils.recipes.task import save_half
from course_utils.text.tokens import tokenize
from course_utils.training import Samples

SMALL = DalleConfig(words=11, length=5, codes=7, side=3, width=16, layers=2, heads=2)


def made(config=SMALL, seed=0, std=0.3):
    """A model whose weights are large enough for every token to count."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Dalle(config)
        for name, weights in model.named_parameters():
            torch.nn.init.normal_(weights, mean=float("norm" in name and "weight" in name), std=std)
    return model.eval()


def tokens(config=SMALL, batch=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    text = torch.randint(config.words, (batch, config.length), generator=generator)
    return text, torch.randint(config.codes, (batch, config.places), generator=generator)


def seeds(*numbers):
    return [torch.Generator().manual_seed(number) for number in numbers]


# --- who sees whom


def test_the_mask_is_the_lower_triangle_and_its_last_rows():
    assert causal_mask(3).tolist() == [[True, False, False], [True, True, False], [True, True, True]]
    assert causal_mask(2, 5).equal(causal_mask(5)[-2:]) and causal_mask(1, 4).all()
    with pytest.raises(ValueError, match="as many keys as queries"):
        causal_mask(3, 2)


def test_logits_depend_on_all_tokens_before_theirs_and_on_no_other():
    model, (text, codes) = made(), tokens(batch=1)
    embedded = torch.cat([model.embed_text(text), model.embed_codes(codes[:, :-1])], dim=1).detach()
    total = embedded.shape[1]
    seen = torch.zeros(total, total, dtype=torch.bool)
    for place in range(total):
        x = embedded.clone().requires_grad_(True)
        h = model.run(x)[0][0, place]
        (gradient,) = torch.autograd.grad((h * torch.arange(1.0, 17)).sum(), x)
        seen[place] = gradient[0].abs().sum(-1) > 0
    assert seen.equal(torch.ones(total, total).tril().bool())


def test_each_logit_is_of_the_next_token():
    model, (text, codes) = made(), tokens(batch=1)
    text_logits, code_logits = (part.detach() for part in model(text, codes))
    assert text_logits.shape == (1, 4, 11) and code_logits.shape == (1, 9, 7)
    for place in range(9):
        changed = codes.clone()
        changed[0, place] = (changed[0, place] + 1) % 7
        others_text, others = model(text, changed)
        assert others_text.equal(text_logits)  # no text sees the picture
        torch.testing.assert_close(others[:, : place + 1], code_logits[:, : place + 1])
        if place < 8:
            assert ((others - code_logits).abs().amax(2)[0, place + 1 :] > 1e-4).all()
    for place in range(5):
        changed = text.clone()
        changed[0, place] = (changed[0, place] + 1) % 11
        others_text, others = model(changed, codes)
        torch.testing.assert_close(others_text[:, :place], text_logits[:, :place])
        assert (others_text[:, place:] - text_logits[:, place:]).abs().sum() > 1e-3 or place == 4
        assert ((others - code_logits).abs().amax(2) > 1e-4).all()


def test_a_code_knows_its_row_and_its_column():
    model = made()
    at = model.embed_codes(torch.zeros(1, 9, dtype=torch.long))[0]
    expected = model.codes.weight[0] + model.rows.weight[[0, 0, 0, 1, 1, 1, 2, 2, 2]]
    torch.testing.assert_close(at, expected + model.columns.weight[[0, 1, 2, 0, 1, 2, 0, 1, 2]])
    assert len(at.unique(dim=0)) == 9


# --- the block


def test_a_block_is_gpt2s():
    from transformers import GPT2Config
    from transformers.models.gpt2.modeling_gpt2 import GPT2Block

    theirs = GPT2Block(GPT2Config(n_embd=16, n_head=2, n_positions=9, attn_implementation="eager"), layer_idx=0).eval()
    ours = made().blocks[0]
    pairs = [(theirs.ln_1, ours.norm_1), (theirs.ln_2, ours.norm_2), (theirs.attn.c_attn, ours.to_qkv),
             (theirs.attn.c_proj, ours.to_out), (theirs.mlp.c_fc, ours.up), (theirs.mlp.c_proj, ours.down)]  # fmt: skip
    for library, mine in pairs:
        library.weight.data = mine.weight.detach().t().contiguous()  # their linear layers are the other way round
        library.bias.data = mine.bias.detach().clone()
    x = torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(0))
    bias = torch.zeros(9, 9).masked_fill(~causal_mask(9), -1e9)[None, None]
    expected = theirs(x, attention_mask=bias)
    expected = expected[0] if isinstance(expected, tuple) else expected
    torch.testing.assert_close(ours(x)[0], expected, atol=1e-5, rtol=1e-5)


def test_a_block_is_the_formulas_by_hand():
    block = made().blocks[0]
    x = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(0))
    q, k, v = (split_heads(part, 2) for part in block.to_qkv(block.norm_1(x)).chunk(3, dim=-1))
    scores = q @ k.transpose(-2, -1) / math.sqrt(8)
    weights = scores.masked_fill(~causal_mask(6), -math.inf).softmax(-1)
    assert not weights.allclose(attention_weights(q, k))
    expected = x + block.to_out(merge_heads(weights @ v))
    h = block.up(block.norm_2(expected))
    gelu = 0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
    torch.testing.assert_close(block(x)[0], expected + block.down(gelu), atol=1e-5, rtol=1e-5)


# --- the loss and the start


def test_the_loss_is_an_eighth_text_and_seven_eighths_picture():
    model, (text, codes) = made(), tokens()
    text_logits, code_logits = model(text, codes)
    log_text, log_codes = text_logits.log_softmax(-1), code_logits.log_softmax(-1)
    of_text = [-log_text[b, i, text[b, i + 1]].item() for b in range(3) for i in range(4)]
    of_codes = [-log_codes[b, i, codes[b, i]].item() for b in range(3) for i in range(9)]
    expected = sum(of_text) / 12 / 8 + 7 * sum(of_codes) / 27 / 8
    assert dalle_loss(text_logits, code_logits, text, codes).item() == pytest.approx(expected, rel=1e-5)
    alone = dalle_loss(text_logits, code_logits, text, codes, share=0)
    assert alone.item() == pytest.approx(F.cross_entropy(code_logits.transpose(1, 2), codes).item(), rel=1e-5)
    with pytest.raises(ValueError, match="whole pictures"):
        dalle_loss(text_logits, code_logits[:, :-1], text, codes)


def test_at_the_start_every_token_is_as_likely_and_no_layer_makes_the_stream_large():
    config = DalleConfig(words=11, length=5, codes=7, side=3, width=64, layers=12, heads=4)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Dalle(config)
    text, codes = tokens(config, batch=16)
    loss = dalle_loss(*model(text, codes), text, codes).item()
    assert loss == pytest.approx(math.log(11) / 8 + 7 * math.log(7) / 8, abs=0.05)
    assert model.blocks[3].down.weight.std().item() == pytest.approx(0.02 / math.sqrt(24), rel=0.03)
    assert model.blocks[3].up.weight.std().item() == pytest.approx(0.02, rel=0.03)
    assert (model.blocks[3].norm_1.weight == 1).all() and (model.blocks[3].up.bias == 0).all()


def test_the_shipped_size_fits_into_16_megabytes():
    assert sum(weights.numel() for weights in Dalle(DalleConfig()).parameters()) * 2 < 16e6


def test_it_learns_a_picture_by_heart():
    torch.manual_seed(0)
    model, (text, codes) = Dalle(SMALL), tokens(batch=4)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(80):
        loss = dalle_loss(*model(text, codes), text, codes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert sample(model, text, seeds(0, 1, 2, 3), top_k=1).equal(codes)


# --- keys and values kept


def test_step_by_step_gives_the_logits_of_the_whole_sequence():
    model, (text, codes) = made(), tokens()
    _, whole = model(text, codes)
    logits, past = model.read(text)
    torch.testing.assert_close(logits, whole[:, 0], atol=1e-5, rtol=0)
    for place in range(8):
        before = [(k.clone(), v.clone()) for k, v in past]
        logits, after = model.step(codes[:, place], past)
        torch.testing.assert_close(logits, whole[:, place + 1], atol=1e-5, rtol=0)
        assert all(k.equal(a) and v.equal(b) for (k, v), (a, b) in zip(before, past, strict=True))  # left as it was
        past = after
    assert past[1][0].shape == (3, 2, 13, 8)
    with pytest.raises(ValueError, match="at most 9 places"):
        model.step(codes[:, 8], model.step(codes[:, 8], past)[1])


def test_a_part_of_a_picture_has_the_logits_of_what_comes_next():
    model, (text, codes) = made(), tokens()
    whole = model(text, codes)[1]
    for n in (0, 1, 4, 8):
        torch.testing.assert_close(model(text, codes[:, :n])[1], whole[:, : n + 1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_cache_changes_no_picture(guidance):
    model, (text, _) = made(), tokens(batch=4)
    with_it, without = (
        sample(model, text, seeds(*range(4)), guidance=guidance, null=text[:1] * 0, cache=cache)
        for cache in (True, False)
    )
    assert with_it.equal(without) and with_it.shape == (4, 9) and len(with_it.unique(dim=0)) == 4


# --- filters and guidance


@pytest.mark.parametrize("k", [1, 3, 7, 50])
@pytest.mark.parametrize("p", [0.01, 0.5, 0.9, 1.0])
def test_filters_are_those_of_transformers(k, p):
    from transformers import TopKLogitsWarper, TopPLogitsWarper

    logits = 3 * torch.randn(64, 40, generator=torch.Generator().manual_seed(0))
    top_k = TopKLogitsWarper(k)(None, logits)
    assert filter_logits(logits, top_k=k).equal(top_k)
    both = TopPLogitsWarper(p)(None, top_k) if p < 1 else top_k
    assert filter_logits(logits, top_k=k, top_p=p).equal(both)
    assert filter_logits(logits).equal(logits)


def test_the_nucleus_is_the_smallest_with_its_probability():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    for p, kept in ((0.4, 1), (0.6, 2), (0.79, 2), (0.9, 3), (0.97, 4)):
        assert filter_logits(logits, top_p=p).isfinite().tolist() == [True] * kept + [False] * (4 - kept)


def test_guidance_moves_the_logits_from_those_of_the_empty_text():
    cond, null = torch.tensor([1.0, 2.0]), torch.tensor([1.5, -1.0])
    assert tp.guided_logits(cond, null, 0).equal(null) and tp.guided_logits(cond, null, 1).equal(cond)
    assert tp.guided_logits(cond, null, 3).tolist() == [0.0, 8.0]


def test_guidance_1_is_plain_and_0_forgets_the_text():
    model, (text, _) = made(), tokens(batch=4)
    null = torch.zeros_like(text[:1])
    plain = sample(model, text, seeds(*range(4)))
    assert sample(model, text, seeds(*range(4)), guidance=1.0, null=null).equal(plain)
    forgotten = sample(model, text, seeds(*range(4)), guidance=0.0, null=null)
    assert forgotten.equal(sample(model, null.expand(4, -1), seeds(*range(4)))) and not forgotten.equal(plain)


# --- drawing


def test_pictures_are_as_frequent_as_the_model_says():
    config = DalleConfig(words=3, length=2, codes=2, side=2, width=8, layers=1, heads=1)
    model, text = made(config, std=0.7), torch.tensor([[0, 1]])
    every = torch.tensor(list(itertools.product(range(2), repeat=4)))  # (16, 4)
    for temperature in (1.0, 0.5):
        logits = model(text.expand(16, -1), every)[1].detach() / temperature
        p = logits.log_softmax(-1).gather(2, every[:, :, None]).sum((1, 2)).exp()  # (16,)
        assert p.sum().item() == pytest.approx(1, abs=1e-5)
        count = 3000
        drawn = sample(model, text.expand(count, -1), seeds(*range(count)), temperature=temperature)
        seen = torch.bincount((drawn * torch.tensor([8, 4, 2, 1])).sum(1), minlength=16)
        chi_square = ((seen - count * p).square() / (count * p)).sum().item()
        assert chi_square < 37.7, (seen, count * p)  # the 99.9% quantile for 15 degrees of freedom
        wrong = torch.full((16,), 1 / 16)
        assert ((seen - count * wrong).square() / (count * wrong)).sum().item() > 100


def test_guided_first_codes_are_as_frequent_as_the_formula_says():
    config = DalleConfig(words=3, length=2, codes=4, side=1, width=8, layers=1, heads=1)
    model, text, null = made(config, std=0.7), torch.tensor([[0, 1]]), torch.tensor([[2, 2]])
    cond, free = model.read(text)[0][0].detach(), model.read(null)[0][0].detach()
    p = (free + 2 * (cond - free)).softmax(0)
    count = 3000
    drawn = sample(model, text.expand(count, -1), seeds(*range(count)), guidance=2.0, null=null)[:, 0]
    chi_square = ((torch.bincount(drawn, minlength=4) - count * p).square() / (count * p)).sum().item()
    assert chi_square < 16.3  # the 99.9% quantile for 3 degrees of freedom


def test_a_picture_does_not_depend_on_the_others():
    model, (text, _) = made(), tokens(batch=5)
    together = sample(model, text, seeds(*range(5)))
    for number in range(5):
        assert sample(model, text[number : number + 1], seeds(number)).equal(together[number : number + 1])
    assert not sample(model, text, seeds(*range(1, 6))).equal(together)


def test_top_k_1_is_the_likeliest_code_whatever_the_seed():
    model, (text, _) = made(), tokens()
    drawn = sample(model, text, seeds(0, 1, 2), top_k=1)
    assert drawn.equal(sample(model, text, seeds(7, 8, 9), top_k=1))
    assert model(text, drawn)[1].argmax(-1).equal(drawn)


def test_what_cannot_be_drawn_is_said():
    model, (text, codes) = made(), tokens()
    with pytest.raises(ValueError, match="temperature above 0"):
        sample(model, text, seeds(0, 1, 2), temperature=0)
    with pytest.raises(ValueError, match="null"):
        sample(model, text, seeds(0, 1, 2), guidance=2.0)
    with pytest.raises(ValueError, match="a generator for each of 3"):
        sample(model, text, seeds(0))
    with pytest.raises(ValueError, match="text of 5 tokens"):
        model(text[:, :4], codes)
    with pytest.raises(ValueError, match="top_k"):
        filter_logits(torch.zeros(3), top_k=0)
    with pytest.raises(ValueError, match="top_p"):
        filter_logits(torch.zeros(3), top_p=1.5)
    with pytest.raises(ValueError, match="3 heads divide"):
        Dalle(DalleConfig(width=16, heads=3))


# --- the recipe


class FakeTokens:
    """A tokeniser of pictures without networks: the codes are the picture's brightness in places, one of 16."""

    def __init__(self):
        self.vae, self.count, self.side = None, 16, 4

    def to_tokens(self, pictures):
        return ((F.adaptive_avg_pool2d(pictures.mean(1), 4) + 1) / 2 * 15).round().long().flatten(1)

    def to_pictures(self, tokens):
        grid = tokens.view(-1, 1, 4, 4).float() / 7.5 - 1
        return F.interpolate(grid, size=64).expand(-1, 3, -1, -1)


def test_data_are_captions_and_codes_of_one_page(tmp_path, monkeypatch):
    scenes = [book.sample_scene(number) for number in range(40)]
    numbers = torch.arange(40).view(40, 1).expand(40, 16)  # the codes of a page are its number
    monkeypatch.setattr(recipe, "training_codes", lambda folder, pictures, count: (scenes, numbers))
    tokenizer = load_tokenizer(tmp_path / "clip")
    data = recipe.prompted_codes(tmp_path, FakeTokens(), tokenizer, 24)
    codes, text = data(Samples(numpy.arange(200), seed=0))
    assert text.shape == (200, 24) and codes.shape == (200, 16) and codes.dtype == torch.int64
    empty = tokenize(tokenizer, [""], 24)[0]
    assert 8 <= (text == empty).all(1).sum() <= 35
    for number in [n for n in range(200) if not text[n].equal(empty)][:20]:
        captions = [book.caption(scenes[codes[number, 0]], k).text for k in range(16)]
        assert any(text[number].equal(tokenize(tokenizer, [caption], 24)[0]) for caption in captions)


def test_codes_are_kept_and_an_interruption_loses_little(tmp_path, monkeypatch):
    pictures, drawn = load_picture_tokens(), []
    monkeypatch.setattr(recipe, "PART", 4)
    monkeypatch.setattr(recipe, "autocast_dtype", lambda device: torch.float32)  # as `to_tokens` below
    true = book.pictures

    def only(scenes, limit=12):
        drawn.extend(scenes)
        if len(drawn) > limit:
            raise KeyboardInterrupt
        return true(scenes)

    monkeypatch.setattr(recipe, "STRIDE", 4)
    monkeypatch.setattr(recipe.book, "pictures", only)
    with pytest.raises(KeyboardInterrupt):
        recipe.training_codes(tmp_path, pictures, 16)
    drawn.clear()
    scenes, codes = recipe.training_codes(tmp_path, pictures, 16)
    assert len(drawn) == 4 and len(scenes) == 16  # the first twelve were there
    assert codes.equal(pictures.to_tokens(true(scenes)))
    drawn.clear()
    assert recipe.training_codes(tmp_path, pictures, 10)[1].equal(codes[:10]) and not drawn
    next((tmp_path / "dalle").iterdir()).write_bytes(b"damaged")
    assert recipe.training_codes(tmp_path, pictures, 8)[1].equal(codes[:8])


def test_codes_are_written_down_also_from_where_no_part_ends(tmp_path, monkeypatch):
    pictures, true, rounds = load_picture_tokens(), book.pictures, []

    def only_two(scenes):
        rounds.append(scenes)
        if len(rounds) > 2:
            raise KeyboardInterrupt
        return true(scenes)

    monkeypatch.setattr(recipe, "PART", 4)
    monkeypatch.setattr(recipe, "STRIDE", 4)
    recipe.training_codes(tmp_path, pictures, 6)
    monkeypatch.setattr(recipe.book, "pictures", only_two)
    with pytest.raises(KeyboardInterrupt):
        recipe.training_codes(tmp_path, pictures, 40)
    rounds.clear()
    assert recipe.training_codes(tmp_path, pictures, 14)[1].shape == (14, 64) and not rounds


def test_no_frozen_prompt_is_cut():
    from benchmarks import prompts

    tokenizer = load_tokenizer(pipeline.CHECKPOINTS / "clip")
    end = tokenizer.eos_token_id
    texts = [prompt.caption.text for prompt in prompts.load()]
    texts += [book.caption(book.sample_scene(n), k).text for n in range(500) for k in range(4)]
    assert (tokenize(tokenizer, texts, DalleConfig.length)[:, -1] == end).all()


# --- the pipeline


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    tokenizer = load_tokenizer(tmp_path_factory.mktemp("none"))
    config = DalleConfig(words=len(tokenizer), codes=16, side=4, width=32, layers=2, heads=2)
    return DallePipeline(made(config, std=0.2), tokenizer, FakeTokens())


def test_seeds_count_on_and_batches_change_nothing(pipe, monkeypatch):
    prompts = ["a red cat", "a blue ball in the snow", "a red cat"]
    together = pipe.tokens(prompts, seed=5)
    assert together.shape == (3, 16) and not together[0].equal(together[2])
    assert pipe.tokens(prompts[1:2], seed=6).equal(together[1:2])
    monkeypatch.setattr(pipeline, "BATCH", 2)
    assert pipe.tokens(prompts, seed=5).equal(together)
    assert pipe(prompts, seed=5).equal(pipe.pictures.to_pictures(together))
    assert not pipe.tokens(prompts, seed=5, guidance=1.0).equal(together)


def test_clip_puts_the_picture_that_fits_first():
    clip, tokenizer = load_clip()
    things = (("corgi", "red"), ("car", "blue"), ("tree", "yellow"), ("teapot", "pink"))
    scenes = [book.Scene((book.Thing(kind, colour, "sitting" if kind == "corgi" else None),), "snow", seed=3)
              for kind, colour in things]  # fmt: skip
    pictures = book.pictures(scenes)
    for number, (kind, colour) in enumerate(things):
        prompt = f"a {colour} {kind} in the snow"
        assert rank(clip, tokenizer, prompt, pictures)[0] == number
    near = similarity(clip, tokenizer, "a blue car in the snow", pictures)
    vectors = clip.get_image_features(pictures), clip.get_text_features(tokenize(tokenizer, ["a blue car in the snow"]))
    image, text = (getattr(one, "pooler_output", one) for one in vectors)
    torch.testing.assert_close(near, F.cosine_similarity(image, text))


def test_the_best_are_kept(pipe):
    clip, tokenizer = load_clip()
    best = draw_best(pipe, clip, "a red cat", 6, seed=2, keep=3)
    every = pipe(["a red cat"] * 6, seed=2)
    near = similarity(clip, tokenizer, "a red cat", best)
    assert best.shape == (3, 3, 64, 64) and near.diff().le(0).all()
    assert near[0].item() == pytest.approx(similarity(clip, tokenizer, "a red cat", every).max().item(), abs=1e-5)
    with pytest.raises(ValueError, match="keep 1 to 6"):
        draw_best(pipe, clip, "a red cat", 6, keep=7)


def test_parts_that_do_not_fit_and_prompts_that_are_none_are_refused(pipe):
    with pytest.raises(ValueError, match="codes of the transformer is 7"):
        DallePipeline(made(), pipe.tokenizer, pipe.pictures)
    with pytest.raises(ValueError, match="list of one prompt"):
        pipe("a red cat")
    with pytest.raises(ValueError, match="list of one prompt"):
        pipe([])


def test_it_comes_back_from_its_folder(pipe, tmp_path, monkeypatch):
    from dataclasses import asdict

    home = tmp_path / "dalle"
    save_half(pipe.model, home)
    with pytest.raises(ValueError, match="There is no DALL·E"):
        load_dalle(home)
    (home / "config.json").write_text(json.dumps(asdict(pipe.model.config)))
    monkeypatch.setattr(pipeline, "load_tokens_beside", lambda *_, **__: FakeTokens())
    again = load_dalle(home)
    for name, weights in pipe.model.state_dict().items():
        assert again.model.state_dict()[name].equal(weights.half().float())
    (home / "config.json").write_text('{"width": "wide"}')
    with pytest.raises(ValueError, match=r"config.json is damaged"):
        load_dalle(home)
    (home / "config.json").write_text(json.dumps(asdict(SMALL)))
    with pytest.raises(ValueError, match=r"model.safetensors is damaged"):
        load_dalle(home)
