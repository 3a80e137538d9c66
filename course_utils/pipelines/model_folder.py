"""A pipeline's folder on disk: all that is read from it is checked where it is read.

Every fault is a ValueError in one sentence that names the folder, the file and the remedy. Only `load_parts` and what
it calls import torch and the libraries: what the configurations alone can tell is told at once.
"""

import contextlib
import hashlib
import json
import logging
import warnings
from pathlib import Path

REMEDY = "train it with `python3 course.py train all`, or fetch the shipped one again with git"

# What a pipeline folder must hold; of the names in one tuple, one is enough.
NEEDED_FILES = [
    ("model_index.json",),
    ("vae/config.json",), ("vae/diffusion_pytorch_model.safetensors",),
    ("unet/config.json",), ("unet/diffusion_pytorch_model.safetensors",),
    ("text_encoder/config.json",), ("text_encoder/model.safetensors",),
    ("tokenizer/tokenizer_config.json",), ("tokenizer/tokenizer.json", "tokenizer/vocab.json"),
    ("scheduler/scheduler_config.json",),
]  # fmt: skip
CONFIGURATIONS = {
    "vae": "vae/config.json",
    "unet": "unet/config.json",
    "text_encoder": "text_encoder/config.json",
    "tokenizer": "tokenizer/tokenizer_config.json",
    "scheduler": "scheduler/scheduler_config.json",
}
# Part -> library, class, file of weights.
MODELS = {
    "vae": ("diffusers", "AutoencoderKL", "vae/diffusion_pytorch_model.safetensors"),
    "unet": ("diffusers", "UNet2DConditionModel", "unet/diffusion_pytorch_model.safetensors"),
    "text_encoder": ("transformers", "CLIPTextModel", "text_encoder/model.safetensors"),
}
LONGEST_REASON = 160  # characters of what a library says


