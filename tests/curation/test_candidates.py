"""The rule for bench candidates, the page on which a person ticks, and the bench made of the ticks."""

import base64
import html.parser
import io
import json
import re
import shutil
import subprocess

import pytest
import torch
from PIL import Image
from shards_made import picture, read_folder, sample, write_folder
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, PreTrainedTokenizerFast

from ssr_encoder.curation import Sample, run_step
from ssr_encoder.curation.candidates import CandidateStep, best_candidates, read_ticked, write_bench
from ssr_encoder.curation.congruence import HubCLIP, MiniCLIP, load_congruence
from ssr_encoder.curation.review import review_page
from ssr_encoder.demo.scenes import load_scenes
from ssr_encoder.errors import SSRError


def good(number: int, **meta) -> Sample:
    return sample(number, f"a cat and dog {number}", **{"descriptors": ["cat", "dog"], "aesthetic": 6.5, **meta})


class ByNumber:
    """A congruence that is in the captions: the number at their end."""

    def __call__(self, images, texts):
        return [int(text.split()[-1]) / 100 for text in texts]


def step(**options) -> CandidateStep:
    made = CandidateStep(min_clip=0.05, **options)
    made.setup = lambda: setattr(made, "congruence", ByNumber())
    return made


@pytest.fixture
def candidates(tmp_path):
    source = write_folder(
        tmp_path / "in",
        [
            [good(10), good(30), good(11, descriptors=["cat"]), good(12, aesthetic=5.9), good(13, aesthetic=None)],
            [good(4), good(20), good(14, descriptors=["cat", "snow"]), Sample("cut", b"x", "png", "", good(1).meta)],
        ],
    )
    reports = list(run_step(step(ignored=("snow",)), source, tmp_path / "out"))
    return tmp_path / "out", [pair for report in reports for pair in report.dropped_keys]


def test_each_part_of_the_rule_drops_its_own(candidates):
    folder, dropped = candidates
    assert {key: one.meta["clip_score"] for key, one in read_folder(folder).items()} == {
        "000010": 0.1, "000030": 0.3, "000020": 0.2,
    }  # fmt: skip
    assert dict(dropped) == {
        "000011": "fewer than 2 subjects",
        "000012": "low aesthetic score",
        "000013": "no aesthetic score",
        "000004": "caption and image not congruent",
        "000014": "fewer than 2 subjects",
        "cut": "corrupt",
    }


def test_no_aesthetic_score_can_be_asked_for(tmp_path):
    source = write_folder(tmp_path / "in", [[good(10, aesthetic=None), good(11, aesthetic=-3)]])
    list(run_step(step(min_aesthetic=None), source, tmp_path / "out"))
    assert len(read_folder(tmp_path / "out")) == 2


def test_the_best_come_first(candidates):
    assert [one.key for one in best_candidates(candidates[0], 2)] == ["000030", "000020"]
    assert len(best_candidates(candidates[0], 50)) == 3


