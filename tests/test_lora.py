"""LoRA by hand: equal to peft's, its files read by plain diffusers, and nothing of the network lost on the way."""

import copy
import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_parts
from torch import nn
from torch.nn import functional as F

from course_utils.models import lora
from course_utils.models.lora import LoRALinear, add_lora, load_lora, lora_parameters, remove_lora, save_lora
from course_utils.pipelines.picture_book import PICTURE_BOOK

KINDS = ("diffusers", "webui")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def filled(layers, seed=0):
    """Give each B numbers, as if it had been trained."""
    generator = seeded(seed)
    for layer in layers:
        layer.B.data.normal_(0, 0.1, generator=generator)
    return layers


def layer(rank=3, alpha=6.0, weight=1.0, seed=0, base=None):
    """A LoRALinear from 8 numbers to 5, with B as if trained."""
    torch.manual_seed(seed)
    return filled([LoRALinear(base or nn.Linear(8, 5), rank, alpha, weight, seeded(seed))], seed)[0]


def predicted(unet, seed=0):
    """What the U-Net predicts for a fixed input."""
    config = unet.config
    x = torch.randn(2, config.in_channels, config.sample_size, config.sample_size, generator=seeded(seed))
    words = torch.randn(2, 7, config.cross_attention_dim, generator=seeded(seed + 1))
    with torch.no_grad():
        return unet(x, torch.tensor([10, 700]), encoder_hidden_states=words).sample


def differs(a, b):
    return (a - b).abs().max().item()


def weights(unet):
    """All weights, and which of them are trained."""
    state = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    return state, {name: p.requires_grad for name, p in unet.named_parameters()}


def same(one, other):
    (state, trained), (other_state, other_trained) = one, other
    equal = state.keys() == other_state.keys() and all(torch.equal(state[k], other_state[k]) for k in state)
    return equal and trained == other_trained


@pytest.fixture(scope="module")
def whole():
    return tiny_parts()["unet"]


@pytest.fixture
def unet(whole):
    return copy.deepcopy(whole)


@pytest.fixture(scope="module")
def plain():
    """The shipped model as plain diffusers loads it."""
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline.from_pretrained(PICTURE_BOOK, local_files_only=True)


# One layer


def test_it_is_the_equation():
    made = layer(rank=3, alpha=6, weight=0.5).double()
    x = torch.randn(4, 2, 8, generator=seeded(), dtype=torch.float64)
    W, b, A, B = made.base.weight, made.base.bias, made.A, made.B
    expected = torch.einsum("oi,...i->...o", W + 0.5 * 6 / 3 * B @ A, x) + b
    assert torch.allclose(made(x), expected, rtol=0, atol=1e-14)
    assert torch.allclose(made.difference(), 0.5 * 6 / 3 * B @ A, rtol=0, atol=1e-14)
    assert torch.linalg.matrix_rank(made.difference()) == 3


def test_at_first_nothing_changes():
    base = nn.Linear(8, 5)
    made = LoRALinear(base, 3, generator=seeded())
    x = torch.randn(4, 8)
    assert torch.equal(made(x), base(x))
    assert made.rank == 3 and made.alpha == 3 and made.weight == 1  # alpha is the rank unless it is said
    assert made.A.shape == (3, 8) and made.B.shape == (5, 3) and not made.B.any()


def test_a_starts_as_torch_starts_linear_layers():
    made = LoRALinear(nn.Linear(400, 300), 50, generator=seeded())
    bound = 1 / math.sqrt(400)
    assert made.A.abs().max() <= bound and made.A.detach().std() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    again, other = (LoRALinear(nn.Linear(400, 300), 50, generator=seeded(seed)) for seed in (0, 1))
    assert torch.equal(made.A, again.A) and not torch.equal(made.A, other.A)


@pytest.mark.parametrize("rank, alpha, weight", [(1, 1, 1.0), (3, 6, 1.0), (4, 1, 0.7), (5, 16, -2.0)])
def test_it_is_pefts_layer(rank, alpha, weight):
    from peft import LoraConfig, inject_adapter_in_model

    made = layer(rank, alpha, weight)
    theirs = nn.ModuleDict({"linear": copy.deepcopy(made.base)})
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, target_modules=["linear"]), theirs)
    linear = theirs["linear"]
    linear.set_scale("default", weight)
    linear.lora_A["default"].weight.data.copy_(made.A)
    linear.lora_B["default"].weight.data.copy_(made.B)
    x = torch.randn(16, 8, generator=seeded())
    assert torch.equal(made(x), linear(x))
    made(x).pow(2).sum().backward()
    linear(x).pow(2).sum().backward()
    assert torch.equal(made.A.grad, linear.lora_A["default"].weight.grad)
    assert torch.equal(made.B.grad, linear.lora_B["default"].weight.grad)
    linear.merge()
    made.merge()
    assert torch.equal(made.merged, linear.base_layer.weight) and torch.equal(made(x), linear(x))


