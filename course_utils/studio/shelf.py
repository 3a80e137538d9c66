"""What there is to draw with: folders of models, and LoRAs in a folder."""

import threading
from pathlib import Path

from course_utils.machine.devices import pick_device
from course_utils.pipelines.model_folder import read_configurations
from course_utils.pipelines.picture_book import PICTURE_BOOK, load_picture_book, made_for
from course_utils.pipelines.png_info import Settings
from course_utils.systems import found_in

SHIPPED, STABLE_DIFFUSION = "picture book", "Stable Diffusion v1.5"
LARGE = 256  # pixels: models for such pictures are loaded as Stable Diffusion, planned for the memory there is


class Shelf:
    """Models by name, loaded when they are first asked for; the last one is kept.

    runs: a folder with the learner's own models. own: one more folder. loras: a folder of .safetensors files.
    load(name) may be called from several threads. `lock` is to be held while a model draws: LoRAs change it meanwhile.
    """

    def __init__(
        self, runs: Path | str = "runs", own: Path | str | None = None, loras: Path | str | None = None, device=None
    ):
        self.runs, self.own = Path(runs), None if own is None else Path(own)
        self.lora_folder = self.runs / "lora" if loras is None else Path(loras)
        self.lock, self.device = threading.RLock(), device
        self._loaded: tuple | None = None

    def models(self) -> dict[str, Path | str]:
        """Name -> folder of each model that is there (for Stable Diffusion v1.5, its name on the Hub)."""
        found: dict[str, Path | str] = {}
        if self.own is not None:
            found[str(self.own)] = self.own
        found[SHIPPED] = PICTURE_BOOK
        for index in sorted(self.runs.glob("*/model_index.json")):
            if found_in(index.parent) == Settings.system:  # the studio's settings are that system's
                found[str(index.parent)] = index.parent
        if _is_fetched():
            from course_utils.pipelines.stable_diffusion import MODEL_ID

            found[STABLE_DIFFUSION] = MODEL_ID
        return found

    def loras(self) -> list[Path]:
        """The LoRA files, by name; [] where there is no such folder."""
        return sorted(self.lora_folder.glob("*.safetensors"))

    def load(self, name: str):
        """Return the pipeline of that name, on the device (None: the best there is), ready to draw.

        Raises ValueError, in one sentence, for an unknown name and for what cannot be loaded.
        """
        models = self.models()
        if name not in models:
            raise ValueError(f"There is no model {name!r}: choose one of {', '.join(models)}.")
        with self.lock:
            if self._loaded is None or self._loaded[0] != name:
                self._loaded = None  # its memory goes before the next one comes
                self._loaded = (name, self._load(models[name]))
            return self._loaded[1]

    def _load(self, folder: Path | str):
        device = pick_device(quiet=True) if self.device is None else self.device
        if isinstance(folder, Path):
            configurations = read_configurations(folder)
            if made_for(configurations["unet"], configurations["vae"]) < LARGE:
                return load_picture_book(folder, device)
        from course_utils.pipelines.stable_diffusion import load_stable_diffusion

        return load_stable_diffusion(folder, device, local_files_only=True, say=lambda line: None)


def _is_fetched() -> bool:
    """Whether Stable Diffusion v1.5 lies in the Hub's cache on this computer."""
    from huggingface_hub import try_to_load_from_cache

    from course_utils.pipelines.stable_diffusion import MODEL_ID, REVISION

    return isinstance(try_to_load_from_cache(MODEL_ID, "model_index.json", revision=REVISION), str)
