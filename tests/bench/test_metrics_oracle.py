"""The oracle's metrics against its raw answers in numpy, and on scenes with and without what a prompt asks for."""

from statistics import mean

import numpy as np
import pytest
import torch
from metric_cases import Scenery, unchanged_by_company
from PIL import Image
from scipy.special import softmax

from ssr_encoder.bench.metrics import Case, default_metrics, load_metrics
from ssr_encoder.errors import SSRError
from ssr_encoder.images import picture_grid
from ssr_encoder.mini.world import sample_scenes

pytestmark = pytest.mark.usefixtures("one_thread")
ORACLE = ("shown", "identity", "likeness", "other", "place")
SKY = Image.new("RGB", (128, 128), (150, 170, 200))
VIEWS = 6  # of each identity, that a prototype is the mean of


@pytest.fixture(scope="module")
def metrics_oracle():
    names = [*ORACLE, "hat", "companion"]
    return dict(zip(names, load_metrics(names, suite="mini"), strict=True))


@pytest.fixture(scope="module")
def metrics_world(metrics_oracle):
    return metrics_oracle["shown"].verdicts.judge.world


@pytest.fixture(scope="module")
def metrics_scenes(metrics_world):
    return Scenery(metrics_world, 3)


class ByHand:
    """What the oracle's raw answers come to, in float64."""

    def __init__(self, oracle, world):
        self.oracle, self.world = oracle, world

    def answers(self, picture: Image.Image) -> dict[str, np.ndarray]:
        pixels = torch.tensor(np.asarray(picture, np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
        with torch.no_grad():
            return {name: value[0].double().numpy() for name, value in self.oracle(pixels).items()}

    def sure(self, answers) -> np.ndarray:
        """The mean of each concept's six best cells; cell probabilities first, background left out."""
        cells = softmax(answers["concept"], axis=0)[1:].reshape(len(answers["concept"]) - 1, -1)
        return np.sort(cells, axis=1)[:, -6:].mean(1)

    def over_cells(self, answers, name: str, concept: int) -> np.ndarray:
        """The mean of some answers over the cells of a concept, weighed by its probability."""
        weight = softmax(answers["concept"], axis=0)[concept + 1]
        return (answers[name] * weight).sum((1, 2)) / weight.sum()

    def embedding(self, picture: Image.Image, concept: int) -> np.ndarray:
        found = self.over_cells(self.answers(picture), "identity", concept)
        return found / np.linalg.norm(found)

    def prototypes(self, concept: int) -> dict[tuple[int, int], np.ndarray]:
        """(style, colour) -> mean of its views, of the scenes that the judge draws."""
        identities = self.world.available[concept].nonzero().repeat_interleave(VIEWS, 0)
        first = (torch.full_like(identities[:, 0], concept), *identities.T)
        generator = torch.Generator().manual_seed(99 + concept)
        scenes = sample_scenes(self.world, len(identities), generator, "any", (1.0, 0.0, 0.0), first)
        with torch.no_grad():
            answers = self.oracle(self.world.render(scenes, 128)[0] * 2 - 1)
        views: dict[tuple[int, int], list] = {}
        for i, identity in enumerate(map(tuple, identities.tolist())):
            one = {name: value[i].double().numpy() for name, value in answers.items()}
            found = self.over_cells(one, "identity", concept)
            views.setdefault(identity, []).append(found / np.linalg.norm(found))
        means = {identity: np.mean(found, axis=0) for identity, found in views.items()}
        return {identity: found / np.linalg.norm(found) for identity, found in means.items()}


def test_against_its_raw_answers(metrics_oracle, metrics_world, metrics_scenes):
    by_hand = ByHand(metrics_oracle["shown"].verdicts.judge.oracle, metrics_world)
    # One subject, in pictures that show it, another drawing of it, another thing, and nothing.
    cases = [metrics_scenes.cases(kind)[0] for kind in ("right", "both", "twin", "wrong")]
    concept, style, colour = (cases[0].truth[name] for name in ("concept", "style", "colour"))
    prototypes, expected = by_hand.prototypes(concept), {name: [] for name in ORACLE}
    for case in cases:
        answers = by_hand.answers(case.image)
        sure, seen = by_hand.sure(answers), by_hand.embedding(case.image, concept)
        cosines = {identity: float(seen @ prototype) for identity, prototype in prototypes.items()}
        expected["shown"].append(float(sure[concept] > 0.5))
        expected["other"].append(float(max(sure[c] for c in case.truth["others"]) > 0.5))
        expected["identity"].append(float(max(cosines, key=cosines.get) == (style, colour)))
        expected["likeness"].append(cosines[style, colour])
        expected["place"].append(float(answers["place"].argmax() == case.truth["place"]))
    for name, values in expected.items():
        assert metrics_oracle[name](cases) == pytest.approx(values, abs=2e-4), name
    assert expected["shown"] == [1, 1, 1, 0] and expected["other"] == [0, 1, 0, 1]


@pytest.fixture(scope="module")
def metrics_hats(metrics_world):
    """Held-out subjects alone, with a hat and without: two lists of cases whose prompt asks for one."""
    allowed = metrics_world.available & metrics_world.holdout & metrics_world.hatted[:, None, None]
    first = tuple(allowed.nonzero()[:12].T)
    lists = []
    for hats in (1.0, 0.0):
        generator = torch.Generator().manual_seed(4)  # the same scenes
        scenes = sample_scenes(metrics_world, len(first[0]), generator, "any", (1.0, 0.0, 0.0), first, hats=hats)
        assert scenes.hat[:, 0].float().mean() == hats
        pictures, _ = metrics_world.render(scenes, 128)
        rows = zip(pictures, *(part.tolist() for part in first), strict=True)
        lists.append([Case(picture_grid(p[None], 1), SKY, "", "", (), None, asking(c, s, k)) for p, c, s, k in rows])
    return lists


def asking(concept, style=0, colour=0, hat=True, companion=None) -> dict:
    identity = {"concept": concept, "style": style, "colour": colour, "place": None, "others": []}
    return identity | {"hat": hat, "companion": companion}


def test_hats(metrics_oracle, metrics_world, metrics_hats):
    metric, (with_hat, without) = metrics_oracle["hat"], metrics_hats
    assert metric.direction == "higher"
    assert mean(metric(with_hat)) > 0.9 and mean(metric(without)) < 0.1
    by_hand = ByHand(metric.oracle, metrics_world)
    least = np.log(0.12 / 0.88)  # the odds of a hat in the scenes that the oracle learned from
    for case in with_hat + without:
        answers, concept = by_hand.answers(case.image), case.truth["concept"]
        seen = by_hand.sure(answers)[concept] > 0.5 and by_hand.over_cells(answers, "hat", concept)[0] > least
        assert metric([case]) == [float(seen)]
    nobody = [Case(SKY, SKY, "", "", (), None, case.truth) for case in with_hat]
    assert metric(nobody) == [0.0] * len(nobody), "a hat needs somebody under it"
    other = next(c.truth["concept"] for c in with_hat if c.truth["concept"] != with_hat[0].truth["concept"])
    assert metric([Case(with_hat[0].image, SKY, "", "", (), None, asking(other))]) == [0.0], "on somebody else"
    unchanged_by_company(metric, with_hat[:3] + without[:3])


def test_companions(metrics_oracle, metrics_scenes):
    metric = metrics_oracle["companion"]
    assert metric.direction == "higher"

    def scores(kind):
        cases = metrics_scenes.cases(kind)
        for case in cases:
            case.truth |= {"companion": case.truth["others"][0], "others": []}
        return metric(cases)

    assert [scores(kind) for kind in ("both", "wrong", "right", "neither")] == [
        [1.0] * 3,
        [1.0] * 3,
        [0.0] * 3,
        [0.0] * 3,
    ]


def test_what_a_prompt_does_not_ask_for(metrics_oracle, metrics_hats, metrics_scenes):
    for name, case in (("hat", metrics_hats[0][0]), ("companion", metrics_scenes.cases("both")[0])):
        metric = metrics_oracle[name]
        for truth in (None, {}, asking(0, hat=False)):
            assert metric([Case(case.image, SKY, "", "", (), None, truth)]) == [None]
        small = Case(case.image.resize((64, 64)), SKY, "", "", (), None, asking(0, companion=0))
        with pytest.raises(SSRError, match="128 x 128"):
            metric([small])
        about = metric.describe()
        assert {"definition", "backbone", "preprocessing", "versions"} <= about.keys()
        assert len(about["weights_sha256"]) == 64
    assert not {"hat", "companion"} & set(default_metrics("mini")), "a benchmark whose prompts ask for them names them"