def test_merged_it_is_one_product_and_unmerged_the_weights_are_the_same_bits():
    made, x = layer(), torch.randn(16, 8, generator=seeded())
    before, W = made(x), made.base.weight.clone()
    made.merge()
    assert torch.equal(made(x), F.linear(x, W + made.difference(), made.base.bias))
    assert differs(made(x), before) < 1e-6 and not made(x).requires_grad
    made.unmerge()
    assert torch.equal(made.base.weight, W) and torch.equal(made(x), before)


def test_merging_again_takes_what_has_changed():
    made, x = layer(), torch.randn(16, 8, generator=seeded())
    made.merge()
    made.weight = 0.25
    made.merge()
    merged = made(x)
    made.unmerge()
    assert differs(merged, made(x)) < 1e-6


def test_merged_it_follows_to_another_number_format():
    made = layer()
    made.merge()
    assert made.double().merged.dtype == torch.float64 and "merged" not in made.state_dict()


def test_the_differences_of_two_add_up():
    inner = layer(rank=2, alpha=4, weight=0.5)
    outer = layer(rank=3, alpha=1, seed=1, base=inner)
    x = torch.randn(16, 8, generator=seeded())
    expected = F.linear(x, inner.base.weight + inner.difference() + outer.difference(), inner.base.bias)
    assert differs(outer(x), expected) < 1e-6
    for merge in ([outer], [inner], [inner, outer], [outer, inner]):
        for one in merge:
            one.merge()
        assert differs(outer(x), expected) < 1e-6
        for one in merge:
            one.unmerge()
    assert not any(p.requires_grad for p in outer.base.parameters())


def test_weight_0_is_nothing():
    made, x = layer(weight=0), torch.randn(16, 8, generator=seeded())
    assert torch.equal(made(x), made.base(x))
    made.merge()
    assert torch.equal(made.merged, made.base.weight)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"rank": 0}, "rank from 1 to 5.*got 0"),
        ({"rank": 6}, "rank from 1 to 5.*got 6"),
        ({"rank": 2.0}, "rank from 1 to 5.*got 2.0"),
        ({"rank": True}, "rank from 1 to 5.*got True"),
        ({"alpha": 0}, "alpha above 0, got 0"),
        ({"alpha": math.inf}, "alpha above 0, got inf"),
        ({"alpha": "4"}, "alpha above 0, got '4'"),
        ({"weight": math.nan}, "finite weight, got nan"),
        ({"base": nn.Conv2d(8, 5, 1)}, "linear layer, got Conv2d"),
    ],
)
def test_what_a_layer_cannot_be_made_of(changes, words):
    base = nn.Linear(8, 5)
    with pytest.raises(ValueError, match=words):
        LoRALinear(**{"base": base, "rank": 2} | changes)
    assert base.weight.requires_grad


# In the U-Net


def test_it_is_put_around_the_attention_and_taken_away_again(unet, whole):
    expected, before = predicted(unet), list(weights(unet)[0])
    layers = add_lora(unet, 2, generator=seeded())
    names = [name for name, module in unet.named_modules() if isinstance(module, LoRALinear)]
    assert layers == [unet.get_submodule(name) for name in names]
    assert len(layers) == 4 * sum(name.endswith("to_q") for name, _ in whole.named_modules())
    assert {name.split(".")[-2] for name in names if name.endswith("to_v")} == {"attn1", "attn2"}
    assert torch.equal(predicted(unet), expected)
    filled(layers)
    assert differs(predicted(unet), expected) > 1e-3
    remove_lora(unet)
    assert torch.equal(predicted(unet), expected) and list(weights(unet)[0]) == before
    assert same((weights(unet)[0], {}), (weights(whole)[0], {}))
    remove_lora(unet)  # nothing is left to be taken away


