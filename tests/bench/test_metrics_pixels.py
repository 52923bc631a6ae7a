"""PSNR, SSIM and LPIPS against their formulas."""

import json

import numpy as np
import pytest
import torch
import torchvision
from metric_cases import noise, noise_cases, unchanged_by_company
from PIL import Image
from safetensors.torch import save_file
from scipy.ndimage import gaussian_filter

from ssr_encoder.bench.metrics import Case, load_metrics
from ssr_encoder.bench.metrics.pixels import LPIPS, MOST_PSNR
from ssr_encoder.errors import SSRError

pytestmark = pytest.mark.usefixtures("one_thread")


def arrays(case: Case):
    return (np.asarray(picture, np.float64) / 255 for picture in (case.image, case.reference))


def psnr(case: Case) -> float:
    a, b = arrays(case)
    return 10 * np.log10(1 / np.mean((a - b) ** 2))


def ssim(case: Case) -> float:
    """Wang et al. 2004, equation 13, under an 11 x 11 Gaussian window; the borders are reflected."""
    a, b = arrays(case)

    def mean(x):
        return gaussian_filter(x, sigma=(1.5, 1.5, 0), truncate=3.5, mode="mirror")

    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma * ma, mean(b * b) - mb * mb, mean(a * b) - ma * mb
    c1, c2 = 0.01**2, 0.03**2
    values = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2))
    return values.mean()


@pytest.mark.parametrize(("name", "formula", "tolerance"), [("psnr", psnr, 1e-4), ("ssim", ssim, 1e-4)])
def test_formulas(name, formula, tolerance):
    [metric] = load_metrics([name], suite="real")
    cases = noise_cases()
    cases.append(Case(noise(seed=1), noise(seed=1).point(lambda x: min(255, x + 3)), "", ""))
    assert metric(cases) == pytest.approx([formula(case) for case in cases], abs=tolerance)
    unchanged_by_company(metric, cases)
    assert metric.direction == "higher" and json.dumps(metric.describe())
    assert "torchmetrics" in metric.describe()["versions"]


def test_the_same_picture():
    same = [Case(noise(), noise(), "", "")]
    [psnr_value], [ssim_value] = (metric(same) for metric in load_metrics(["psnr", "ssim"], suite="mini"))
    assert psnr_value == MOST_PSNR and ssim_value == pytest.approx(1)


def test_another_size_is_fitted():
    [metric] = load_metrics(["psnr"], suite="real")
    large = noise((96, 80), seed=5)
    small = large.resize((48, 40), Image.Resampling.BICUBIC)
    assert metric([Case(small, large, "", "")]) == [MOST_PSNR]
    assert metric([Case(noise(), large, "", "")]) == metric([Case(noise(), small, "", "")])


@pytest.fixture(scope="module")
def metrics_alexnet():
    torch.manual_seed(4)
    return torchvision.models.AlexNet().features.eval()


@pytest.fixture(scope="module")
def metrics_lpips(metrics_alexnet, tmp_path_factory):
    path = tmp_path_factory.mktemp("lpips") / "alex.pth"
    torch.save({f"features.{k}": v for k, v in metrics_alexnet.state_dict().items()}, path)
    [metric] = load_metrics(["lpips_alex"], suite="real", backbones={"lpips_alex": str(path)})
    return metric


@torch.inference_mode()
def lpips_by_hand(net, linear, case: Case, after=(1, 4, 7, 9, 11)) -> float:
    """Zhang et al. 2018, equation 1, with the scaling of version 0.1 (ImageNet's mean and std in [-1, 1]).

    Args:
        after: the layers of torchvision's trunk whose output counts; by default AlexNet's five ReLUs.
    """
    taken = []
    for picture in arrays(case):
        x = torch.tensor(picture).float().permute(2, 0, 1)[None] * 2 - 1
        x = (x - torch.tensor([-0.030, -0.088, -0.188])[:, None, None]) / torch.tensor([0.458, 0.448, 0.450])[
            :, None, None
        ]
        layers = []
        for number, layer in enumerate(net):
            x = torch.relu(x) if isinstance(layer, torch.nn.ReLU) else layer(x)
            if number in after:
                layers.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        taken.append(layers)
    total = 0.0
    for weight, a, b in zip(linear, *taken, strict=True):
        total += float(((a - b).square() * weight).sum(1).mean())
    return total


def test_lpips_is_its_formula(metrics_alexnet, metrics_lpips):
    linear = [layer.model[-1].weight.detach() for layer in metrics_lpips.model.lins]
    cases = noise_cases(3, (64, 64))
    expected = [lpips_by_hand(metrics_alexnet, linear, case) for case in cases]
    assert min(expected) > 0
    assert metrics_lpips(cases) == pytest.approx(expected, rel=1e-4)
    assert metrics_lpips([Case(noise((64, 64)), noise((64, 64)), "", "")]) == [0]
    assert metrics_lpips.direction == "lower"


def test_lpips_alone_and_together(metrics_lpips):
    unchanged_by_company(metrics_lpips, noise_cases(7, (40, 40)))
    about = metrics_lpips.describe()
    assert about["backbone"].startswith("alex (alex.") and "lpips" in about["versions"] and json.dumps(about)


def test_lpips_of_vgg():
    """Random weights: its formula on the last ReLU of each block, and one pixel is nearer than another picture."""
    metric = LPIPS("vgg", "random")
    net = [layer for number in range(1, 6) for layer in getattr(metric.model.net, f"slice{number}")]
    linear = [layer.model[-1].weight.detach() for layer in metric.model.lins]
    cases = noise_cases(2, (32, 32))
    expected = [lpips_by_hand(net, linear, case, after=(3, 8, 15, 22, 29)) for case in cases]
    assert min(expected) > 0 and metric(cases) == pytest.approx(expected, rel=1e-4)
    near = Case(noise((32, 32), 1), noise((32, 32), 1), "", "")
    near.image.putpixel((4, 4), (0, 0, 0))
    [small, large] = metric([near, *noise_cases(1, (32, 32))])
    assert 0 < small < large and metric.name == "lpips_vgg"


def test_lpips_without_a_network(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(SSRError, match=r"^lpips_alex needs .* give a file: backbones=[^\n]*$"):
        LPIPS("alex")


def test_bad_lpips_weights(tmp_path):
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "text.safetensors").write_text("hello")
    for name in ("missing.pth", "text.pth", "text.safetensors"):
        with pytest.raises(SSRError, match="cannot be read"):
            LPIPS("alex", str(tmp_path / name))
    save_file({"features.0.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(SSRError, match="not torchvision's alex"):
        LPIPS("alex", str(tmp_path / "other.safetensors"))


def test_too_small(metrics_lpips):
    tiny = [Case(noise((9, 9)), noise((9, 9), 1), "", "")]
    for metric in (*load_metrics(["ssim"], suite="real"), metrics_lpips):
        with pytest.raises(SSRError, match="at least"):
            metric(tiny)
