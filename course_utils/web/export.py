"""A pipeline's networks as ONNX, and one JSON with everything else that a page needs to draw with them.

    text_encoder.onnx    tokens (n, words) int32                            -> cond (n, words, width)
    unet.onnx            x_t (n, c, h, w), t (), cond (n, words, width)     -> prediction (n, c, h, w),
                                                                               maps (n, words, places)
    decoder.onnx         z (n, c, h, w), no longer scaled                   -> picture (n, 3, f h, f w) in [-1, 1]
    model.json           tokenizer, Chinese words, alpha_bar, prediction type, scale and shift of latents, sizes,
                         defaults

Weights are stored in float16 (all but the text encoder's are so already, in the shipped model) and cast to float32 when
a session is made, so that the networks compute in float32 everywhere. n is free. Nothing is pickled.

The maps are those of one layer of cross-attention, the first on the way up, as mean over its heads: how much each of
its places, row by row, attends to each word (`pipelines.attention_maps`; chapter 10).
"""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

from course_utils.files import new_folder

OPSET = 20
FILES = {name: f"{name}.onnx" for name in ("text_encoder", "unet", "decoder")}
MODEL = "model.json"
SMALLEST = 64  # numbers; smaller tensors stay in float32
PREVIEW_PAGES = 64  # of the picture book, that the colours of latents are fitted on
PREVIEW_DATA_SET = 1  # training uses data set 0


def export_onnx(pipe, folder: Path | str, name: str = "") -> Path:
    """Write a pipeline of `load_picture_book` as ONNX and JSON into `folder`; return the folder.

    name: what PNGs call the model; "": that of the folder it was loaded from. A folder that is there is replaced.

    Raises ValueError if `folder` holds something else than an exported model, or if onnx is not installed.
    """
    from course_utils.pipelines.picture_book import name_of

    require_packages()
    folder = Path(folder)
    require_free(folder)
    with new_folder(folder) as new:
        for part, (module, inputs, outputs) in networks(pipe, with_maps=True).items():
            write_network(module, inputs, outputs, new / FILES[part])
        description = describe(pipe, name or name_of(pipe).name)
        description["bytes"] = {file: (new / file).stat().st_size for file in FILES.values()}
        (new / MODEL).write_text(json.dumps(description, ensure_ascii=False), encoding="utf-8")
    return folder


def require_free(folder: Path) -> None:
    """Raise ValueError if `folder` is there and holds something else than an exported model."""
    own = {*FILES.values(), MODEL}
    if folder.exists() and not (folder.is_dir() and {path.name for path in folder.iterdir()} <= own):
        raise ValueError(f"{folder} holds something else than an exported model: choose a new folder to write in.")


def require_packages(*more: str) -> None:
    """Raise ValueError unless the packages that write ONNX, and those in `more`, are installed."""
    from importlib.util import find_spec

    missing = [package for package in ("onnx", "onnxscript", *more) if find_spec(package) is None]
    if missing:
        raise ValueError(
            f"The package {missing[0]} is missing: in the course's environment, run "
            "pip install -c constraints.txt onnx onnxscript onnxruntime."
        )


