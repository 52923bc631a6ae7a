"""FID and KID against scipy and numpy."""

import numpy as np
import pytest
import scipy.linalg
import torch
from metric_cases import noise, tiny_clip

from ssr_encoder.bench.backbones import load_backbone
from ssr_encoder.bench.metrics import fid, kid
from ssr_encoder.errors import SSRError

pytestmark = pytest.mark.usefixtures("one_thread")
N = 40  # more than the 24 features


@pytest.fixture(scope="module")
def metrics_clip(tmp_path_factory):
    return load_backbone(tiny_clip(tmp_path_factory.mktemp("clip")))


@pytest.fixture(scope="module")
def metrics_sets(metrics_clip):
    """Two sets of pictures, and their features in float64."""
    real, made = ([noise((32, 32), seed) for seed in range(k, k + N)] for k in (0, 100))
    made = [picture.point(lambda x: x // 2) for picture in made]
    return real, made, *(torch.stack([metrics_clip.features(p) for p in s]).double().numpy() for s in (real, made))


def test_fid(metrics_clip, metrics_sets):
    real, made, a, b = metrics_sets
    root = scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)
    score = fid(iter(real), iter(made), metrics_clip)
    assert score["value"] == pytest.approx(expected, rel=1e-3) and score["n"] == [N, N]
    assert fid(real[::-1], made[5:] + made[:5], metrics_clip)["value"] == pytest.approx(expected, rel=1e-3)
    assert fid(real, real, metrics_clip)["value"] < 1e-3 * expected
    assert score["weights_sha256"] and "torchmetrics" in score["versions"]


def test_kid(metrics_clip, metrics_sets):
    """Binkowski et al. 2018, equation 4, with the kernel (x.y / D + 1)^3."""
    real, made, a, b = metrics_sets

    def kernel(x, y):
        return (x @ y.T / x.shape[1] + 1) ** 3

    aa, bb = kernel(a, a), kernel(b, b)
    expected = (aa.sum() - np.trace(aa) + bb.sum() - np.trace(bb)) / (N * (N - 1)) - 2 * kernel(a, b).mean()
    score = kid(real, made, metrics_clip)
    assert score["value"] == pytest.approx(expected, rel=2e-3) and score["std"] == 0
    before = torch.random.get_rng_state()
    parts = kid(real, made, metrics_clip, subsets=30, subset_size=20)
    assert parts["value"] == pytest.approx(expected, rel=0.5) and parts["std"] > 0
    assert parts == kid(real, made, metrics_clip, subsets=30, subset_size=20), "seeded"
    assert torch.equal(before, torch.random.get_rng_state()), "the caller's random numbers are left alone"


def test_what_cannot_be_compared(metrics_clip, monkeypatch, tmp_path):
    with pytest.raises(SSRError, match="at least two"):
        fid([noise()], [noise(), noise()], metrics_clip)
    with pytest.raises(SSRError, match="neither a backbone nor"):
        kid([noise()], [noise()], "resnet")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(SSRError, match="Inception's weights could not be downloaded"):
        fid([noise()] * 2, [noise()] * 2)