def test_the_gradient_flows_to_a_and_b_only(unet):
    layers = add_lora(unet, 2, generator=seeded())
    frozen = {name: p.clone() for name, p in unet.named_parameters() if not name.endswith((".A", ".B"))}
    optimizer = torch.optim.Adam(lora_parameters(unet), 1e-2)
    x, words = torch.randn(1, 4, 16, 16, generator=seeded()), torch.randn(1, 7, 32, generator=seeded())
    for _ in range(2):
        optimizer.zero_grad()
        unet(x, 10, encoder_hidden_states=words).sample.pow(2).mean().backward()
        assert all((p.grad is not None) == name.endswith((".A", ".B")) for name, p in unet.named_parameters())
        optimizer.step()
    assert all(layer.A.grad.any() and layer.B.any() for layer in layers)
    assert all(torch.equal(dict(unet.named_parameters())[name], p) for name, p in frozen.items())


def test_of_two_the_last_is_trained(unet):
    first, second = add_lora(unet, 2), add_lora(unet, 3)
    assert [layer.base for layer in second] == first
    assert {id(p) for p in unet.parameters() if p.requires_grad} == {id(p) for x in second for p in (x.A, x.B)}
    assert len(lora_parameters(unet)) == 2 * len(first) + 2 * len(second)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_numbers_grow_with_the_rank(unet, rank):
    from peft import LoraConfig

    theirs = copy.deepcopy(unet)
    theirs.requires_grad_(False)
    theirs.add_adapter(LoraConfig(r=rank, target_modules=list(lora.ATTENTION)))
    layers = add_lora(unet, rank)
    count = sum(p.numel() for p in lora_parameters(unet))
    assert count == sum(rank * (layer.in_features + layer.out_features) for layer in layers)
    assert count == sum(p.numel() for p in theirs.parameters() if p.requires_grad)


def test_it_is_pefts_in_the_whole_u_net(unet):
    from peft import LoraConfig

    theirs = copy.deepcopy(unet)
    theirs.add_adapter(LoraConfig(r=3, lora_alpha=5, target_modules=list(lora.ATTENTION)))
    filled(add_lora(unet, 3, 5, generator=seeded()))
    for name, module in unet.named_modules():
        if isinstance(module, LoRALinear):
            theirs.get_submodule(name).lora_A["default"].weight.data.copy_(module.A)
            theirs.get_submodule(name).lora_B["default"].weight.data.copy_(module.B)
    assert torch.equal(predicted(unet), predicted(theirs))


def test_merged_the_whole_u_net_predicts_the_same(unet):
    layers = filled(add_lora(unet, 3, 5, generator=seeded()))
    before = predicted(unet)
    for one in layers:
        one.merge()
    assert 0 < differs(predicted(unet), before) < 1e-5
    for one in layers:
        one.unmerge()
    assert torch.equal(predicted(unet), before)


def test_other_layers_can_be_chosen(unet):
    names = [name for name, module in unet.named_modules() if name.endswith(("attn2.to_k", "ff.net.2"))]
    assert len(add_lora(unet, 2, targets=("attn2.to_k", "ff.net.2", "to_k"))) > len(names)
    assert all(isinstance(unet.get_submodule(name), LoRALinear) for name in names)
    assert not isinstance(unet.get_submodule(names[0].replace("to_k", "to_q")), LoRALinear)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"targets": ("to_q", "to_x")}, "got 'to_x'"),
        ({"targets": ("to_out",)}, "got 'to_out'"),
        ({"targets": ("proj_in",)}, "got 'proj_in'"),  # a convolution
        ({"targets": ("o_q",)}, "got 'o_q'"),
        ({"targets": ()}, r"got \(\)"),
        ({"targets": "to_q"}, "list of names"),
        ({"rank": 0}, "rank from 1 to 16"),
        ({"rank": 17}, "rank from 1 to 16"),
        ({"rank": 20, "targets": ("time_embedding.linear_2", "to_q")}, "rank from 1 to 16"),  # the first would do
        ({"alpha": -1}, "alpha above 0"),
    ],
)
def test_what_cannot_be_added_leaves_the_u_net_as_it_was(unet, changes, words):
    before = weights(unet)
    with pytest.raises(ValueError, match=words):
        add_lora(unet, **{"rank": 2} | changes)
    assert same(weights(unet), before)


# Files


@pytest.fixture
def trained(unet):
    filled(add_lora(unet, 3, 5, generator=seeded()))
    return unet


