"""A folder for any static server: the exported model, ONNX Runtime Web, the box's scripts, ready pictures."""

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from course_utils.files import new_file, new_folder

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
# The hash of the package's archive, as npm writes it into lock files.
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
# For each device the script that a page imports, and the WebAssembly that this one loads with a script of its own.
RUNTIMES = {
    "wasm": ("ort.wasm.min.mjs", "ort-wasm-simd-threaded"),
    "webgpu": ("ort.jspi.min.mjs", "ort-wasm-simd-threaded.jspi"),
}
LICENCES = ("LICENSE", "ThirdPartyNotices.txt")  # of ONNX Runtime, in its package for Python; npm's has none
RUNTIME, MODEL, GALLERY = "onnxruntime", "model", "gallery"
GALLERY_PROMPTS = {
    "a cute corgi puppy sitting on the grass": 0,
    "a red sailboat on the sea": 0,
    "a white rabbit in the snow, watercolour": 0,
    "a yellow duck in the meadow": 0,
    "a pink tulip under the stars, pixel art": 4,
    "three red mushrooms in the woods": 0,
    "an orange cat to the left of a green teapot": 2,
    "a purple cottage in the snow, coloured pencil": 1,
}


def write_box(folder: Path | str, model: Path | str | None = None, cache: Path | None = None) -> Path:
    """Write a box to draw with into `folder`: a static server needs no more to serve `folder/index.html`.

    All addresses are relative, so the folder works below any path; another page mounts the box with

        <div class="draw-box" data-model="draw/model/"></div>
        <script type="module" src="draw/draw.js"></script>

    model: a pipeline's folder; None: the shipped one. cache: where npm's archive is kept; None: build/ of the course.
    A folder that is there is replaced. Returns it.

    Raises ValueError if `folder` holds something else, and where npm or a package is missing.
    """
    from course_utils.pipelines.picture_book import PICTURE_BOOK, load_picture_book
    from course_utils.web.export import export_onnx

    folder = Path(folder)
    require_ready(folder)
    archive = fetch_runtime(cache or ROOT / "build")
    pipe = load_picture_book(model or PICTURE_BOOK)
    with new_folder(folder) as new:
        for path in HERE.iterdir():
            if path.suffix in (".js", ".css", ".html"):
                shutil.copy(path, new)
        unpack_runtime(archive, new / RUNTIME)
        export_onnx(pipe, new / MODEL)
        draw_gallery(pipe, new / GALLERY)
    return folder


def require_ready(folder: Path) -> None:
    """Raise ValueError if `folder` holds something else than a box to draw with, or if a package is missing."""
    from course_utils.web.export import require_packages

    if folder.exists() and not (folder.is_dir() and ((folder / RUNTIME).is_dir() or not any(folder.iterdir()))):
        raise ValueError(f"{folder} holds something else than a box to draw with: choose a new folder to write in.")
    require_packages("onnxruntime")


def fetch_runtime(cache: Path) -> Path:
    """Return the archive of ONNX Runtime Web, as npm packs it; from `cache` if it is there, and whole.

    Raises ValueError if npm is missing or fails, or if the archive's hash is not `INTEGRITY`.
    """
    archive = cache / f"{PACKAGE}-{VERSION}.tgz"
    if archive.exists() and integrity(archive) == INTEGRITY:
        return archive
    npm = shutil.which("npm")
    if npm is None:
        raise ValueError("npm is missing, which fetches ONNX Runtime Web: install Node.js 20 or newer.")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--pack-destination", place, "--silent"]
        run = subprocess.run(command, cwd=place, capture_output=True, text=True)
        fetched = Path(place, archive.name)
        if run.returncode != 0 or not fetched.exists():
            reason = (run.stderr.strip().splitlines() or ["no reason is given"])[0]
            raise ValueError(f"npm cannot fetch {PACKAGE}@{VERSION} ({reason}): look at the network, then try again.")
        if integrity(fetched) != INTEGRITY:
            raise ValueError(f"{PACKAGE}@{VERSION} has the hash {integrity(fetched)}, but {INTEGRITY} is expected.")
        with new_file(archive) as part:
            shutil.copy(fetched, part)
    return archive


def integrity(path: Path) -> str:
    """The SHA-512 of a file, as npm writes it."""
    return "sha512-" + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()


def unpack_runtime(archive: Path, folder: Path) -> None:
    """Write the few files of ONNX Runtime Web that a page needs, its licences, and `runtime.json`, which lists them."""
    import onnxruntime

    folder.mkdir()
    runtimes = {}
    with tarfile.open(archive) as package:
        for device, (script, name) in RUNTIMES.items():
            for file in (script, f"{name}.mjs", f"{name}.wasm"):
                content = package.extractfile(f"package/dist/{file}")
                assert content is not None
                (folder / file).write_bytes(content.read())
            size = (folder / f"{name}.wasm").stat().st_size
            runtimes[device] = {"script": script, "wasm": f"{name}.wasm", "bytes": size}
    (folder / "runtime.json").write_text(json.dumps({"version": VERSION} | runtimes, indent=2), encoding="utf-8")
    for name in LICENCES:
        shutil.copy(Path(onnxruntime.__file__).parent / name, folder)


def draw_gallery(pipe, folder: Path) -> None:
    """Draw the pictures that are there before the model is loaded, and where it cannot be, and list them in JSON."""
    from course_utils.pipelines.picture_book import draw
    from course_utils.pipelines.png_info import Settings, default_name, write_png

    folder.mkdir()
    listed = []
    for prompt, seed in GALLERY_PROMPTS.items():
        ((picture, made),) = draw(pipe, Settings(prompt, seed=seed))
        write_png(folder / default_name(prompt), picture, made)
        listed.append({"file": default_name(prompt), "prompt": prompt, "seed": seed, "steps": made.steps,
                       "guidance": made.guidance})  # fmt: skip
    (folder / "pictures.json").write_text(json.dumps(listed, indent=2), encoding="utf-8")
