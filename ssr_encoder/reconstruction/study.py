"""The study: one run for every setting and seed, each in a folder of its own, resumed and never repeated.

``OUT/runs/A-0/`` holds ``settings.json`` (written first), ``state.pt`` while it trains, and at the end
``model.safetensors`` (the decoder, and in C the trained layer), ``examples.safetensors`` and ``run.json`` (the last).
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..errors import SSRError
from ..files import write_json, written_beside
from ..loading import fingerprint
from .config import SETTINGS, StudyConfig
from .encoders import StudyEncoder, load_encoder, scales
from .measure import alignment, perceptual, quality
from .pairs import Pairs, load_pairs
from .run import Run

FORMAT = "ssr-reconstruction-1"


@dataclass
class Progress:
    """Where a run is. ``figures`` are there when it is finished; ``loss`` is the mean since the last report."""

    setting: str
    seed: int
    step: int
    steps: int
    loss: float = 0.0
    figures: dict[str, float] | None = None
    skipped: bool = False  # it was there already


class Study:
    """The runs of ``settings`` and ``seeds`` in ``out``; what is finished there is not repeated.

    Args:
        encoders: "clip" and "dino" if they are loaded already (tests); otherwise loaded when first needed.
        pairs: the same.
        save_every, report_every: seconds.
    """

    def __init__(
        self,
        config: StudyConfig,
        out: Path,
        device: torch.device | str = "cpu",
        encoders: dict[str, StudyEncoder] | None = None,
        pairs: Pairs | None = None,
        save_every: float = 60.0,
        report_every: float = 5.0,
    ):
        self.config, self.out, self.device = config, Path(out), torch.device(device)
        self.encoders = {name: encoder.to(self.device) for name, encoder in (encoders or {}).items()}
        self.save_every, self.report_every = save_every, report_every
        self._pairs, self._distance = pairs, None
        self._prints: dict[str, str] = {}
        self._alignment: dict[str, dict[str, float]] = {}

    def encoder(self, setting: str) -> StudyEncoder:
        kind = "dino" if setting == "B" else "clip"
        if kind not in self.encoders:
            self.encoders[kind] = load_encoder(self.config, kind).to(self.device)
        encoder = self.encoders[kind]
        if kind == "dino" and encoder.size != self.encoder("A").size:
            sizes = f"{encoder.size} pixels, CLIP of {self.encoder('A').size}"
            raise SSRError(f"{encoder.name} reads pictures of {sizes}; give encoders of one size")
        if kind not in self._prints:
            self._prints[kind] = fingerprint(encoder)
        return encoder

    @property
    def pairs(self) -> Pairs:
        if self._pairs is None:
            self._pairs = load_pairs(self.config, self.encoder("A").size, self.device)
        return self._pairs

    @property
    def distance(self):
        """PS: made once."""
        if self._distance is None:
            self._distance = perceptual(self.config, self.device)
        return self._distance

    def settings(self, setting: str, seed: int) -> dict:
        """All that determines a run's figures, as JSON values; no path, time or device."""
        encoder = self.encoder(setting)
        keys = dataclasses.asdict(self.config)
        for place in ("clip", "dino", "data", "test_data", "imagenet"):
            del keys[place]  # what is there counts, not where: see encoder_sha256 and pairs
        return {
            "format": FORMAT,
            "setting": setting,
            "seed": seed,
            **keys,
            "hidden_layers": scales(self.config, encoder.depth) if setting == "D" else [encoder.depth],
            "encoder": encoder.name,
            "encoder_sha256": self._prints["dino" if setting == "B" else "clip"],
            "ps": self.distance.name,
            "pairs": self.pairs.describe(),
        }

    def run(self, settings: list[str], seeds: list[int]) -> Iterator[Progress]:
        """Train and measure what is missing; seeds outermost, so that a stopped study has whole seeds.

        Raises:
            SSRError: a run in ``out`` has other settings (all are checked before any work), or an unknown setting.
        """
        unknown = [setting for setting in settings if setting not in SETTINGS]
        if unknown:
            raise SSRError(f"setting {unknown[0]!r} is unknown; known: {', '.join(SETTINGS)}")
        for setting in settings:
            self.encoder(setting)  # a missing one is found before hours of work
        plan = [(setting, seed) for seed in seeds for setting in settings]
        for setting, seed in plan:
            self._check(setting, seed)
        for setting, seed in plan:
            yield from self._one(setting, seed)

    def folder(self, setting: str, seed: int) -> Path:
        return self.out / "runs" / f"{setting}-{seed}"

    def _check(self, setting: str, seed: int) -> None:
        path = self.folder(setting, seed) / "settings.json"
        if not path.is_file():
            return
        then, now = read_json(path), json.loads(json.dumps(self.settings(setting, seed)))
        changed = [key for key in {**then, **now} if then.get(key) != now.get(key)]
        if changed:
            key = changed[0]
            was, new = (str(values.get(key))[:60] for values in (then, now))
            raise SSRError(f"{path.parent} is a run with {key} {was}, not {new}; give another --output, or delete it")

    def _one(self, setting: str, seed: int) -> Iterator[Progress]:
        folder, config = self.folder(setting, seed), self.config
        if (folder / "run.json").is_file():
            figures = read_json(folder / "run.json")["figures"]
            yield Progress(setting, seed, config.steps, config.steps, figures=figures, skipped=True)
            return
        folder.mkdir(parents=True, exist_ok=True)
        settings = self.settings(setting, seed)
        write_json(folder / "settings.json", settings)
        run = Run(config, setting, seed, self.encoder(setting), self.device)
        if (folder / "state.pt").is_file():
            run.load_state(folder / "state.pt")
        begun = saved = reported = time.monotonic()
        first, losses = run.step, []
        while run.step < config.steps:
            losses.append(run.take_step(self.pairs))
            now = time.monotonic()
            if not torch.isfinite(torch.tensor(losses[-1])):
                raise SSRError(f"the loss of {setting}, seed {seed}, is not finite at step {run.step}; lower the rate")
            if now - saved >= self.save_every:
                run.save_state(folder / "state.pt")
                saved = now
            if now - reported >= self.report_every or run.step == config.steps:
                yield Progress(setting, seed, run.step, config.steps, sum(losses) / len(losses))
                losses, reported = [], now
        run.save_state(folder / "state.pt")  # measuring takes its time too
        took = time.monotonic() - begun
        figures = self._measure(run)
        with written_beside(folder / "model.safetensors") as path:
            save_file({key: value.contiguous().cpu() for key, value in run.trained().items()}, path)
        with written_beside(folder / "examples.safetensors") as path:
            save_file(self._examples(run), path)
        record = {"format": FORMAT, "settings": settings, "figures": figures, "device": self.device.type}
        write_json(folder / "run.json", record | {"seconds": round(took, 1), "steps_timed": config.steps - first})
        (folder / "state.pt").unlink()
        yield Progress(setting, seed, config.steps, config.steps, figures=figures)

    def _measure(self, run: Run) -> dict[str, float]:
        batch = self.config.test_batch
        figures = quality(run.reconstruct, self.distance, self.pairs.test(batch))
        if run.setting == "C":
            return figures | alignment(run.encoder, self.pairs, batch)
        # Untouched encoders and the same held-out pairs: the same for every seed.
        if run.encoder.name not in self._alignment:
            self._alignment[run.encoder.name] = alignment(run.encoder, self.pairs, batch)
        return figures | self._alignment[run.encoder.name]

    def _examples(self, run: Run) -> dict[str, Tensor]:
        pictures = next(iter(self.pairs.test(self.config.test_batch)))[0][: self.config.examples]
        both = {"originals": pictures, "reconstructions": run.reconstruct(pictures)}
        return {key: (value * 255).round().byte().cpu().contiguous() for key, value in both.items()}


def read_json(path: Path) -> dict:
    """A file of a run; a damaged one is an SSRError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        raise SSRError(f"{path} is damaged; delete the folder {path.parent} to make that run again") from None