@pytest.fixture
def file(trained, tmp_path):
    """A file of diffusers' kind."""
    save_lora(trained, tmp_path / "lora.safetensors")
    return tmp_path / "lora.safetensors"


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_comes_back(trained, whole, tmp_path, kind):
    path = tmp_path / "new folder" / "lora.safetensors"
    save_lora(trained, path, kind)
    loaded, state = copy.deepcopy(whole), torch.get_rng_state()
    layers = load_lora(loaded, path)
    assert torch.equal(torch.get_rng_state(), state)
    assert {(layer.rank, layer.alpha, layer.weight) for layer in layers} == {(3, 5.0, 1.0)}
    assert layers == [module for module in loaded.modules() if isinstance(module, LoRALinear)]
    assert torch.equal(predicted(loaded), predicted(trained))
    assert same(weights(loaded), weights(trained))
    again = path.with_name("again.safetensors")
    save_lora(loaded, str(again), kind)
    assert load_file(again).keys() == load_file(path).keys()
    assert all(torch.equal(tensor, load_file(path)[key]) for key, tensor in load_file(again).items())


def test_keys_are_those_of_the_two_conventions(trained, tmp_path):
    for kind in KINDS:
        save_lora(trained, tmp_path / f"{kind}.safetensors", kind)
    name = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0"
    linear = trained.get_submodule(name)
    of_diffusers, of_webui = (load_file(tmp_path / f"{kind}.safetensors") for kind in KINDS)
    assert torch.equal(of_diffusers[f"unet.{name}.lora_A.weight"], linear.A)
    assert torch.equal(of_diffusers[f"unet.{name}.lora_B.weight"], linear.B)
    key = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_out_0"
    assert torch.equal(of_webui[f"{key}.lora_down.weight"], linear.A)
    assert torch.equal(of_webui[f"{key}.lora_up.weight"], linear.B) and of_webui[f"{key}.alpha"] == 5
    assert len(of_webui) == 3 / 2 * len(of_diffusers) == 3 * len(lora_parameters(trained)) / 2


@pytest.mark.parametrize("kind", KINDS)
def test_plain_diffusers_reads_the_file(plain, tmp_path, kind):
    path = tmp_path / "lora.safetensors"
    mine = copy.deepcopy(plain.unet)
    filled(add_lora(mine, 4, 8, generator=seeded()))
    save_lora(mine, path, kind)
    before = predicted(plain.unet)
    assert differs(predicted(mine), before) > 0.1
    plain.load_lora_weights(path, adapter_name="ours")
    try:
        assert differs(predicted(plain.unet), predicted(mine)) <= 1e-5
        plain.set_adapters("ours", 0.6)
        remove_lora(mine)
        load_lora(mine, path, 0.6)
        assert differs(predicted(plain.unet), predicted(mine)) <= 1e-5
    finally:
        plain.unload_lora_weights()
    assert torch.equal(predicted(plain.unet), before)


def test_plain_diffusers_adds_two_as_we_do(plain, tmp_path):
    mine = copy.deepcopy(plain.unet)
    for seed, kind in enumerate(KINDS):
        filled(add_lora(mine, 2 + seed, 3, generator=seeded(seed)), seed)
        save_lora(mine, tmp_path / f"{kind}.safetensors", kind)
        remove_lora(mine)
    try:
        for kind, weight in zip(KINDS, (0.5, 0.8), strict=True):
            load_lora(mine, tmp_path / f"{kind}.safetensors", weight)
            plain.load_lora_weights(tmp_path / f"{kind}.safetensors", adapter_name=kind)
        plain.set_adapters(list(KINDS), [0.5, 0.8])
        assert differs(predicted(plain.unet), predicted(mine)) <= 1e-5
    finally:
        plain.unload_lora_weights()


def test_ranks_and_alphas_may_differ_from_layer_to_layer(plain, tmp_path):
    path = tmp_path / "lora.safetensors"
    mine = copy.deepcopy(plain.unet)
    filled(add_lora(mine, 4, 8, targets=("to_q", "attn2.to_k"), generator=seeded()))
    filled(add_lora(mine, 2, 8, targets=("attn1.to_v",), generator=seeded()))
    filled(add_lora(mine, 2, 3, targets=("attn1.to_out.0",), generator=seeded()))
    save_lora(mine, path)
    loaded = copy.deepcopy(plain.unet)
    load_lora(loaded, path)
    assert torch.equal(predicted(loaded), predicted(mine))
    plain.load_lora_weights(path)
    try:
        assert differs(predicted(plain.unet), predicted(mine)) <= 1e-5
    finally:
        plain.unload_lora_weights()


