"""The mini suite on pictures of the embedded world: do the scores move the right way?"""

import json
from statistics import mean

import numpy as np
import pytest
import torch
from metric_cases import Scenery, unchanged_by_company
from PIL import Image

from ssr_encoder.bench.metrics import Case, default_metrics, load_metrics, metric_names
from ssr_encoder.bench.metrics.table import BACKBONES
from ssr_encoder.bench.metrics.zero_shot import MINI_TEMPLATES
from ssr_encoder.curation.congruence import MiniCLIP
from ssr_encoder.errors import SSRError
from ssr_encoder.images import to_pixels

pytestmark = pytest.mark.usefixtures("one_thread")
KINDS = ("right", "wrong", "both", "twin", "neither")


@pytest.fixture(scope="module")
def metrics_mini():
    names = [*default_metrics("mini"), "zero_shot_top1"]
    return dict(zip(names, load_metrics(names, suite="mini"), strict=True))


@pytest.fixture(scope="module")
def metrics_scenery(metrics_mini):
    return Scenery(metrics_mini["shown"].verdicts.judge.world, 3)


@pytest.fixture(scope="module")
def metrics_scores(metrics_mini, metrics_scenery):
    """Metric -> kind of result -> values."""
    return {
        name: {kind: metric(metrics_scenery.cases(kind)) for kind in KINDS} for name, metric in metrics_mini.items()
    }


def test_masked_scores(metrics_scores):
    for name in ("masked_clip_i", "masc_cp"):
        scores = {kind: mean(values) for kind, values in metrics_scores[name].items()}
        least = min(scores["right"], scores["both"])
        assert least > max(scores["twin"], scores["wrong"], scores["neither"]) + 0.05
        assert abs(scores["right"] - scores["both"]) < 0.1, "what else is there does not count"
    assert mean(metrics_scores["masked_clip_i"]["twin"]) > 0.1, "another drawing of the class is something"
    assert metrics_scores["masked_clip_i"]["wrong"] == metrics_scores["masked_clip_i"]["neither"] == [0, 0, 0]


def test_exclusive_scores(metrics_scores, metrics_mini):
    for name in ("exclusive_clip", "exclusive_clip_i"):
        assert metrics_mini[name].direction == "lower"
        scores = {kind: mean(values) for kind, values in metrics_scores[name].items()}
        assert scores["wrong"] > scores["both"] > max(scores["right"], scores["twin"])
        assert scores["wrong"] > scores["neither"]


def test_the_oracle_s_scores(metrics_scores, metrics_mini):
    ones, zeros = [1.0] * 3, [0.0] * 3
    shown, other, identity = (metrics_scores[name] for name in ("shown", "other", "identity"))
    assert [shown[kind] for kind in KINDS] == [ones, zeros, ones, ones, zeros]
    assert [other[kind] for kind in KINDS] == [zeros, ones, ones, zeros, zeros]
    assert mean(identity["right"]) > 0.6 and identity["twin"] == zeros
    assert mean(metrics_scores["likeness"]["right"]) > mean(metrics_scores["likeness"]["twin"]) + 0.2
    assert mean(metrics_scores["place"]["right"]) > 0.6 and metrics_scores["place"]["neither"] == [None] * 3
    assert [m.direction for m in metrics_mini.values() if m.name in ("shown", "other")] == ["higher", "lower"]


def test_texts_and_classes(metrics_scores):
    for name in ("clip_t", "zero_shot_top1"):
        assert mean(metrics_scores[name]["right"]) > mean(metrics_scores[name]["wrong"])
        assert set(metrics_scores["zero_shot_top1"]["right"]) <= {0.0, 1.0}


def test_alone_and_together(metrics_mini, metrics_scenery):
    """The others are of the same parts, or tried on smaller networks."""
    cases = [case for kind in ("both", "wrong", "right") for case in metrics_scenery.cases(kind)][:7]
    for name in ("masked_clip_i", "exclusive_clip_i", "shown"):
        unchanged_by_company(metrics_mini[name], cases)