@contextlib.contextmanager
def quiet():
    """Silence the loading bars and notices of transformers and diffusers; afterwards they are as before."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries = (diffusers_logging, transformers_logging)
    before = [(library.get_verbosity(), library.is_progress_bar_enabled()) for library in libraries]
    try:
        for library in libraries:
            library.set_verbosity(logging.ERROR)
            library.disable_progress_bar()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        for library, (verbosity, bars) in zip(libraries, before, strict=True):
            library.set_verbosity(verbosity)
            if bars:
                library.enable_progress_bar()


def read_configurations(folder: Path) -> dict[str, dict]:
    """Return the configuration of each part, after a look at the files and at what drawing takes from them."""
    if not folder.is_dir():
        raise ValueError(f"There is no model folder {folder}: {REMEDY}.")
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        raise ValueError(f"The name of the model folder {str(folder)!r} is no valid text: rename it.") from None
    for names in NEEDED_FILES:
        if not any((folder / name).is_file() for name in names):
            raise ValueError(f"The model in {folder} is incomplete, {names[0]} is missing: {REMEDY}.")
    configurations = {part: _read_json(folder, name) for part, name in CONFIGURATIONS.items()}
    _require_whole(folder, configurations, "unet", "sample_size", 1)
    _require_whole(folder, configurations, "scheduler", "num_train_timesteps", 1)
    _require_whole(folder, configurations, "tokenizer", "model_max_length", 3)  # start, a token, end
    widths = configurations["vae"].get("block_out_channels")
    if not isinstance(widths, list) or not widths:
        raise damaged(folder, CONFIGURATIONS["vae"], f"block_out_channels must be a list of widths, but is {widths!r}")
    words = configurations["tokenizer"].get("words", [])
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise damaged(folder, CONFIGURATIONS["tokenizer"], "its words must be a list of words")
    return configurations


def damaged(folder: Path, name: str, fault) -> ValueError:
    """The error that names a file in the folder and what is wrong with it (text, or what a library raised)."""
    lines = str(fault).strip().splitlines() or [type(fault).__name__]
    reason = lines[0][:LONGEST_REASON].rstrip(" .:")
    return ValueError(f"The model in {folder} cannot be used, {name} is damaged ({reason}): {REMEDY}.")


def _read_json(folder: Path, name: str) -> dict:
    try:
        configuration = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(folder, name, error) from error
    if not isinstance(configuration, dict):
        raise damaged(folder, name, "it must be one JSON object")
    return configuration


def _require_whole(folder: Path, configurations: dict, part: str, key: str, lowest: int) -> None:
    value = configurations[part].get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
        fault = f"{key} must be a whole number from {lowest}, but is {value!r}"
        raise damaged(folder, CONFIGURATIONS[part], fault)


def require_as_shipped(folder: Path, manifest: Path) -> bool:
    """Raise ValueError if a file in `folder` has another SHA-256 checksum than the manifest beside the folder says.

    False without a manifest that can be read: there is nothing to compare with (`python3 course.py doctor` speaks of
    that); else True.
    """
    try:
        files = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        expected = {name: entry["sha256"] for name, entry in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    for path in sorted(folder.rglob("*.*")):
        name = path.relative_to(manifest.parent).as_posix()
        if name not in expected:
            continue
        content = path.read_bytes()
        if path.suffix == ".json":  # git may have written the line ends of Windows
            content = content.replace(b"\r\n", b"\n")
        if hashlib.sha256(content).hexdigest() != expected[name]:
            raise ValueError(
                f"{path} has changed since it was shipped: fetch it with `git restore course_utils/checkpoints`."
            )
    return True


def load_parts(folder: Path):
    """Load the folder as a diffusers StableDiffusionPipeline on the CPU, in float32, without network or chatter.

    Beyond what the libraries look at: no tensor is missing or of another shape, every weight is finite, the parts fit
    together, and each part answers once, at a small size.
    """
    with quiet():
        import diffusers
        from transformers import CLIPTokenizer

        parts = {part: load_network(folder, *MODELS[part]) for part in MODELS}
        with _named(folder, f"{CONFIGURATIONS['tokenizer']} or a file beside it"):
            parts["tokenizer"] = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        with _named(folder, CONFIGURATIONS["scheduler"]):
            kind = getattr(diffusers, _read_json(folder, CONFIGURATIONS["scheduler"])["_class_name"])
            parts["scheduler"] = kind.from_pretrained(folder / "scheduler", local_files_only=True)
        with _named(folder, "model_index.json"):
            pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder, local_files_only=True, **parts)
    try:
        require_fit(pipe.vae, pipe.text_encoder, pipe.tokenizer, pipe.unet)
    except ValueError as error:
        raise ValueError(f"The model in {folder} cannot be used. {error}") from error
    _try_out(pipe, folder)
    return pipe


@contextlib.contextmanager
def _named(folder: Path, name: str):
    """Turn whatever a library raises over a damaged file, half a dozen classes, into the error that names it."""
    try:
        yield
    except Exception as error:
        raise damaged(folder, name, error) from error


def load_network(folder: Path, library: str, class_name: str, name: str):
    """Load one network, comparing what its class expects with what the file `folder/name` holds."""
    import importlib

    import torch

    load = getattr(importlib.import_module(library), class_name).from_pretrained
    home = Path(name).parent
    with _named(folder, f"{name} or {(home / 'config.json').as_posix()}"):
        model, report = load(
            folder / home, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
    for kind, says in (("missing_keys", "it lacks"), ("mismatched_keys", "of another shape is")):
        if wrong := sorted(str(key) for key in report[kind]):
            more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            raise damaged(folder, name, f"{says} {wrong[0]}{more}")
    if report["error_msgs"]:
        raise damaged(folder, name, report["error_msgs"][0])
    for key, tensor in model.state_dict().items():
        if not tensor.sum().isfinite():  # one that is not finite makes the sum so
            raise damaged(folder, name, f"{key} holds numbers that are not finite")
    return model.eval()


def require_fit(vae, text_encoder, tokenizer, unet) -> None:
    """Raise ValueError, naming both, if two parts of a pipeline do not fit."""
    features, longest = text_encoder.config.hidden_size, text_encoder.config.max_position_embeddings
    require_equal("cross_attention_dim of the U-Net", unet.config.cross_attention_dim,
                  "hidden_size of the text encoder", features)  # fmt: skip
    for side in ("in_channels", "out_channels"):
        require_equal(f"{side} of the U-Net", unet.config[side],
                      "latent_channels of the autoencoder", vae.config.latent_channels)  # fmt: skip
    require_equal("model_max_length of the tokenizer", tokenizer.model_max_length,
                  "max_position_embeddings of the text encoder", longest)  # fmt: skip
    if len(tokenizer) > text_encoder.config.vocab_size:
        raise ValueError(
            f"The tokenizer has {len(tokenizer)} tokens, but the text encoder knows only "
            f"{text_encoder.config.vocab_size}: use the tokenizer that the text encoder was trained with."
        )


def require_equal(name: str, value, other_name: str, other_value) -> None:
    """Raise ValueError, naming both parts, unless the two values are equal."""
    if value != other_value:
        raise ValueError(
            f"The parts do not fit: {name} is {value}, but {other_name} is {other_value}; they must be "
            "equal. Configure one after the other and train it again."
        )


def _try_out(pipe, folder: Path) -> None:
    """Ask each part once, at the smallest size that can be drawn: what fails here would fail in every drawing."""
    import torch

    from course_utils.pipelines.denoising import encode_both

    side = max(1, pipe.unet.config.sample_size // 4)
    latents = torch.zeros(2, pipe.unet.config.in_channels, side, side)
    calls = {
        "text_encoder": lambda both: encode_both(pipe.tokenizer, pipe.text_encoder, "a"),
        "unet": lambda both: pipe.unet(latents, 0, encoder_hidden_states=both).sample,
        "vae": lambda both: pipe.vae.decode(latents[:1] / pipe.vae.config.scaling_factor).sample,
    }
    both = None
    for part, call in calls.items():
        with torch.no_grad(), _named(folder, CONFIGURATIONS[part]):
            answer = call(both)
        if not answer.isfinite().all():
            raise damaged(folder, MODELS[part][2], "what it computes is not finite")
        both = answer if both is None else both


def read_trained(path: Path, what: str) -> dict:
    """Return the tensors of a part that is kept beside its network (`PartlyTrained`); `what` it is, as in a sentence.

    Raises ValueError, in one sentence, if the file is missing or cannot be read.
    """
    from safetensors.torch import load_file

    if not path.is_file():
        raise ValueError(f"There is no {what} in {path.parent}: {REMEDY}.")
    try:
        return load_file(path)
    except Exception as error:  # a damaged file shows as any class
        raise ValueError(f"The {what} {path} cannot be read ({error}): {REMEDY}.") from error


def give_trained(model, saved: dict, path: Path, what: str):
    """Give the model, a `PartlyTrained`, what `read_trained` read; return it, ready to draw and not to be trained.

    Raises ValueError, in one sentence, if that belongs to another network.
    """
    expected, found = ({name: tuple(value.shape) for name, value in some.items()} for some in (model.kept(), saved))
    wrong = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
    if wrong or not all(value.isfinite().all() for value in saved.values()):
        fault = f"{wrong[0]} is not as this U-Net needs it" if wrong else "a number in it is not finite"
        raise ValueError(f"The {what} {path} cannot be used, {fault}: {REMEDY}.")
    model.load_state_dict({**model.state_dict(), **{name: value.float() for name, value in saved.items()}})
    return model.requires_grad_(False).eval()