def networks(pipe, with_maps: bool = False) -> dict[str, tuple]:
    """Return of each network (module, example inputs by name, names of its outputs).

    with_maps: whether the U-Net gives attention maps too.
    """
    import torch

    from course_utils.pipelines.attention_maps import edited_attention

    class TextEncoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = pipe.text_encoder

        def forward(self, tokens):
            return self.network(tokens).last_hidden_state

    class UNet(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = pipe.unet

        def forward(self, x_t, t, cond):
            return self.network(x_t, t, cond, return_dict=False)[0]

    class UNetWithMaps(UNet):
        layer = next(name for name, _ in pipe.unet.named_modules() if name.startswith("up") and name.endswith("attn2"))

        def forward(self, x_t, t, cond):
            caught = []

            def catch(_, maps):  # (n, heads, places, words)
                caught.append(maps.mean(1).transpose(1, 2))
                return maps

            with edited_attention(self.network, catch, (self.layer,)):
                prediction = super().forward(x_t, t, cond)
            return prediction, *caught

    class Decoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = pipe.vae

        def forward(self, z):
            return self.network.decode(z, return_dict=False)[0]

    unet, words = pipe.unet.config, pipe.tokenizer.model_max_length
    x_t = torch.zeros(2, unet.in_channels, unet.sample_size, unet.sample_size)
    cond = torch.zeros(2, words, unet.cross_attention_dim)
    return {
        "text_encoder": (TextEncoder(), {"tokens": torch.zeros(2, words, dtype=torch.int32)}, ["cond"]),
        "unet": (
            UNetWithMaps() if with_maps else UNet(),
            {"x_t": x_t, "t": torch.tensor(999.0), "cond": cond},
            ["prediction", "maps"] if with_maps else ["prediction"],
        ),
        "decoder": (Decoder(), {"z": x_t}, ["picture"]),
    }


def write_network(module, inputs: dict[str, Any], outputs: list[str], path: Path) -> None:
    """Write one network as ONNX, its weights in float16 with a cast to float32, its first dimension free."""
    import onnx

    model = as_onnx(module, inputs, outputs)
    store_in_half(model)
    strip(model)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def write_graphs(pipe, folder: Path) -> None:
    """Write the networks of `pipelines.quick` into its folder: what they compute, and only the names of the weights."""
    from onnx import TensorProto

    require_packages()
    for part, (module, inputs, outputs) in networks(pipe).items():
        model = as_onnx(module, inputs, outputs, optimize=False)  # so that all weights are as they are in the module
        for weight in model.graph.initializer:
            if weight.data_type == TensorProto.FLOAT:
                leave_out(weight)
        strip(model)
        (folder / FILES[part]).write_bytes(model.SerializeToString())


def leave_out(weight) -> None:
    """Let a weight of an ONNX model be one whose numbers are elsewhere: ONNX Runtime is handed them, in place."""
    from onnx import TensorProto

    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weights")


def as_onnx(module, inputs: dict[str, Any], outputs: list[str], optimize: bool = True):
    """Return one network as an ONNX model in float32, its first dimension free.

    optimize: False to keep each weight as it is, under its own name.
    """
    import torch

    batch = torch.export.Dim("batch")
    shapes = {name: {0: batch} if value.ndim else None for name, value in inputs.items()}
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of axes that share a name, and of what torch itself will change
        exporter.setLevel(logging.ERROR)  # it asks for torchvision's operators, which no network here has
        try:
            program = torch.onnx.export(
                module.eval(), (), kwargs=inputs, dynamo=True, dynamic_shapes=shapes, opset_version=OPSET,
                input_names=list(inputs), output_names=outputs, verbose=False, optimize=optimize,
            )  # fmt: skip
        finally:
            exporter.setLevel(level)
    assert program is not None
    return program.model_proto


def store_in_half(model) -> None:
    """Let each large float32 weight of an ONNX model be a float16 one, and a cast that restores its name, in place."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for weight in model.graph.initializer:
        if weight.data_type != TensorProto.FLOAT or np.prod(weight.dims) < SMALLEST:
            continue
        name, values = weight.name, numpy_helper.to_array(weight)
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
        casts.append(helper.make_node("Cast", [weight.name], [name], name=f"{name}.cast", to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def strip(model) -> None:
    """Take out what the exporter notes for people, which is as large as a tenth of the weights, in place."""
    del model.metadata_props[:], model.graph.metadata_props[:], model.graph.value_info[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in [*model.graph.input, *model.graph.output, *model.graph.initializer]:
        del value.metadata_props[:]


def describe(pipe, name: str) -> dict:
    """Return what `model.json` says of a pipeline: all that the page needs beside the networks."""
    from course_utils.pipelines.picture_book import made_for, make_scheduler
    from course_utils.pipelines.png_info import MOST_SEED, WEB_UI_SAMPLERS, Settings

    scheduler = make_scheduler(Settings.sampler, pipe.scheduler.config)
    unet, vae = pipe.unet.config, pipe.vae.config
    weights, bias = fit_preview(pipe)
    return {
        "name": name,
        "files": FILES,
        "tokenizer": describe_tokenizer(pipe.tokenizer),
        "chinese": describe_chinese(),
        "alpha_bar": [float(f"{one:.9g}") for one in scheduler.alphas_cumprod.tolist()],
        "prediction_type": scheduler.config.prediction_type,
        "latents": {
            "channels": unet.in_channels,
            "side": unet.sample_size,
            "scale": vae.scaling_factor,
            "shift": vae.shift_factor or 0,
            "weights": weights,
            "bias": bias,
        },
        "side": made_for(unet, vae),
        "sampler": WEB_UI_SAMPLERS[Settings.sampler],
        "defaults": {"steps": Settings.steps, "guidance": Settings.guidance, "seed": Settings.seed},
        "most": {"steps": len(scheduler.alphas_cumprod), "guidance": 50, "seed": MOST_SEED},
    }


def describe_tokenizer(tokenizer) -> dict:
    """Return tokens in the order of their ids, merges in the order of their ranks, and the words that were taught."""
    from course_utils.text import prompts
    from course_utils.text.tokens import known_words

    state = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    vocabulary = tokenizer.get_vocab()
    taught = known_words(tokenizer)
    return {
        "tokens": sorted(vocabulary, key=vocabulary.__getitem__),
        "merges": [list(pair) for pair in state["merges"]],
        "start": tokenizer.bos_token_id,
        "end": tokenizer.eos_token_id,
        "pad": tokenizer.pad_token_id,
        "length": tokenizer.model_max_length,
        "words": sorted(taught or prompts.whole_word_tokens(tokenizer)),
        "only_in": {word: phrase for word, phrase in prompts.ONLY_IN.items() if word in taught},
        "colours": sorted(prompts.COLOURS),
    }


def describe_chinese() -> dict:
    """Return the dictionary of Chinese prompts, and the English that is made of them."""
    from course_utils.data.picture_book import captions, chinese

    names = {kind: captions.NAMES[kind][0] for kind in chinese.SUBJECTS}
    return {
        "words": chinese.WORDS,
        "subjects": [words.split()[0] for words in chinese.SUBJECTS.values()],
        "names": {kind: [name, captions.plural(name)] for kind, name in names.items()},
        "numbers": captions.NUMBERS,
        "places": {place: words[0] for place, words in captions.PLACE_WORDS.items()},
        "styles": {style: words[-1 if style == "picture book" else 1] for style, words in captions.STYLE_WORDS.items()},
        "opposite": chinese.OPPOSITE,
    }


def fit_preview(pipe) -> tuple[list, list]:
    """Return the weights (3, c) and bias (3,) by which a page shows latents as colours before they are decoded."""
    import torch

    from course_utils.data import picture_book as book
    from course_utils.diffusion.latents import encode, fit_colours

    scenes = (book.sample_scene(number, seed=PREVIEW_DATA_SET) for number in range(PREVIEW_PAGES))
    pages = book.pictures(scenes, size=pipe.vae.config.sample_size)
    with torch.no_grad():
        weights, bias = fit_colours(encode(pipe.vae, pages), pages)
    return [[round(one, 5) for one in row] for row in weights.tolist()], [round(one, 5) for one in bias.tolist()]


if __name__ == "__main__":  # the graphs again, for another architecture of the shipped model
    from course_utils.pipelines.picture_book import load_picture_book
    from course_utils.pipelines.quick import GRAPHS

    write_graphs(load_picture_book(), GRAPHS)
