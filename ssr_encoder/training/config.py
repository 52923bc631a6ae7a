"""Every constant of a training run, in one commented place. Unknown keys are refused, never ignored.

A config is a preset's name or a YAML file, and then ``section.key=value`` words; a YAML file may begin with
``preset: paper`` and say only what differs.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..configs import cast, nearest, parse
from ..errors import SSRError
from ..extras import need

PRESETS = Path(__file__).parent / "presets"


@dataclass
class BaseConfig:
    """The frozen parts, and what the trained part begins as."""

    model: str = "stable-diffusion-v1-5/stable-diffusion-v1-5"  # "mini", a folder, hub id or single file; SDXL too
    kind: str = "auto"  # "sd" or "sdxl"; "auto" reads model_index.json (a single file is taken for "sd")
    image_encoder: str = "openai/clip-vit-large-patch14"  # CLIPVisionModel folder or hub id; "" is mini's own
    dtype: str = "float32"  # of the frozen UNet, text and vision encoders: float32, bfloat16, float16 (VAE: float32)
    init: str = ""  # encoder to start from: "mini", a folder, the two released files, hub id; "" is random weights
    hidden_layers: list[int] = field(default_factory=lambda: [4, 8, 12, 16, 20, 24])  # K scales, if init is ""
    heads: int = 8  # of the aligner, if init is ""
    head_dim: int = 64  # of one head, if init is ""


@dataclass
class DataConfig:
    """Shards, and what is done to a sample before it is seen."""

    shards: str = ""  # folder, glob or URLs ("s3://bucket/{0000..0099}.tar", "pipe:CMD"); several with "::" between
    resolution: int = 512  # pixels a side of the target
    crops: int = 1  # crops a picture has: 1 is the centre; more are fixed random places, one of them drawn each time
    flip: bool = True  # mirror half of the samples (release)
    prompt_drop: float = 0.8  # share of samples whose prompt is the empty text (release)
    subject_drop: float = 0.0  # share whose subject is guidance's unconditional one (empty query, zero picture)
    descriptor_query: float = 0.0  # share whose query is one of meta["descriptors"]; others: the caption (paper)
    window: int = 16  # shards whose samples are shuffled together; remote ones are kept on disk meanwhile
    workers: int = 4  # loader processes a GPU; 0 loads in the training process
    cache: str = ""  # folder of the feature cache, "" computes frozen features on the fly
    cache_dtype: str = "bfloat16"  # or float32: twice the room
    max_bad: float = 0.1  # stop when more than this share of the samples cannot be read


@dataclass
class ObjectiveConfig:
    """``L = L_LDM + tau * L_reg`` (paper, section 3.5)."""

    tau: float = 0.01  # weight of the embedding consistency regularisation (supplement F, Fig. 4a)
    weighting: str = "none"  # of L_LDM by timestep: none, min_snr (Hang et al. 2023), shifted (losses.snr_weight)
    snr_limit: float = 5.0  # gamma of min_snr and of shifted


@dataclass
class OptimConfig:
    """AdamW; a step takes ``batch_size`` samples in all, whatever the number of GPUs."""

    batch_size: int = 192  # global: 24 a GPU on 8 GPUs
    micro_batch: int = 24  # samples at a time on a GPU; a smaller one accumulates gradients and needs less memory
    steps: int = 1_000_000
    learning_rate: float = 5e-5
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    weight_decay: float = 0.01
    warmup: int = 0  # steps
    decay: float = 0.0  # last share of the steps in which the rate falls to zero in a straight line; 0: constant
    max_grad_norm: float = 1.0
    ema_decay: float = 0.0  # of averaged weights, which are then what is exported; 0: none


@dataclass
class RunConfig:
    """Where it is written, how it is computed and watched."""

    out: str = "runs/train"  # folder of the run; the same command goes on from what is there
    seed: int = 0
    precision: str = "no"  # mixed precision of accelerate: no, bf16, fp16
    gradient_checkpointing: bool = False  # of the UNet: slower, less memory
    compile: bool = False  # torch.compile the UNet
    deterministic: bool = True  # bit for bit on the same device; False lets CUDA choose faster kernels
    log_every: int = 50  # steps
    log_with: list[str] = field(default_factory=lambda: ["tensorboard"])  # and/or "wandb"; metrics.jsonl always
    save_every: int = 1000  # steps
    keep: int = 3  # checkpoints
    validation: str = ""  # shards with KEY.mask.png and a query in KEY.json: selection on held-out pictures
    validate_every: int = 0  # steps; 0: never
    validation_samples: int = 64


@dataclass
class TrainingConfig:
    """One run. See the sections."""

    base: BaseConfig = field(default_factory=BaseConfig)
    data: DataConfig = field(default_factory=DataConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self):
        _check(self)

    @classmethod
    def load(cls, source: str | Path, overrides: Iterable[str] = ()) -> TrainingConfig:
        """A preset's name or a YAML file, then ``section.key=value`` overrides.

        Raises:
            SSRError: no such file, not YAML, an unknown key (with the nearest known one), or an impossible value.
        """
        values = _read(source)
        for word in overrides:
            key, equals, text = word.partition("=")
            section, dot, name = key.partition(".")
            if not equals or not dot:
                raise SSRError(f"override {word!r} is not section.key=value, e.g. optim.steps=1000")
            _section(values, section)[name] = parse(word, text, "train")
        return cls.from_dict(values)

    @classmethod
    def from_dict(cls, values: dict) -> TrainingConfig:
        """From nested plain values; an unknown key is an :class:`SSRError` that names the nearest known one."""
        known = {f"{s.name}.{f.name}": f for s in dataclasses.fields(cls) for f in dataclasses.fields(_kind(cls, s))}
        sections = {}
        for section in dataclasses.fields(cls):
            kind, given = _kind(cls, section), _section(values, section.name)
            for name, value in given.items():
                key = f"{section.name}.{name}"
                if key not in known:
                    raise SSRError(f"unknown key {key} in the training config{_nearest(key, list(known))}")
                if key == "run.precision" and value is False:  # YAML's no
                    value = "no"
                given[name] = cast(key, value, typing.get_type_hints(kind)[name], "the training config")
            sections[section.name] = kind(**given)
        for name in values:
            if name not in sections:
                raise SSRError(f"unknown key {name} in the training config{_nearest(name, [*sections, *known])}")
        return cls(**sections)

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)

    def to_yaml(self) -> str:
        return need("yaml", "train").safe_dump(self.to_dict(), sort_keys=False)


# What defines the sequence of samples and the model; the rest may change between lives of a run.
_FIXED = ("base.model", "base.image_encoder", "base.init", "base.hidden_layers", "run.seed", "data.window")


def compare(then: dict, now: dict) -> list[str]:
    """A note for each setting that has changed since a run began.

    Raises:
        SSRError: one of those that a run cannot go on without.
    """
    notes = []
    for section, values in now.items():
        for name, value in values.items():
            before, key = then.get(section, {}).get(name, value), f"{section}.{name}"
            if before != value and key in _FIXED:
                raise SSRError(f"{key} was {before!r} when this run began, not {value!r}; choose another run.out")
            if before != value and section != "run":
                notes.append(f"{key} is now {value!r}, it was {before!r}: this is not the run it would have been")
    return notes


def _read(source: str | Path) -> dict:
    path = Path(source)
    names = sorted(p.stem for p in PRESETS.glob("*.yaml"))
    if str(source) in names:
        path = PRESETS / f"{source}.yaml"
    if not path.is_file():
        raise SSRError(f"training config {source} does not exist; give a YAML file or a preset: {', '.join(names)}")
    yaml = need("yaml", "train")
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SSRError(f"training config {path} is not YAML ({' '.join(str(error).split())[:100]}); mend it") from None
    if not isinstance(values, dict):
        raise SSRError(f"training config {path} is not a mapping of sections; see `ssr train paper --print-config`")
    preset = values.pop("preset", None)
    if preset is not None:
        if preset not in names:
            raise SSRError(f"preset {preset!r} in {path} is unknown; known: {', '.join(names)}")
        merged = _read(preset)
        for name in values:
            _section(merged, name).update(_section(values, name))
        values = merged
    return values


def _section(values: dict, name: str) -> dict:
    section = values.setdefault(name, {})
    if not isinstance(section, dict):
        raise SSRError(f"{name} in the training config is {section!r}; it is a section of keys")
    return section


def _kind(owner, item: dataclasses.Field):
    return typing.get_type_hints(owner)[item.name]


def _nearest(key: str, known: list[str]) -> str:
    # The right name in the wrong section, before one that is spelt alike.
    near = [name for name in known if "." in key and name.endswith(key[key.index(".") :])]
    if near:
        return f"; did you mean {near[0]}?"
    return nearest(key, known) or "; see `ssr train paper --print-config`"


def _check(config: TrainingConfig) -> None:
    base, data, objective, optim, run = (getattr(config, f.name) for f in dataclasses.fields(config))
    dtypes = ("float32", "bfloat16", "float16")
    for key, value, allowed in (
        ("base.kind", base.kind, ("auto", "sd", "sdxl")),
        ("base.dtype", base.dtype, dtypes),
        ("data.cache_dtype", data.cache_dtype, dtypes[:2]),
        ("objective.weighting", objective.weighting, ("none", "min_snr", "shifted")),
        ("run.precision", run.precision, ("no", "bf16", "fp16")),
        *(("run.log_with", name, ("tensorboard", "wandb")) for name in run.log_with),
    ):
        if value not in allowed:
            raise SSRError(f"{key} is {value!r}; give one of {', '.join(allowed)}")
    for key, value, least in (
        ("data.resolution", data.resolution, 8), ("data.crops", data.crops, 1), ("data.window", data.window, 1),
        ("data.workers", data.workers, 0), ("optim.batch_size", optim.batch_size, 1),
        ("optim.micro_batch", optim.micro_batch, 1), ("optim.steps", optim.steps, 1), ("run.keep", run.keep, 1),
        ("optim.warmup", optim.warmup, 0), ("run.save_every", run.save_every, 1), ("run.seed", run.seed, 0),
        ("run.log_every", run.log_every, 1), ("objective.tau", objective.tau, 0),
        ("optim.learning_rate", optim.learning_rate, 0), ("optim.weight_decay", optim.weight_decay, 0),
        ("run.validate_every", run.validate_every, 0), ("run.validation_samples", run.validation_samples, 1),
    ):  # fmt: skip
        if value < least:
            raise SSRError(f"{key} is {value}; give at least {least}")
    for key, value in (
        ("data.prompt_drop", data.prompt_drop), ("data.subject_drop", data.subject_drop),
        ("data.descriptor_query", data.descriptor_query), ("data.max_bad", data.max_bad),
        ("optim.decay", optim.decay), ("optim.ema_decay", optim.ema_decay),
    ):  # fmt: skip
        if not 0 <= value <= 1:
            raise SSRError(f"{key} is {value}; give a share from 0 to 1")
    if len(optim.betas) != 2 or not all(0 <= beta < 1 for beta in optim.betas):
        raise SSRError(f"optim.betas is {optim.betas}; give two numbers in [0, 1), e.g. [0.9, 0.999]")
    if objective.snr_limit <= 0 or optim.max_grad_norm <= 0:
        raise SSRError("objective.snr_limit and optim.max_grad_norm must be above 0")
