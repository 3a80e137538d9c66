"""The model in a browser, without one: ONNX against torch, and the box's scripts, run by node, against the package."""

import functools
import json
import os
import random
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from needs import needs
from PIL import Image
from test_chinese_prompts import first, in_chinese
from test_cli import refused, run

from course_utils.data import picture_book as book
from course_utils.data.picture_book import chinese
from course_utils.language import is_chinese, translated
from course_utils.pipelines.attention_maps import recorded_maps
from course_utils.pipelines.picture_book import load_picture_book, make_scheduler
from course_utils.pipelines.png_info import Settings, format_parameters, read_png
from course_utils.pipelines.quick import GRAPHS
from course_utils.text.prompts import inspect_prompt
from course_utils.text.tokens import tokenize
from course_utils.web import assets, export

WEB = Path(export.__file__).parent
NODE = shutil.which("node")
PACKAGES = [find_spec(name) is not None for name in ("onnx", "onnxscript", "onnxruntime")]
needs_node = needs(NODE is not None, "no node is installed: install Node.js 20 or newer")
needs_onnx = needs(all(PACKAGES), "no onnx is installed: pip install -c constraints.txt onnx onnxscript onnxruntime")

TEXTS = [
    "", " ", "a red ball", "A  RED\tball\n on the\u00a0beach", "  a cat  ", "ein süßes Kätzchen", "e\u0301 and \u00e9",
    "猫 在草地上", "🐕 a corgi 🐕\u200d🦺!!", "it's we'll I'M they've he'd", "don't 'quote' \"this\"", "x1y2 3½ Ⅷ ٣",
    "a_b-c--d...", "İstanbul ΟΔΟΣ straße", "\u0085a\u2003b\ufeffc\u200bd", "<|endoftext|> a cat <|startoftext|>",
    "<|ENDOFTEXT|> a cat", "a cat" * 40, "the " * 60 + "red ball", "ﬁne ǅ Å K \u212b", "\U0001d54f\u0300\u0301",
    "a\x1cb", "'sun 's 'Tis", "!'s ?'ll", "a red ball\r\non a beach",
]  # fmt: skip


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """A function that returns what an expression over `data` and the scripts' names is in node."""
    folder = tmp_path_factory.mktemp("scripts")
    for path in WEB.glob("*.js"):
        shutil.copy(path, folder)
    (folder / "package.json").write_text('{"type": "module"}')  # as a browser is told by its page
    return functools.partial(run_in_node, folder)


def run_in_node(folder, code, data, *scripts):
    imports = "".join(f'import * as {name} from "./{name}.js";' for name in scripts)
    script = f"""{imports}
        import {{ readFileSync, writeFileSync }} from "node:fs";
        const data = JSON.parse(readFileSync(0, "utf8"));
        const all = async (steps) => {{
            const found = [];
            for await (const one of steps) found.push(one);
            return found;
        }};
        process.stdout.write(JSON.stringify(await ({code})));"""
    (folder / "test.js").write_text(script, encoding="utf-8")
    command = [NODE, "--no-warnings", str(folder / "test.js")]
    run = subprocess.run(command, input=json.dumps(data), capture_output=True, text=True, encoding="utf-8")
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.fixture(scope="module")
def pipe():
    return load_picture_book()


@pytest.fixture(scope="module")
def described(pipe):
    return export.describe_tokenizer(pipe.tokenizer)


@pytest.fixture(scope="module")
def exported(pipe, tmp_path_factory):
    return export.export_onnx(pipe, tmp_path_factory.mktemp("exported") / "model")


def inputs_of(part, batch):
    """Inputs of a network for `batch` pictures, other than those it was exported with."""
    generator = torch.Generator().manual_seed(batch)
    latents = torch.randn(batch, 8, 16, 16, generator=generator)
    return {
        "text_encoder": {"tokens": torch.randint(0, 848, (batch, 32), generator=generator, dtype=torch.int32)},
        "unet": {"x_t": latents, "t": torch.tensor(421.0), "cond": torch.randn(batch, 32, 128, generator=generator)},
        "decoder": {"z": latents},
    }[part]