@pytest.mark.parametrize("script", [False, True], ids=["lora_A", "lora.down"])
@pytest.mark.parametrize("alpha", [4, 9])
def test_files_that_diffusers_writes_are_read(plain, tmp_path, script, alpha):
    """`lora.down` is what its training scripts make of peft's names."""
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    theirs = copy.deepcopy(plain.unet)
    config = LoraConfig(r=4, lora_alpha=alpha, target_modules=list(lora.ATTENTION), alpha_pattern={"attn2.to_k": 7})
    theirs.add_adapter(config)
    for name, p in theirs.named_parameters():
        if "lora_B" in name:
            p.data.normal_(0, 0.1, generator=seeded())
    state = get_peft_model_state_dict(theirs)
    if script:
        state = convert_state_dict_to_diffusers(state)
        assert any("lora.down" in key for key in state)
    plain.save_lora_weights(tmp_path, unet_lora_layers=state, unet_lora_adapter_metadata=config.to_dict())
    mine = copy.deepcopy(plain.unet)
    load_lora(mine, tmp_path / "pytorch_lora_weights.safetensors")
    assert differs(predicted(theirs), predicted(mine)) <= 1e-5


def test_without_a_word_of_alpha_it_is_the_rank(trained, whole, tmp_path):
    for kind in KINDS:
        path = tmp_path / f"{kind}.safetensors"
        save_lora(trained, path, kind)
        save_file({key: tensor for key, tensor in load_file(path).items() if not key.endswith("alpha")}, path)
        assert {layer.alpha for layer in load_lora(copy.deepcopy(whole), path)} == {3}


def test_a_file_in_half_precision_is_read(trained, whole, file):
    save_file({key: tensor.half() for key, tensor in load_file(file).items()}, file, metadata=header(file))
    loaded = copy.deepcopy(whole)
    assert {layer.A.dtype for layer in load_lora(loaded, file)} == {torch.float32}
    assert 0 < differs(predicted(loaded), predicted(trained)) < 1e-2


def test_an_interrupted_save_leaves_the_file_as_it_was(trained, file, monkeypatch):
    class Killed(BaseException):
        """Stands for a kill."""

    def half(tensors, path, metadata):
        path.write_bytes(b"half")
        raise Killed

    before = file.read_bytes()
    monkeypatch.setattr(lora, "save_file", half)
    with pytest.raises(Killed):
        save_lora(trained, file, "webui")
    assert file.read_bytes() == before and list(file.parent.iterdir()) == [file]


def test_what_cannot_be_saved(unet, tmp_path):
    path = tmp_path / "lora.safetensors"
    with pytest.raises(ValueError, match="without: call add_lora"):
        save_lora(unet, path)
    layers = add_lora(unet, 2)
    with pytest.raises(ValueError, match="'diffusers' or 'webui', got 'kohya'"):
        save_lora(unet, path, "kohya")
    with pytest.raises(ValueError, match=r"ends in .safetensors, got .*lora.pt"):
        save_lora(unet, tmp_path / "lora.pt")
    layers[3].B.data[0, 0] = math.nan
    with pytest.raises(ValueError, match=r"got nan or infinity in .*to_out.0"):
        save_lora(unet, path)
    add_lora(unet, 2)
    with pytest.raises(ValueError, match=r"got several around .*to_q"):
        save_lora(unet, path)
    assert not list(tmp_path.iterdir())


def header(path):
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return file.metadata()


def rewritten(change):
    """A fault that is made by changing the tensors of the file."""

    def fault(path):
        tensors = load_file(path)
        save_file(change(tensors) or tensors, path, metadata=header(path))

    return fault


def with_header(text):
    return lambda path: save_file(load_file(path), path, metadata={"lora_adapter_metadata": text})