def test_against_the_encoders_themselves(metrics_mini, metrics_scenery, metrics_scores):
    """CLIP-T, CLIP-I, exclusive and zero-shot scores, by the parts of the embedded CLIP and numpy."""
    clip, cases = MiniCLIP("cpu"), metrics_scenery.cases("both")

    def unit(x):
        x = x.detach().double().numpy()
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    def see(pictures):
        pixels = torch.cat([to_pixels(picture, 128, [0.5] * 3, [0.5] * 3) for picture in pictures])
        with torch.no_grad():
            return unit(clip.image_encoder(pixels).pooler_output @ clip.visual_projection.T)

    def read(texts):
        length = clip.tokenizer.model_max_length
        rows = clip.tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        with torch.no_grad():
            return unit(clip.text_encoder(rows.input_ids).pooler_output @ clip.text_projection.T)

    made, references = see([c.image for c in cases]), see([c.reference for c in cases])
    others = [f"{'an' if c.others[0][0] in 'aeiou' else 'a'} {c.others[0]}" for c in cases]
    expected = {
        "clip_t": (made * read([c.prompt for c in cases])).sum(1),
        "clip_i": (made * references).sum(1),
        "exclusive_clip": (made * read(others)).sum(1),
    }
    for name, values in expected.items():
        assert metrics_scores[name]["both"] == pytest.approx(values.tolist(), abs=1e-5)
    assert clip([c.image for c in cases], [c.prompt for c in cases]) == pytest.approx(expected["clip_t"], abs=1e-5)
    names = metrics_mini["zero_shot_top1"].names
    rows = unit(torch.tensor(np.stack([read([t.format(n) for t in MINI_TEMPLATES]).mean(0) for n in names])))
    nearest = [names[k] for k in (made @ rows.T).argmax(1)]
    expected = [float(near == case.class_name) for near, case in zip(nearest, cases, strict=True)]
    assert metrics_scores["zero_shot_top1"]["both"] == expected


def test_masc_by_hand(metrics_mini, metrics_scenery):
    """Patch by patch, in numpy."""
    metric, case = metrics_mini["masc_cp"], metrics_scenery.cases("both")[0]
    reference, result = (metric.backbone.patches(p).double().numpy() for p in (case.reference, case.image))
    best = []
    for row in range(16):
        for column in range(16):
            if (case.mask[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] > 0.5).mean() >= 0.5:
                best.append((result.reshape(256, -1) @ reference[row, column]).max())
    assert len(best) > 5
    assert metric([case]) == [pytest.approx(np.mean(best), abs=1e-5)]


def test_regions_of_the_oracle(metrics_mini, metrics_scenery):
    regions = metrics_mini["masked_clip_i"].regions
    for case in metrics_scenery.cases("right"):
        found, true = regions(case.reference, case.class_name), case.mask > 0.5
        assert (found & true).sum() / (found | true).sum() > 0.5
        assert regions(case.image, case.others[0]) is None
    with_mask, without = (metrics_mini["masked_clip_i"](metrics_scenery.cases("right", m)) for m in (True, False))
    assert without == pytest.approx(with_mask, abs=0.15), "truth or oracle"
    with pytest.raises(SSRError, match="has no 'zeppelin'"):
        regions(case.image, "zeppelin")


def test_where_a_metric_does_not_apply(metrics_mini, metrics_scenery):
    sky = Image.new("RGB", (128, 128), (150, 170, 200))
    case = metrics_scenery.cases("right")[0]
    bare = Case(case.image, sky, case.prompt, case.class_name)
    for name in ("masked_clip_i", "masc_cp", "exclusive_clip", "exclusive_clip_i", "shown", "place"):
        assert metrics_mini[name]([bare]) == [None]
    assert metrics_mini["zero_shot_top1"]([Case(sky, sky, "a zeppelin", "zeppelin")]) == [None]
    unseen = Case(case.image, sky, case.prompt, case.class_name, case.others, None, case.truth)
    assert metrics_mini["exclusive_clip_i"]([unseen]) == [None] and metrics_mini["exclusive_clip"]([unseen]) != [None]
    case.mask = case.mask[:64]
    with pytest.raises(SSRError, match="mask has"):
        metrics_mini["masked_clip_i"]([case])
    case.image = case.image.resize((64, 64))
    with pytest.raises(SSRError, match="128 x 128"):
        metrics_mini["shown"]([case])


def test_descriptions(metrics_mini):
    for metric in metrics_mini.values():
        about = metric.describe()
        assert json.loads(json.dumps(about)) == about
        assert {"definition", "backbone", "preprocessing", "versions"} <= about.keys()
        assert len(about["weights_sha256"]) == 64 and "/" not in about["backbone"]
        assert metric.direction in ("higher", "lower")
    assert "regions_sha256" in metrics_mini["masked_clip_i"].describe()


def test_names():
    assert set(default_metrics("mini") + default_metrics("real")) <= set(metric_names())
    assert set(BACKBONES) == {"mini", "real"}
    for names, options, message in [
        (["clip_x"], {}, "no metric 'clip_x'"),
        (["clip_t"], {"backbones": {"clop": "mini"}}, "no backbone 'clop'"),
        (["dino"], {}, "the suite mini has no dino"),
        (["clip_t"], {"suite": "large"}, "no suite 'large'"),
        (["clip_t"], {"backbones": {"clip": "/no/such/folder"}}, "backbone /no/such/folder cannot be loaded"),
    ]:
        with pytest.raises(SSRError, match=message):
            load_metrics(names, **{"suite": "mini", **options})
