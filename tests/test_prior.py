"""The prior of unCLIP: its sequence, its target, its loss and its samples, beside diffusers' own."""

import math
import shutil

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from course_utils.data import picture_book as book
from course_utils.diffusion.guidance import text_loss
from course_utils.models.prior import (
    Prior,
    better_of_two,
    condition,
    mean_and_std,
    prior_sequence,
    read_caption,
    read_picture,
    small_prior,
    standardise,
    to_embedding,
)
from course_utils.pipelines.unclip import prior_alpha_bar, sample_prior
from course_utils.recipes import load_clip, load_prior
from course_utils.recipes.prior import FILE, prior_loss
from course_utils.recipes.task import save_half
from course_utils.text.tokens import tokenize

CAPTIONS = ["a red cat on the grass", "two blue cars in the snow", "a duck"]


@pytest.fixture(scope="module")
def clip():
    return load_clip()


@pytest.fixture(scope="module")
def prior(clip):
    """A prior of random weights, as if trained: no number of it is zero, and mean and deviation are of some pages."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        transformer = small_prior(clip[0]).eval()
        for weights in transformer.parameters():
            if not weights.any():
                weights += 0.1 * torch.randn(weights.shape)
        mean, std = mean_and_std(read_picture(clip[0], book.pictures([book.sample_scene(n) for n in range(16)])))
        transformer.clip_mean.copy_(mean)
        transformer.clip_std.copy_(std)
    return Prior(transformer).requires_grad_(False)


def conditions(clip, captions):
    with torch.no_grad():
        return condition(*read_caption(clip[0], tokenize(clip[1], captions)))


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


# --- what it reads, and what it gives


def test_captions_and_pictures_are_read_as_clip_reads_them(clip):
    model, tokenizer = clip
    pictures, tokens = book.pictures([book.sample_scene(n) for n in range(3)]), tokenize(tokenizer, CAPTIONS)
    with torch.no_grad():
        theirs = model(pixel_values=pictures, input_ids=tokens)
        words, text = read_caption(model, tokens)
        torch.testing.assert_close(read_picture(model, pictures), theirs.image_embeds)
    torch.testing.assert_close(text, theirs.text_embeds)
    assert words.equal(theirs.text_model_output.last_hidden_state) and words.shape == (3, 32, 128)


def test_the_condition_is_word_states_and_then_the_embedding():
    words, text = torch.randn(2, 5, 8), torch.randn(2, 8)
    cond = condition(words, text)
    assert cond[:, :-1].equal(words) and cond[:, -1].equal(text)
    for wrong in (text[:1], text[:, :4]):
        with pytest.raises(ValueError, match="one embedding .* for each"):
            condition(words, wrong)


def test_the_shipped_kind_is_small_and_sees_every_token(clip, prior):
    assert 2 * sum(weights.numel() for weights in prior.parameters()) < 3e6  # bytes in float16
    cond, z_t, t = conditions(clip, CAPTIONS), torch.randn(3, 128), torch.tensor([1, 500, 999])
    states = []
    handle = prior.transformer.transformer_blocks[0].register_forward_hook(lambda *io: states.append(io[2]))
    prior(z_t, t, cond)
    other = cond.clone()
    other[:, -1] = -other[:, -1]  # another text embedding, which stands after the words
    prior(z_t, t, other)
    handle.remove()
    assert ((states[0] - states[1])[:, :32].abs().amax((1, 2)) > 1e-3).all()  # under a causal mask: 0


def test_the_transformer_by_hand_is_the_librarys(clip, prior):
    """Its layers one by one, their sequence by `prior_sequence`: the prediction is what stands at the query."""
    cond, z_t, t = conditions(clip, CAPTIONS), torch.randn(3, 128), torch.tensor([1, 500, 999])
    expected = prior(z_t, t, cond)
    theirs = prior.transformer
    sequence = prior_sequence(
        theirs.encoder_hidden_states_proj(cond[:, :-1]),
        theirs.embedding_proj(cond[:, -1] * math.sqrt(128)),
        theirs.time_embedding(theirs.time_proj(t)),
        theirs.proj_in(z_t),
        theirs.prd_embedding[0, 0],
    )
    assert sequence.shape == (3, 36, 128)
    x = sequence + theirs.positional_embedding
    for block in theirs.transformer_blocks:
        x = block(x)
    torch.testing.assert_close(theirs.proj_to_clip_embeddings(theirs.norm_out(x)[:, -1]), expected)
    direct = theirs(
        z_t, t, proj_embedding=cond[:, -1] * math.sqrt(128), encoder_hidden_states=cond[:, :-1]
    ).predicted_image_embedding
    assert direct.equal(expected) and expected.shape == (3, 128)


def test_a_sequence_of_other_widths_is_refused():
    words, vector = torch.zeros(2, 5, 8), torch.zeros(2, 8)
    assert prior_sequence(words, vector, vector, vector, vector[0]).shape == (2, 9, 8)
    for index, name in enumerate(("text", "time", "noisy embedding")):
        parts = [vector] * 3
        parts[index] = vector[:, :4]
        with pytest.raises(ValueError, match=f"a {name} of shape \\(2, 8\\)"):
            prior_sequence(words, *parts, vector[0])


def test_a_clip_of_two_widths_is_refused(clip):
    from transformers import CLIPConfig

    narrow = CLIPConfig(text_config={"hidden_size": 64}, vision_config={}, projection_dim=32)
    with pytest.raises(ValueError, match="got 64 and 32"):
        small_prior(type("Model", (), {"config": narrow}))


# --- standardised embeddings


def test_standardised_embeddings_have_mean_0_and_variance_1_and_come_back(prior):
    embeddings = unit(200, 128) * 0.5 + 0.1
    embeddings = F.normalize(embeddings, dim=1)
    mean, std = mean_and_std(embeddings)
    z = standardise(embeddings, mean, std)
    torch.testing.assert_close(z.mean(0), torch.zeros(128), rtol=0, atol=1e-5)
    torch.testing.assert_close(z.std(0), torch.ones(128))
    torch.testing.assert_close(to_embedding(z, mean, std), embeddings)
    theirs = prior.transformer.post_process_latents(z)
    ours = to_embedding(z, prior.transformer.clip_mean, prior.transformer.clip_std)
    torch.testing.assert_close(ours, F.normalize(theirs, dim=1))
    with pytest.raises(ValueError, match="at least two embeddings, got 1"):
        mean_and_std(embeddings[:1])
    with pytest.raises(ValueError, match="differ in each of their numbers"):
        mean_and_std(embeddings[:1].repeat(3, 1))


# --- the loss


def test_the_loss_is_the_error_of_the_embedding_itself(clip):
    x0, eps = torch.randn(3, 128), torch.randn(3, 128)
    cond, null = conditions(clip, CAPTIONS), conditions(clip, [""])
    t, uniforms, alpha_bar = torch.tensor([10, 400, 990]), torch.tensor([0.5, 0.05, 0.9]), prior_alpha_bar()
    asked = []

    def model(x_t, t, cond):
        asked.append((x_t, cond))
        return 0.5 * x_t

    loss = prior_loss(model, x0, cond, null, t, eps, uniforms, alpha_bar)
    a = alpha_bar[t][:, None]
    x_t = a.sqrt() * x0 + (1 - a).sqrt() * eps
    torch.testing.assert_close(asked[0][0], x_t)
    assert asked[0][1][[0, 2]].equal(cond[[0, 2]]) and asked[0][1][1].equal(null[0])  # 0.05 is below a tenth
    assert loss.item() == pytest.approx((x0 - 0.5 * x_t).square().mean().item(), rel=1e-5)
    of_noise = text_loss(model, x0, cond, null, t, eps, uniforms, alpha_bar)
    assert of_noise.item() == pytest.approx((eps - 0.5 * x_t).square().mean().item(), rel=1e-5)
    assert prior_loss(lambda *_: x0, x0, cond, null, t, eps, uniforms, alpha_bar) == 0


def test_mean_and_deviation_are_not_trained(clip):
    prior = Prior(small_prior(clip[0]))
    cond, null = conditions(clip, CAPTIONS), conditions(clip, [""])
    t, alpha_bar = torch.tensor([10, 400, 990]), prior_alpha_bar()
    prior_loss(prior, torch.randn(3, 128), cond, null, t, torch.randn(3, 128), torch.ones(3), alpha_bar).backward()
    still = {name for name, weights in prior.transformer.named_parameters() if weights.grad is None}
    assert still == {"clip_mean", "clip_std"}


# --- samples


def test_the_better_of_two_is_the_one_nearer_to_the_text():
    text, first, second = unit(50, 16), unit(50, 16, seed=1), unit(50, 16, seed=2)
    best = better_of_two(first, second, text)
    cosines = torch.stack([(first * text).sum(1), (second * text).sum(1)])
    torch.testing.assert_close((best * text).sum(1), cosines.amax(0))
    of_first = cosines[0] > cosines[1]
    assert best[of_first].equal(first[of_first]) and best[~of_first].equal(second[~of_first])
    assert 5 < of_first.sum() < 45 and better_of_two(second, first, text).equal(best)
    with pytest.raises(ValueError, match="the two samples of one shape"):
        better_of_two(first, second[:1], text)
    with pytest.raises(ValueError, match="samples and text embeddings"):
        better_of_two(first, second, text[:1])


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_samples_are_those_of_diffusers_ddim_with_guidance_of_the_embedding(clip, prior, guidance):
    from diffusers import DDIMScheduler

    cond, null = conditions(clip, CAPTIONS), conditions(clip, [""])
    ours = sample_prior(prior, cond, null, torch.Generator().manual_seed(5), guidance, steps=10)
    scheduler = DDIMScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type="sample", clip_sample=False, timestep_spacing="trailing"
    )
    scheduler.set_timesteps(10)
    z = torch.randn(3, 128, generator=torch.Generator().manual_seed(5))
    for t in scheduler.timesteps:
        z_null, z_cond = (prior(z, t.expand(3), c) for c in (null.expand(3, -1, -1), cond))
        z = scheduler.step(z_null + guidance * (z_cond - z_null), t, z).prev_sample
    expected = F.normalize(prior.transformer.post_process_latents(z), dim=1)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-3)
    assert not torch.allclose(ours[0], ours[1], atol=0.05)


# --- the folder


@pytest.fixture(scope="module")
def home(prior, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prior")
    prior.transformer.save_config(folder)
    save_half(prior.transformer, folder, FILE)
    return folder


def test_the_file_opens_with_the_librarys_own_class(clip, prior, home):
    from diffusers import PriorTransformer

    theirs, ours = PriorTransformer.from_pretrained(home), load_prior(home)
    assert ours.transformer.dtype == torch.float32 and not any(w.requires_grad for w in ours.parameters())
    cond, z_t = conditions(clip, CAPTIONS), torch.randn(3, 128)
    opened = Prior(theirs.float().eval())
    with torch.no_grad():
        for other in (opened, ours):
            out = other(z_t, torch.tensor([5, 50, 500]), cond)
            torch.testing.assert_close(out, prior(z_t, torch.tensor([5, 50, 500]), cond), rtol=0, atol=0.02)
    torch.testing.assert_close(theirs.clip_std.float(), prior.transformer.clip_std, rtol=1e-3, atol=0)


def test_what_is_no_prior_is_refused(home, tmp_path):
    with pytest.raises(ValueError, match="There is no prior in"):
        load_prior(tmp_path)
    damaged = shutil.copytree(home, tmp_path / "damaged")
    save_file({"other": torch.zeros(1)}, damaged / FILE)
    with pytest.raises(ValueError, match="it lacks"):
        load_prior(damaged)
