"""unCLIP's decoder begins as the picture-book model; the embedding reaches it both ways; edits of embeddings."""

import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from course_utils import recipes
from course_utils.data import picture_book as book
from course_utils.diffusion.editing import slerp
from course_utils.models.prior import Prior, better_of_two, condition, mean_and_std, read_picture, small_prior
from course_utils.models.unclip import TOKENS, UnCLIPUNet, with_projection
from course_utils.pipelines import editing, unclip
from course_utils.pipelines.picture_book import load_picture_book, make_scheduler
from course_utils.recipes.unclip import unclip_loss

PROMPT = "a red ball left of a white cat"


@pytest.fixture(scope="module")
def pipe():
    return load_picture_book()


def scattered(decoder, seed=0):
    """The same, as if trained: what began at zero is zero no more."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in decoder.parameters():
            if weights.requires_grad and not weights.any():
                weights += 0.05 * torch.randn(weights.shape, generator=generator)
    return decoder.requires_grad_(False).eval()


@pytest.fixture(scope="module")
def system(pipe):
    """The shipped model and CLIP, with a prior and a decoder as if trained."""
    clip, _ = recipes.load_clip()
    embeddings = read_picture(clip, book.pictures([book.sample_scene(n) for n in range(32)]))
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        transformer = small_prior(clip, layers=1)
        transformer.positional_embedding.normal_()
        decoder = unclip.new_decoder(pipe.unet, 128)
        for target, value in zip((decoder.mean, decoder.std), mean_and_std(embeddings), strict=True):
            target.copy_(value)
        transformer.clip_mean.copy_(decoder.mean)
        transformer.clip_std.copy_(decoder.std)
    return unclip.UnCLIP(pipe, clip, Prior(transformer).requires_grad_(False).eval(), scattered(decoder))


def inputs(batch=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x_t, words, embedding = (torch.randn(batch, *s, generator=generator) for s in ((8, 16, 16), (32, 128), (128,)))
    return x_t, torch.tensor([10, 500, 990])[:batch], words, F.normalize(embedding, dim=1)


def pages(count, start=0):
    return book.pictures([book.sample_scene(start + n) for n in range(count)])


# --- the decoder


@torch.no_grad()
def test_the_decoder_begins_as_the_unet_wherever_no_embedding_is_told(pipe):
    decoder = unclip.new_decoder(pipe.unet, 128)
    x_t, t, words, embedding = inputs()
    expected = pipe.unet(x_t, t, encoder_hidden_states=words).sample
    nothing = torch.zeros_like(embedding)
    assert (decoder(x_t, t, condition(words, nothing)) - expected).abs().max() <= 1e-5
    nothing[1] = embedding[1]  # of one among others
    output = decoder(x_t, t, condition(words, nothing))
    assert (output - expected)[[0, 2]].abs().max() <= 1e-5
    assert (output - expected)[1].abs().max() > 1e-3  # four zeros count in a softmax
    # without the four tokens it is the U-Net to the bit: LoRA and projection add zeros
    alone = decoder.unet(x_t, t, encoder_hidden_states=words, class_labels=embedding).sample
    assert alone.equal(expected)


@torch.no_grad()
def test_the_embedding_reaches_the_unet_both_ways(pipe):
    x_t, t, words, embedding = inputs()

    def difference(change):
        decoder = unclip.new_decoder(pipe.unet, 128)
        change(decoder)
        one, other = (decoder(x_t, t, condition(words, e)) for e in (embedding, -embedding))
        return (one - other).abs().amax((1, 2, 3)).min()

    assert difference(lambda decoder: None) == 0  # both projections are zero
    assert difference(lambda d: d.clip_extra_context_tokens_proj.weight.normal_()) > 1e-3
    assert difference(lambda d: d.unet.class_embedding.linear_2.weight.normal_(0, 0.1)) > 1e-3


@torch.no_grad()
def test_tokens_and_time_embedding_are_those_of_the_formula(pipe):
    decoder = scattered(unclip.new_decoder(pipe.unet, 128))
    decoder.mean.fill_(0.1)
    decoder.std.fill_(0.5)
    x_t, t, words, embedding = inputs()
    seen = {}
    unet = decoder.unet
    handles = [
        unet.register_forward_pre_hook(lambda m, a, k: seen.update(k), with_kwargs=True),
        unet.down_blocks[0].register_forward_pre_hook(lambda m, a, k: seen.update(temb=k["temb"]), with_kwargs=True),
    ]
    decoder(x_t, t, condition(words, embedding))
    for handle in handles:
        handle.remove()
    z = (embedding - 0.1) / 0.5
    W = decoder.clip_extra_context_tokens_proj
    tokens = seen["encoder_hidden_states"]
    assert tokens.shape == (3, 32 + TOKENS, 128) and tokens[:, :32].equal(words)
    for k in range(TOKENS):
        rows = slice(128 * k, 128 * (k + 1))
        torch.testing.assert_close(tokens[:, 32 + k], z @ W.weight[rows].T + W.bias[rows])
    time = unet.time_embedding(unet.time_proj(t)) + unet.class_embedding(z)
    torch.testing.assert_close(seen["temb"], time)


def test_the_loss_trains_the_projections_and_the_lora_and_nothing_else(pipe):
    decoder = unclip.new_decoder(pipe.unet, 128)
    with torch.no_grad():
        decoder.clip_extra_context_tokens_proj.weight.normal_(0, 0.1)
    x0, t, words, embedding = inputs()
    null, eps, alpha_bar = torch.randn(1, 32, 128), torch.randn(x0.shape), torch.linspace(0.99, 0.01, 1000)
    uniforms = torch.tensor([[0.4, 0.5], [0.6, 0.05], [0.7, 0.5]])  # caption dropped; embedding dropped; neither
    loss = unclip_loss(decoder, x0, words, null, embedding, t, eps, uniforms, alpha_bar)
    loss.backward()
    a = alpha_bar[t].view(-1, 1, 1, 1)
    told = condition(torch.cat([null, words[1:]]), torch.stack([embedding[0], torch.zeros(128), embedding[2]]))
    with torch.no_grad():
        v_hat = decoder(a.sqrt() * x0 + (1 - a).sqrt() * eps, t, told)
    assert loss.item() == pytest.approx((a.sqrt() * eps - (1 - a).sqrt() * x0 - v_hat).square().mean().item(), rel=1e-4)
    trained = {name for name, weights in decoder.named_parameters() if weights.grad is not None}
    assert trained | {"mean", "std"} == set(decoder.kept())
    new = ("class_embedding.", "clip_extra_context_tokens_proj.")
    assert all(name.endswith((".A", ".B")) or any(part in name for part in new) for name in trained)
    assert any("time_emb_proj.B" in name for name in trained) and any("attn2.to_k.B" in name for name in trained)
    assert 2 * sum(value.numel() for value in decoder.kept().values()) < 12e6  # bytes in float16
    assert all(weights.grad is None for weights in pipe.unet.parameters())


def test_a_unet_with_class_labels_is_refused(pipe):
    told = with_projection(pipe.unet, 128)
    assert isinstance(UnCLIPUNet(told), torch.nn.Module) and told.config.class_embed_type == "projection"
    with pytest.raises(ValueError, match="without class labels, got one with class_embed_type = 'projection'"):
        with_projection(told, 128)


# --- the file


@pytest.fixture(scope="module")
def home(system, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unclip")
    save_file({name: value.half().contiguous() for name, value in system.decoder.kept().items()}, folder / unclip.FILE)
    return folder


def test_the_decoder_comes_back_from_its_file(system, home):
    decoder = unclip.load_decoder(system.pipe.unet, home)
    assert not decoder.training and not any(weights.requires_grad for weights in decoder.parameters())
    x_t, t, words, embedding = inputs()
    with torch.no_grad():
        ours, theirs = (d(x_t, t, condition(words, embedding)) for d in (decoder, system.decoder))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0.03)
    fresh = unclip.new_decoder(system.pipe.unet, 128)
    assert (fresh(x_t, t, condition(words, embedding)) - theirs).abs().max() > 0.1


def test_what_is_no_decoder_is_refused(system, home, tmp_path):
    unet, file = system.pipe.unet, tmp_path / unclip.FILE
    with pytest.raises(ValueError, match="There is no decoder of unCLIP in"):
        unclip.load_decoder(unet, tmp_path)
    file.write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="cannot be read"):
        unclip.load_decoder(unet, tmp_path)
    whole = load_file(home / unclip.FILE)
    name = "clip_extra_context_tokens_proj.weight"
    for wrong in ({k: v for k, v in whole.items() if k != name}, {**whole, name: whole[name][:2]}, {"a": whole[name]}):
        save_file(wrong, file)
        with pytest.raises(ValueError, match="is not as this U-Net needs it"):
            unclip.load_decoder(unet, tmp_path)
    save_file({**whole, name: whole[name] * torch.inf}, file)
    with pytest.raises(ValueError, match="not finite"):
        unclip.load_decoder(unet, tmp_path)


# --- embeddings


def test_a_text_diff_turns_the_embedding_by_a_share_of_the_angle():
    generator = torch.Generator().manual_seed(0)
    e, before, after = (F.normalize(torch.randn(5, 128, generator=generator), dim=1) for _ in range(3))
    d = F.normalize(after - before, dim=1)
    angle = (e * d).sum(1).acos()
    for share in (0.0, 0.25, 0.5, 1.0):
        turned = unclip.text_diff(e, before, after, share)
        torch.testing.assert_close(turned.norm(dim=1), torch.ones(5))
        torch.testing.assert_close((turned * e).sum(1).clamp(-1, 1), (share * angle).cos(), rtol=0, atol=1e-5)
        torch.testing.assert_close((turned * d).sum(1), ((1 - share) * angle).cos(), rtol=0, atol=1e-5)
    torch.testing.assert_close(unclip.text_diff(e, before, after, 0.0), e)
    torch.testing.assert_close(unclip.text_diff(e, before, after, 1.0), d)
    one = unclip.text_diff(e, before[:1], after[:1], 0.3)  # one change for all
    torch.testing.assert_close(one[:1], unclip.text_diff(e[:1], before[:1], after[:1], 0.3))
    shares = torch.linspace(0, 0.5, 5)
    torch.testing.assert_close(
        unclip.text_diff(e, before, after, shares)[4], unclip.text_diff(e, before, after, 0.5)[4]
    )
    with pytest.raises(ValueError, match="different embeddings, got the same"):
        unclip.text_diff(e, before, before, 0.3)
    with pytest.raises(ValueError, match="share from 0"):
        unclip.text_diff(e, before, after, 1.5)
    with pytest.raises(ValueError, match="the two captions of one shape"):
        unclip.text_diff(e, before, after[:1], 0.5)


def test_embeddings_are_unit_vectors_and_pictures_of_other_sizes_are_refused(system):
    embeddings = unclip.embed_pictures(system, pages(3))
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))
    with pytest.raises(ValueError, match="multiple of 8"):
        unclip.embed_pictures(system, torch.zeros(1, 3, 60, 60))
    with pytest.raises(ValueError, match=r"in \[-1, 1\]"):
        unclip.embed_pictures(system, 3 + pages(1))


def test_imagine_keeps_the_better_of_two_samples(system):
    prompts = [PROMPT, "a blue car"]
    found = unclip.imagine(system, prompts, torch.Generator().manual_seed(3), 2.0, 4)
    cond, null = (condition(*unclip.embed_prompts(system, texts)) for texts in (prompts, [""]))
    generator = torch.Generator().manual_seed(3)
    both = [unclip.sample_prior(system.prior, cond, null, generator, 2.0, 4) for _ in range(2)]
    assert found.equal(better_of_two(*both, cond[:, -1])) and not both[0].allclose(both[1], atol=1e-3)


# --- pages


def test_without_an_embedding_an_untrained_decoder_draws_what_the_picture_book_draws(system):
    fresh = unclip.new_decoder(system.pipe.unet, 128)
    fresh_system = unclip.UnCLIP(system.pipe, system.clip, system.prior, fresh)
    x_T = unclip.first_noise(system, 2, torch.Generator().manual_seed(0))
    drawn = unclip.draw_embeddings(fresh_system, torch.zeros(2, 128), x_T, PROMPT, guidance=4.0, steps=6)
    scheduler = make_scheduler("unipc", system.pipe.scheduler.config)
    expected = editing.draw_from(system.pipe, x_T, PROMPT, guidance=4.0, steps=6, scheduler=scheduler)
    assert (drawn - expected).abs().max() <= 2e-3
    told = unclip.draw_embeddings(system, unclip.embed_pictures(system, pages(2)), x_T, PROMPT, steps=6)
    assert (told - expected).abs().max() > 0.1
    with pytest.raises(ValueError, match="noise for each of 2 embeddings, got 1"):
        unclip.draw_embeddings(system, torch.zeros(2, 128), x_T[:1])
    with pytest.raises(ValueError, match="one embedding"):
        unclip.draw_embeddings(system, torch.zeros(2, 64), x_T)
    with pytest.raises(ValueError, match="one prompt, or one for each of 2"):
        unclip.draw_embeddings(system, torch.zeros(2, 128), x_T, ["a", "b", "c"])


def test_draw_starts_from_the_noise_of_its_seed_and_tells_the_caption(system):
    prompts, how = [PROMPT, "a blue car"], dict(guidance=2.0, steps=3)
    drawn = unclip.draw(system, prompts, [torch.Generator().manual_seed(7 + i) for i in range(2)], **how)
    generators = [torch.Generator().manual_seed(7 + i) for i in range(2)]
    x_T = unclip.first_noise(system, 2, generators)
    assert x_T[1:].equal(unclip.first_noise(system, 1, torch.Generator().manual_seed(8)))
    embeddings = unclip.imagine(system, prompts, generators)
    assert drawn.equal(unclip.draw_embeddings(system, embeddings, x_T, prompts, **how))
    alone = unclip.draw(system, prompts[1:], [torch.Generator().manual_seed(8)], **how)
    assert (drawn[1:] - alone).abs().max() < 0.01


def test_variations_slides_and_changes(system):
    first, second, how = pages(1), pages(1, start=5), dict(steps=2)
    varied = unclip.vary(system, first, 2, torch.Generator().manual_seed(1), **how)
    x_T = unclip.first_noise(system, 2, torch.Generator().manual_seed(1))
    one, other = unclip.embed_pictures(system, first), unclip.embed_pictures(system, second)
    assert varied.equal(unclip.draw_embeddings(system, one.expand(2, -1), x_T, **how))
    assert (varied[0] - varied[1]).abs().max() > 0.1

    slid = unclip.slide(system, first, second, 3, torch.Generator().manual_seed(1), **how)
    x_T = unclip.first_noise(system, 1, torch.Generator().manual_seed(1)).expand(3, -1, -1, -1)
    on_the_way = torch.cat([one, slerp(one, other, 0.5), other])
    assert (slid - unclip.draw_embeddings(system, on_the_way, x_T, **how)).abs().max() < 1e-3

    texts = unclip.embed_prompts(system, ["a cat", "a blue cat"])[1]
    changed = unclip.change(system, first, "a cat", "a blue cat", [0.0, 0.4], torch.Generator().manual_seed(1), **how)
    turned = torch.cat([one, unclip.text_diff(one, texts[:1], texts[1:], 0.4)])
    assert (changed - unclip.draw_embeddings(system, turned, x_T[:2], **how)).abs().max() < 1e-3
    assert math.isclose((turned[0] * turned[1]).sum().acos(), 0.4 * (one @ F.normalize(texts[1:] - texts[:1]).T).acos(),
                        rel_tol=1e-3)  # fmt: skip

    with pytest.raises(ValueError, match="one picture to vary"):
        unclip.vary(system, pages(2), 2, torch.Generator())
    with pytest.raises(ValueError, match="at least the two ends"):
        unclip.slide(system, first, second, 1, torch.Generator())