class Page(html.parser.HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.boxes, self.pictures, self.elsewhere = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "input" and attributes.get("type") == "checkbox":
            self.boxes.append(attributes["value"])
        if tag == "img":
            self.pictures.append(attributes["src"])
        self.elsewhere += [v for k, v in attributes.items() if k in ("src", "href") and not v.startswith("data:")]


def test_the_page_has_every_candidate_and_stands_alone(candidates):
    best = best_candidates(candidates[0], 50)
    best[0].caption = "<script>alert('cat')</script> & dog"
    text = review_page(best, 3, step().parameters())
    page = Page(text)
    assert page.boxes == ["000030", "000020", "000010"] and page.elsewhere == []
    data = base64.b64decode(page.pictures[0].split(",")[1])
    assert Image.open(io.BytesIO(data)).size == (72, 72)
    assert "<script>alert" not in text and "&lt;script&gt;alert" in text
    assert "aesthetic score from 6" in text and "from 0.05" in text


@pytest.mark.skipif(not shutil.which("node"), reason="node runs the page's script")
def test_the_page_saves_what_is_ticked_and_no_more_than_a_hundred(candidates, tmp_path):
    """The page's own script, over the few parts of a browser that it uses."""
    text = review_page(best_candidates(candidates[0], 50), 3, step().parameters())
    script = re.search(r"<script>(.*)</script>", text, re.DOTALL)[1]
    browser = """
    const listeners = {}, on = name => ({addEventListener: (kind, call) => { listeners[name] = call; }});
    const cards = Array.from({length: 101}, (_, k) => ({value: 'k' + k, checked: false, ...on('box' + k)}));
    const parts = {output: {}, '.message': {}, button: on('save'), '.bar input': on('search')};
    let saved = null;
    globalThis.document = {
      querySelectorAll: () => cards, createElement: () => ({click() {}}), querySelector: name => parts[name]
    };
    globalThis.localStorage = {getItem: () => null, setItem() {}};
    globalThis.Blob = class { constructor(texts) { saved = texts.join(''); } };
    URL.createObjectURL = () => 'blob:';
    """
    play = """
    const disabled = save.disabled;
    boxes.forEach((box, k) => { box.checked = true; listeners['box' + k](); });
    listeners.save();
    console.log(JSON.stringify({disabled, count: output.textContent, message: message.textContent, saved}));
    """
    ran = subprocess.run(["node", "-e", f"{browser}{script}{play}"], capture_output=True, text=True, check=True)
    seen = json.loads(ran.stdout)
    assert seen["disabled"] is True and seen["count"] == "100 of 100 ticked" and "more than 100" in seen["message"]
    (tmp_path / "ticked.json").write_text(seen["saved"])
    assert read_ticked(tmp_path / "ticked.json") == [f"k{k}" for k in range(100)]


def test_ticks_become_a_bench(candidates, tmp_path):
    (tmp_path / "ticked.json").write_text('{"format": "ssr-ticked-1", "keys": ["000020", "000010", "000020"]}')
    keys = read_ticked(tmp_path / "ticked.json")
    assert write_bench(candidates[0], keys, tmp_path / "bench", step().parameters()) == 2
    bench = json.loads((tmp_path / "bench" / "bench.json").read_text())
    assert [item["key"] for item in bench["items"]] == ["000020", "000010"] and bench["n"] == 2
    first = bench["items"][0]
    assert (tmp_path / "bench" / first["image"]).read_bytes() == good(20).image
    assert first["caption"] == "a cat and dog 20" and first["subjects"] == ["cat", "dog"]
    assert bench["rule"]["min_clip"] == 0.05
    with pytest.raises(SSRError, match="ticked sample nobody is not among the candidates"):
        write_bench(candidates[0], ["nobody"], tmp_path / "bench", {})


@pytest.mark.parametrize("text", ["", "[]", '{"keys": 3}', '{"keys": [3]}', '{"keys": []}'])
def test_other_files_are_no_ticks(tmp_path, text):
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(SSRError, match="t.json .*; "):
        read_ticked(tmp_path / "t.json")
    (tmp_path / "t.json").write_text(json.dumps({"keys": [str(k) for k in range(101)]}))
    with pytest.raises(SSRError, match="101 ticked samples; tick 1 to 100"):
        read_ticked(tmp_path / "t.json")


def test_the_embedded_clip_tells_right_captions_from_wrong_ones():
    images = [Image.open(one.path).convert("RGB") for one in load_scenes()[0]]
    texts = ["a fox, a penguin and a balloon in the garden", "two frogs", "an umbrella and a bus in the city"]
    congruence = MiniCLIP("cpu")
    scores = torch.tensor([congruence(images, [text] * len(images)) for text in texts])
    assert (scores.argmax(1) == torch.arange(len(images))).all()
    assert scores.diagonal().min() > scores.fill_diagonal_(-1).max() + 0.1


def test_any_clip_of_transformers_will_do(tmp_path):
    words = ["<s>", "</s>", "a", "cat", "dog"]
    backend = Tokenizer(models.WordLevel({word: k for k, word in enumerate(words)}, unk_token="a"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    common = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={**common, "vocab_size": 5, "max_position_embeddings": 8, "bos_token_id": 0, "eos_token_id": 1},
        vision_config={**common, "image_size": 28, "patch_size": 14},
        projection_dim=12,
    )
    model = CLIPModel(config)
    model.save_pretrained(tmp_path)
    size = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
    CLIPProcessor(CLIPImageProcessor(**size), tokenizer).save_pretrained(tmp_path)
    congruence = load_congruence(str(tmp_path), "cpu")
    assert isinstance(congruence, HubCLIP)
    images, texts = [picture(0), picture(1, 50)], ["a cat", "a dog dog"]
    together = congruence(images, texts)
    alone = [congruence([image], [text])[0] for image, text in zip(images, texts, strict=True)]
    assert together == pytest.approx(alone, abs=1e-4) and together[0] != together[1]
    assert all(-1 <= score <= 1 for score in together)


def test_a_missing_clip_is_one_line(tmp_path):
    with pytest.raises(SSRError, match="CLIP model .* cannot be loaded .*; give a folder or a hub id"):
        HubCLIP(str(tmp_path / "none"), "cpu")