@needs_onnx
@pytest.mark.parametrize("part", export.FILES)
def test_a_network_is_torchs(part, pipe, exported):
    import onnxruntime

    session = onnxruntime.InferenceSession(exported / export.FILES[part])
    module = export.networks(pipe)[part][0].eval()
    exact = {name: weights.clone() for name, weights in module.state_dict().items()}
    for batch in (1, 3):
        inputs = inputs_of(part, batch)
        got = torch.from_numpy(session.run(None, {name: value.numpy() for name, value in inputs.items()})[0])
        with torch.no_grad():
            if part == "text_encoder":  # the one part of the shipped model that is not in float16 already
                assert (got - module(**inputs)).abs().max() < 5e-3
                module.load_state_dict({name: weights.half().float() if weights.is_floating_point() else weights
                                        for name, weights in exact.items()})  # fmt: skip
            assert (got - module(**inputs)).abs().max() < 1e-4
            module.load_state_dict(exact)


@needs_onnx
def test_the_maps_are_those_that_are_recorded(pipe, exported):
    import onnxruntime

    inputs = inputs_of("unet", 3)
    session = onnxruntime.InferenceSession(exported / export.FILES["unet"])
    got = torch.from_numpy(session.run(["maps"], {name: value.numpy() for name, value in inputs.items()})[0])
    with torch.no_grad(), recorded_maps(pipe.unet, 3) as maps:
        pipe.unet(inputs["x_t"], inputs["t"], inputs["cond"])
    layer = next(layer for layer in maps if layer.startswith("up"))
    assert (got - maps[layer][0].mean(1).transpose(1, 2)).abs().max() < 1e-4
    assert torch.allclose(got.sum(1), torch.ones(3, 64), atol=1e-4)


@needs_node
def test_words_know_their_tokens(pipe, described, node):
    prompts = ["a red ball left of a white cat", "A  CORGI, 3 zyzzyva's", "", "柯基 on the grass " + "red " * 40]
    code = "data[1].map((prompt) => new tokenizer.Tokenizer(data[0]).words(prompt))"
    found = node(code, [described, prompts], "tokenizer")
    for prompt, words in zip(prompts, found, strict=True):
        ids = pipe.tokenizer(prompt, truncation=True, max_length=32).input_ids
        for word in words:
            assert word["first"] >= 1 and word["first"] + word["count"] < len(ids)
            own = ids[word["first"] : word["first"] + word["count"]]
            assert pipe.tokenizer.decode(own).replace(" ", "") == word["word"]
    assert [word["word"] for word in found[0]] == prompts[0].split()
    assert [word["word"] for word in found[1]][:2] == ["a", "corgi"] and found[2] == [] and len(found[3]) < 31


@needs_node
def test_shading_follows_the_map(node):
    maps, pixels = [[9] * 4, [1, 1, 0, 0], [0, 1, 0, 0]], [200, 100, 50, 255] * 16
    code = "[attention.mapOf(data[0], {first: 1, count: 2}), [...attention.shaded(data[1], 4, data[0][1])]]"
    together, shown = node(code, [maps, pixels], "attention")
    assert together == [1, 2, 0, 0]
    rows = [shown[16 * row : 16 * row + 4] for row in range(4)]
    assert rows[0] == [200, 100, 50, 255] and rows[3] == [30, 15, 8, 255]  # 15% of it where the map is least
    assert rows[0][0] > rows[1][0] > rows[2][0] > rows[3][0]


