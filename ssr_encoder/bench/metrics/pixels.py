"""A result against its reference, pixel by pixel: PSNR, SSIM, LPIPS ("PS" of the supplement's Table 1)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from ...errors import SSRError, first_line
from ...extras import need
from .case import Case, CaseMetric, as_tensor, versions

MOST_PSNR = 120.0  # dB; stands for infinity: no two 8-bit pictures of up to 2048 x 2048 differ by so little
RESIZED = "RGB in [0, 1]; the reference resized to the result's size (PIL, bicubic) where they differ"
RANDOM = "random"


class _Pixels(CaseMetric):
    def describe(self) -> dict:
        return {"definition": self.definition, "backbone": "none", "preprocessing": RESIZED, **self._versions()}

    def _versions(self) -> dict:
        return {"versions": versions("torch", "torchmetrics")}

    def score(self, case: Case) -> float:
        return self._compare(as_tensor(case.image), as_tensor(_fitted(case.reference, case.image.size)))

    def _compare(self, image: Tensor, reference: Tensor) -> float:
        raise NotImplementedError


class PSNR(_Pixels):
    """Peak signal-to-noise ratio in dB over all pixels and channels; identical pictures get 120."""

    name = "psnr"
    definition = f"10 log10(1 / mean squared error), at most {MOST_PSNR:g} dB (identical pictures)"

    def __init__(self):
        self.function = need("torchmetrics.functional.image", "bench").peak_signal_noise_ratio

    def _compare(self, image, reference):
        return min(float(self.function(image, reference, data_range=1.0)), MOST_PSNR)


class SSIM(_Pixels):
    """Structural similarity (Wang et al. 2004), mean over pixels and channels."""

    name = "ssim"
    definition = "11 x 11 Gaussian window, sigma 1.5, K1 0.01, K2 0.03, borders reflected, mean of pixels and channels"

    def __init__(self):
        self.function = need("torchmetrics.functional.image", "bench").structural_similarity_index_measure

    def _compare(self, image, reference):
        if min(image.shape[-2:]) < 11:
            raise SSRError(f"SSIM needs pictures of at least 11 x 11 pixels, not {tuple(image.shape[-2:])}")
        return float(self.function(image, reference, data_range=1.0, sigma=1.5))


class LPIPS(_Pixels):
    """Learned perceptual distance (Zhang et al. 2018), version 0.1, by the library ``lpips``.

    Args:
        net: "alex" or "vgg".
        weights: a file (.pth, .safetensors) of torchvision's AlexNet or VGG16; "random" for tests; None: torchvision
            downloads them once. The linear layers come with the library.

    Raises:
        SSRError: the weights are not there, or are another network's.
    """

    direction = "lower"
    definition = "weighted squared distance of unit-normalised features of five layers, version 0.1"

    def __init__(self, net: Literal["alex", "vgg"], weights: str | None = None, device: str | torch.device = "cpu"):
        lpips = need("lpips", "bench")
        self.name, self.net, self.device = f"lpips_{net}", net, device
        self.source = "torchvision's ImageNet weights" if weights is None else Path(weights).name
        state = _read(weights, net) if weights not in (None, RANDOM) else None
        try:
            self.model = lpips.LPIPS(net=net, pnet_rand=weights is not None, verbose=False)
        except OSError as error:  # what urllib raises, without a network or with a broken one
            raise SSRError(
                f"{self.name} needs torchvision's {net} weights, and the download failed ({error}); "
                f'give a file: backbones={{"{self.name}": FILE}}'
            ) from None
        if state is not None:
            _load_trunk(self.model.net, state, net)
        self.model.to(device).eval().requires_grad_(False)

    def describe(self) -> dict:
        from ...loading import fingerprint

        about = super().describe() | {"backbone": f"{self.net} ({self.source})"}
        about["preprocessing"] += "; scaled by the library's own mean and std"
        return about | {"weights_sha256": fingerprint(self.model), "versions": versions("torch", "lpips")}

    @torch.inference_mode()
    def _compare(self, image, reference):
        if min(image.shape[-2:]) < 32:
            raise SSRError(f"LPIPS needs pictures of at least 32 x 32 pixels, not {tuple(image.shape[-2:])}")
        return float(self.model(image.to(self.device), reference.to(self.device), normalize=True))


def _read(path: str, net: str) -> dict[str, Tensor]:
    try:
        if path.endswith(".safetensors"):
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file of another kind can fail anywhere in the reader
        reason = first_line(error, 80)
        raise SSRError(f"{path} cannot be read ({reason}); give the state dict of torchvision's {net}") from None


def _load_trunk(trunk: torch.nn.Module, state: dict[str, Tensor], net: str) -> None:
    """torchvision's ``features.N.weight`` into the library's slices, which keep the numbers."""
    try:
        trunk.load_state_dict({key: state[f"features.{key.split('.', 1)[1]}"] for key in trunk.state_dict()})
    except (KeyError, RuntimeError) as error:
        reason = first_line(error, 80)
        raise SSRError(f"these weights are not torchvision's {net} ({reason}); give its state dict") from None


def _fitted(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    picture = picture.convert("RGB")
    return picture if picture.size == size else picture.resize(size, Image.Resampling.BICUBIC)