Q = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
FAULTS = {
    "missing": (lambda path: path.unlink(), "got no file"),
    "empty": (lambda path: path.write_bytes(b""), "cannot be read"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-40]), "cannot be read"),
    "other content": (lambda path: path.write_bytes(b"PK" * 400), "cannot be read"),
    "nothing in it": (lambda path: save_file({}, path), "in which there is nothing"),
    "a model": (rewritten(lambda t: {"conv_in.weight": torch.zeros(3)}), "Expected keys such as.*got conv_in.weight"),
    "words too": (rewritten(lambda t: t | {"lora_te_a.alpha": torch.ones(())}), "got lora_te_a.alpha.*U-Net alone"),
    "bias": (rewritten(lambda t: t | {f"{Q}.lora_B.bias": torch.ones(16)}), "got unet.*lora_B.bias"),
    "other layer": (
        rewritten(lambda t: {k.replace("down_blocks.1", "down_blocks.7"): v for k, v in t.items()}),
        r"got down_blocks.7.*to_. in .*trained for this model",
    ),
    "a convolution": (
        rewritten(lambda t: t | {"unet.conv_in.lora_A.weight": torch.ones(2, 4, 1, 1)}),
        "got conv_in in",
    ),
    "one matrix": (rewritten(lambda t: {k: v for k, v in t.items() if k != f"{Q}.lora_B.weight"}), "got one in"),
    "other width": (
        rewritten(lambda t: {k: v.repeat(1, 2) if "lora_A" in k else v for k, v in t.items()}),
        r"\(rank, 16\) and \(16, rank\) for .*got \(3, 32\) and \(16, 3\)",
    ),
    "other height": (rewritten(lambda t: t | {f"{Q}.lora_B.weight": torch.ones(8, 3)}), r"got \(3, 16\) and \(8, 3\)"),
    "two ranks": (rewritten(lambda t: t | {f"{Q}.lora_B.weight": torch.ones(16, 4)}), r"got \(3, 16\) and \(16, 4\)"),
    "four sides": (rewritten(lambda t: t | {f"{Q}.lora_A.weight": torch.ones(3, 16, 1, 1)}), r"got \(3, 16, 1, 1\)"),
    "rank too high": (
        rewritten(lambda t: t | {f"{Q}.lora_A.weight": torch.ones(17, 16), f"{Q}.lora_B.weight": torch.ones(16, 17)}),
        "for down_blocks.*attn1.to_q: Expected a rank from 1 to 16",
    ),
    "rank 0": (
        rewritten(lambda t: t | {f"{Q}.lora_A.weight": torch.ones(0, 16), f"{Q}.lora_B.weight": torch.ones(16, 0)}),
        "Expected a rank from 1 to 16",
    ),
    "not finite": (rewritten(lambda t: t | {f"{Q}.lora_A.weight": torch.full((3, 16), math.inf)}), "finite numbers"),
    "whole numbers": (
        rewritten(lambda t: t | {f"{Q}.lora_A.weight": torch.ones(3, 16, dtype=torch.int32)}),
        "finite numbers",
    ),
    "two alphas": (rewritten(lambda t: t | {f"{Q}.alpha": torch.ones(2)}), "one number for alpha"),
    "alpha 0": (rewritten(lambda t: t | {f"{Q}.alpha": torch.zeros(())}), "alpha above 0, got 0.0"),
    "header": (with_header("{"), "cannot be read"),
    "header of another form": (with_header("[1]"), "settings in the header"),
    "pattern": (with_header(json.dumps({"unet.alpha_pattern": {"(": 1}})), "settings in the header"),
    "word for alpha": (with_header(json.dumps({"unet.lora_alpha": "much"})), "alpha above 0, got 'much'"),
    "rsLoRA": (with_header(json.dumps({"unet.use_rslora": True})), "rsLoRA"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_cannot_be_loaded_leaves_the_u_net_as_it_was(file, whole, name):
    fault, words = FAULTS[name]
    fault(file)
    unet = copy.deepcopy(whole)
    before = weights(unet)
    with pytest.raises(ValueError, match=words) as raised:
        load_lora(unet, file)
    assert file.name in str(raised.value) and "\n" not in str(raised.value)
    assert same(weights(unet), before)


def test_paths_and_weights_that_load_takes(file, whole):
    unet = copy.deepcopy(whole)
    before = weights(unet)
    with pytest.raises(ValueError, match=r"ends in .safetensors, got .*lora.ckpt"):
        load_lora(unet, file.with_suffix(".ckpt"))
    with pytest.raises(ValueError, match="finite weight, got nan"):
        load_lora(unet, file, math.nan)
    assert same(weights(unet), before)
    load_lora(unet, str(file), 0)
    assert torch.equal(predicted(unet), predicted(whole))


def test_a_lora_of_another_model_is_refused(plain, trained, file, tmp_path):
    unet = copy.deepcopy(plain.unet)
    before = weights(unet)
    with pytest.raises(ValueError, match="trained for this model"):
        load_lora(unet, file)
    assert same(weights(unet), before)