@needs_onnx
def test_graphs_have_no_weights_and_are_those_that_generate_draws_with(pipe, tmp_path, monkeypatch):
    import onnx

    module, *rest = export.networks(pipe)["decoder"]  # the others are written by the same lines, and take longer
    monkeypatch.setattr(export, "networks", lambda pipe: {"decoder": (module, *rest)})
    export.write_graphs(pipe, tmp_path)
    written, shipped = (onnx.load(home / "decoder.onnx", load_external_data=False) for home in (tmp_path, GRAPHS))
    for model in (written, shipped):
        assert {weight.name for weight in model.graph.initializer} < set(module.state_dict())
        assert not any(weight.raw_data for weight in model.graph.initializer)
    assert [node.op_type for node in written.graph.node] == [node.op_type for node in shipped.graph.node]


@needs_onnx
def test_what_is_exported_is_small_and_holds_no_pickle(exported):
    assert {path.name for path in exported.iterdir()} == {*export.FILES.values(), "model.json"}
    sizes = {path.name: path.stat().st_size for path in exported.iterdir()}
    assert sum(sizes.values()) <= 25e6
    description = json.loads((exported / "model.json").read_text(encoding="utf-8"))
    assert description["bytes"] == {name: sizes[name] for name in export.FILES.values()}
    assert description["name"] == "picture_book" and description["prediction_type"] == "v_prediction"


@needs_onnx
def test_an_export_replaces_a_model_and_nothing_else(exported, tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(ValueError, match="holds something else than an exported model"):
        export.export_onnx(None, tmp_path)


def test_missing_packages_are_said(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="The package onnx is missing: .* run pip install"):
        export.require_packages()


@needs_onnx
@needs_node
def test_weights_in_single_precision(exported, tmp_path, node):
    """The page's own widening of the weights: the same numbers, and the casts are gone."""
    import onnx

    whole = tmp_path / "decoder.onnx"
    code = "writeFileSync(data[1], weights.inSinglePrecision(new Uint8Array(readFileSync(data[0]))))"
    node(f"({code}) ?? null", [str(exported / "decoder.onnx"), str(whole)], "weights")
    before, after = onnx.load(exported / "decoder.onnx"), onnx.load(whole)
    onnx.checker.check_model(after)
    assert {one.name for one in before.graph.node} - {one.name for one in after.graph.node} == {
        one.name for one in before.graph.node if one.op_type == "Cast"
    }
    halves, singles = (
        {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer} for model in (before, after)
    )
    assert {name.removesuffix(".half") for name in halves} == set(singles)
    for name, numbers in halves.items():
        assert (numbers == singles[name.removesuffix(".half")]).all()
    assert all(numbers.dtype != "float16" for numbers in singles.values())


@needs_node
def test_tokens(pipe, described, node):
    captions = [book.caption(book.sample_scene(number), number).text for number in range(1000)]
    texts = captions + TEXTS + [chr(code) for code in range(0x300)]  # each byte is in one of these
    code = "data[1].map((text) => [...new tokenizer.Tokenizer(data[0]).encode(text)])"
    got = node(code, [described, texts], "tokenizer")
    for text, tokens, expected in zip(texts, got, tokenize(pipe.tokenizer, texts).tolist(), strict=True):
        assert tokens == expected, repr(text)


@needs_node
def test_advice(pipe, described, node):
    prompts = [text for text in TEXTS if text.strip() and "\u0085" not in text and "<|" not in text] + [
        "a turquoise cat on the gras", "a dog", "a living corgi dog", "one unicorn two three fore fife sicks seven ate",
        "a kiten wearing a hat", "1 2 3", "ball " * 35, "mauve magenta", "a puppie and a sailbot near a toadstol",
        "a red ball on the beach " * 8, "O'Hara's cat",
    ]  # fmt: skip
    got = node(
        "data[1].map((text) => prompts.advice(new tokenizer.Tokenizer(data[0]), text))", [described, prompts],
        "tokenizer", "prompts",
    )  # fmt: skip
    for prompt, sentences in zip(prompts, got, strict=True):
        text = prompt if "  " not in prompt else " ".join(prompt.split())
        assert sentences == inspect_prompt(pipe.tokenizer, text).advice(), repr(prompt)


@needs_node
def test_advice_in_chinese_is_the_packages(pipe, described, node):
    prompts = [
        "a turquoise cat on the gras", "a dog", "one unicorn two three fore fife sicks seven ate", "1 2 3",
        "a puppie and a sailbot near a toadstol", "ball " * 35,
    ]  # fmt: skip
    got = node(
        "data[1].map((text) => prompts.advice(new tokenizer.Tokenizer(data[0]), text, words.speaker('zh-CN')))",
        [described, prompts], "tokenizer", "prompts", "words",
    )  # fmt: skip
    for prompt, sentences in zip(prompts, got, strict=True):
        expected = [translated(sentence, "zh") for sentence in inspect_prompt(pipe.tokenizer, prompt).advice()]
        for english, joint in ((", ", "、"), (" and ", " 和 "), (" or ", " 或 "), ("说不准.", "说不准。")):
            expected = [sentence.replace(english, joint) for sentence in expected]
        assert sentences == expected, prompt


@needs_node
def test_all_that_the_box_says_is_said_in_chinese(node):
    scripts = [path.read_text(encoding="utf-8") for path in WEB.glob("*.js") if path.name != "words.js"]
    said = [text for script in scripts for text in re.findall(r'\bsay\(\s*"([^"]+)"', script)]
    assert len(said) == sum(len(re.findall(r"\bsay\(", script)) for script in scripts)  # each is a template
    table = node("words.CHINESE", None, "words")
    assert set(table) == set(said)
    for english, sentence in table.items():
        places = re.compile(r"\{\w+\}")
        assert sorted(places.findall(english)) == sorted(places.findall(sentence)), english
        assert re.search("[\u3400-\u9fff。、]", sentence) and not re.search("[\u3400-\u9fff][,;:?!]", sentence), (
            sentence
        )


@needs_node
def test_the_language_is_that_of_the_page(node):
    code = "data.map((language) => words.speaker(language)('Step {step} of {steps}', { step: 1, steps: 20 }))"
    said = node(code, ["en", "de", "zh-CN", "zh"], "words")
    assert said == ["Step 1 of 20"] * 2 + ["第 1 步，共 20 步"] * 2


def chinese_prompts():
    """Prompts of all kinds: combinations of the dictionary's words, pairs of subjects, those that people write."""
    rng = random.Random(0)
    poses, sides = (None, *chinese.POSES), [word for words in chinese.SIDES.values() for word in words.split()]

    def thing():
        return book.Thing(rng.choice([*chinese.SUBJECTS]), rng.choice((None, *chinese.COLOURS)))

    for _ in range(1500):
        pose, place, style = rng.choice(poses), rng.choice([*chinese.PLACES]), rng.choice([*chinese.STYLES])
        manner = f"{first(chinese.POSES, pose)}着，" if pose else ""
        where = f"在{first(chinese.PLACES, place)}，{first(chinese.STYLES, style)}"
        yield f"{in_chinese(thing(), rng.choice([*chinese.COUNTS]))}{manner}{where}"
    for _ in range(500):
        a, b, side = in_chinese(thing(), 1), in_chinese(thing(), 1), rng.choice(sides)
        yield rng.choice((f"{a}在{b}的{side}，雪地里", f"{a}在{side}，{b}在右边", f"{b}的{side}是{a}", f"{a} 和 {b}"))
    for _ in range(500):  # words in any order
        yield "".join(rng.choices([*chinese.WORDS, "恐龙", "飞", "dragon", " ", "🐕", "a cat", "constructor"], k=8))
    yield from (
        "", " ", "猫", "恐龙", "雪地里", "水彩", "一只恐龙和一只猫在城市里", "一只 red 猫 on the grass",
        "🐕一只柯基🐕\u200d🦺", "请帮我画一幅画：雪地里有两只白色的兔子。", "水彩画：森林里的一座房子", "a red ball",
        "夜晚，一辆红色的小汽车停在蓝色房子的左边", "constructor 猫 toString __proto__", "猫\t在\n草地上", "𠀀猫",
        "貓 在草地上", "三只橙色的鸭子睡在沙滩上",
    )  # fmt: skip


@needs_node
def test_chinese_prompts_are_turned_into_the_packages_english(node):
    prompts = list(chinese_prompts())
    code = """data[1].map((prompt) => {
        const { text, unknown } = chinese.toEnglish(prompt, data[0]);
        let fault = null;
        try { chinese.requireEnglish(prompt, data[0], words.speaker()); } catch (error) { fault = error.message; }
        return { is: chinese.isChinese(prompt), text, unknown, fault };
    })"""
    faults = 0
    for prompt, got in zip(prompts, node(code, [export.describe_chinese(), prompts], "chinese", "words"), strict=True):
        english, fault = chinese.to_english(prompt), None
        try:
            chinese.require_english(prompt)
        except ValueError as error:
            fault = str(error)
            faults += 1
        expected = {"is": is_chinese(prompt), "text": english.text, "unknown": english.unknown, "fault": fault}
        assert got == expected, prompt
    assert len(prompts) > 2000 and 10 < faults < 500


@needs_node
@pytest.mark.parametrize("count", [16, 17, 40, 2048])
def test_noise_is_torchs(count, node):
    seeds = [0, 1, 7, 123456789, 2**31, 2**32 - 1]
    got = torch.tensor(node(f"data.map((seed) => [...noise.randn({count}, seed)])", seeds, "noise"))
    expected = torch.stack([torch.randn(count, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    assert (got - expected).abs().max() < 1e-6


@needs_node
def test_times_are_the_schedulers(pipe, node):
    scheduler = make_scheduler("unipc", pipe.scheduler.config)
    counts = [*range(1, 200), 333, 500, 999, 1000]
    for count, times in zip(
        counts, node("data.map((n) => sampler.trailingTimes(1000, n))", counts, "sampler"), strict=True
    ):
        scheduler.set_timesteps(count)
        assert times == scheduler.timesteps.tolist()


@needs_node
@pytest.mark.parametrize("kind", ["v_prediction", "epsilon", "sample"])
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 20, 50])
def test_the_sampler_is_the_packages(kind, steps, pipe, node):
    scheduler = make_scheduler("unipc", {**pipe.scheduler.config, "prediction_type": kind})
    scheduler.set_timesteps(steps)
    noise = torch.randn(64, generator=torch.Generator().manual_seed(0))
    code = """all(sampler.unipc({
        noise: Float32Array.from(data.noise), alphaBar: data.alphaBar, kind: data.kind,
        times: sampler.trailingTimes(1000, data.steps),
        predict: async (x, t) => x.map((one) => 0.5 * Math.sin(2 * one + t / 300)),
    })).then((found) => [...found.at(-1).x])"""
    data = {"noise": noise.tolist(), "alphaBar": scheduler.alphas_cumprod.tolist(), "kind": kind, "steps": steps}
    x = noise[None]
    for t in scheduler.timesteps:
        x = scheduler.step(0.5 * (2 * x + t / 300).sin(), t, x).prev_sample
    got = torch.tensor(node(code, data, "sampler"))
    assert ((got - x[0]).abs() / (1 + x[0].abs())).max() < 1e-4


@needs_node
def test_guidance(node):
    got = node("[...sampler.guide(Float32Array.of(1, 2), Float32Array.of(3, 1), 4)]", None, "sampler")
    assert got == [1 + 4 * 2, 2 - 4]


@needs_node
@pytest.mark.parametrize("prompt", ["a red ball", "ein süßer Ball", "猫 🐕", 'two, "quoted": words\nin two lines'])
def test_a_png_remembers_its_settings(prompt, tmp_path, node):
    pixels = [value for place in range(16) for value in (place, 2 * place, 255 - place, 255)]
    path = tmp_path / "a.png"
    data = {"prompt": prompt, "seed": 7, "steps": 12, "guidance": 2.5, "pixels": pixels, "path": str(path)}
    code = """png.encodePng(
        Uint8ClampedArray.from(data.pixels), 4, png.parameters({ ...data, sampler: "UniPC", side: 4, model: "a, b" }),
    ).then((bytes) => writeFileSync(data.path, bytes) ?? null)"""
    node(code, data, "png")
    made = Settings(prompt, seed=7, steps=12, guidance=2.5, width=4, height=4, model="a, b")
    assert read_png(path) == made
    picture = Image.open(path)
    assert picture.info["parameters"] == format_parameters(made)
    assert list(picture.convert("RGBA").tobytes()) == pixels


@needs_node
@pytest.mark.parametrize(
    "typed, sentence",
    [
        ({"prompt": "  "}, "The prompt is empty"),
        ({"prompt": "a cat\nNegative prompt: dogs"}, "leave out negative prompts"),
        ({"seed": "-1"}, "The seed must be a whole number from 0 to 4294967295, but is “-1”."),
        ({"seed": ""}, "The seed must be a whole number"),
        ({"steps": "0"}, "The number of steps must be a whole number from 1 to 1000, but is “0”."),
        ({"steps": "2.5"}, "The number of steps must be a whole number"),
        ({"guidance": "0.5"}, "The guidance must be a number from 1 (no guidance) to 50, or 0"),
        ({"guidance": ""}, "The guidance must be a number"),
        ({"guidance": "51"}, "The guidance must be a number"),
    ],
)
def test_settings_that_cannot_be_drawn_with_are_said(typed, sentence, node):
    typed = {"prompt": "a cat", "seed": "7", "steps": "20", "guidance": "4", **typed}
    code = """(() => { try { return settings.read(data, { seed: 4294967295, steps: 1000, guidance: 50 }); }
        catch (error) { return error.message; } })()"""
    assert sentence in node(code, typed, "settings")


@needs_node
def test_a_link_gives_the_settings_back(node):
    made = {"prompt": "a cat & a #dog = 100% + 猫\n", "seed": "7", "steps": "20", "guidance": "2.5"}
    assert node("settings.fromHash(settings.toHash(data))", made, "settings") == made
    assert node("settings.fromHash('#chapter-3')", None, "settings") is None


def test_an_archive_with_another_hash_is_not_used(tmp_path, monkeypatch):
    (tmp_path / f"{assets.PACKAGE}-{assets.VERSION}.tgz").write_bytes(b"something else")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="npm is missing"):
        assets.fetch_runtime(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="the mock-up of npm is a shell script")
@pytest.mark.parametrize("script, words", [('echo other > "$4/NAME"', "is expected"), ("exit 1", "npm cannot fetch")])
def test_what_npm_brings_is_checked(script, words, tmp_path, monkeypatch):
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\n" + script.replace("NAME", f"{assets.PACKAGE}-{assets.VERSION}.tgz"))
    npm.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(npm))
    with pytest.raises(ValueError, match=words):
        assets.fetch_runtime(tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("options", [[], ["--page"]], ids=["model", "page"])
@needs_onnx
def test_the_command_replaces_nothing_else(options, tmp_path):
    (tmp_path / "thesis.txt").touch()
    refused(run("export-onnx", "--output", tmp_path, *options), "holds something else than")
    refused(run("export-onnx", "--output", tmp_path / "new", "--model", tmp_path, *options), "model_index.json")


@needs_onnx
def test_the_command_writes_a_model(tmp_path, monkeypatch):
    def write(pipe, folder):
        folder.mkdir()
        (folder / "model.json").write_bytes(bytes(2_500_000))

    monkeypatch.setattr(export, "export_onnx", write)
    result = run("export-onnx", "--output", tmp_path / "onnx")
    assert result.exit_code == 0 and result.stdout.splitlines()[-1] == f"Wrote {tmp_path / 'onnx'}: 2.5 MB"
