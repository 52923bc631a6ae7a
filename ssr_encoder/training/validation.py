"""What the loss does not say: whether the query selects its subject. On fixed held-out pictures, noise and timesteps.

Samples are those of ``run.validation``: shards with KEY.mask.png (white on the subject) and in KEY.json ``query`` and,
if there is another subject, ``other_query``. Every figure has a 95 % interval: bootstrap over the pictures.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..errors import SSRError
from ..images import picture_grid
from ..model import SubjectModel
from ..selection import patch_weights
from ..subject import Subject
from .bases import Base
from .config import TrainingConfig
from .data import cut, open_raw, views_of
from .features import encode, make_blank
from .objective import denoise, draw_timesteps, normal
from .order import keyed
from .reader import BadSample, Reader, list_urls

SEED = 7  # of noise and timesteps, the same in every run, so that runs can be compared
BATCH = 16
ROWS = 8  # pictures in the grid


class Validator:
    """Fixed samples, encoded once; ``figures`` and ``grid`` of any model.

    Raises:
        SSRError: no shards, or no sample in them with a picture, a mask and a query.
    """

    def __init__(self, base: Base, config: TrainingConfig):
        self.base = base
        self.pictures, self.masks, self.words, self.batches, self.rival = [], [], [], [], []
        items = self._items(config)
        blank = make_blank(base)
        grid = int((blank.hidden.shape[2] - 1) ** 0.5)
        self.inside = patch_weights(torch.stack(self.masks), grid)[:, 1:]
        self.inside = (self.inside > 0.5).float().where(self.inside.amax(1, keepdim=True) > 0.5, self.inside.sign())
        for first in range(0, len(items), BATCH):
            part = items[first : first + BATCH]
            right = encode(base, part, blank)
            wrong, _ = base.encode_texts([item["other"] for item in part])
            self.batches.append((right, wrong.to(right.query)))

    def _items(self, config: TrainingConfig) -> list[dict]:
        run, size = config.run, config.data.resolution
        reader = Reader(list_urls(run.validation), Path(run.out) / "fetched")
        items, places = [], [(s, i) for s in range(len(reader.urls)) for i in range(reader.count(s).count)]
        for shard, index in places:
            try:
                raw = reader.sample(shard, index)
                picture = open_raw(raw)
                mask = Image.open(io.BytesIO(raw.extra["mask.png"])).convert("RGB").resize(picture.size)
                query = raw.meta["query"]
            except (BadSample, KeyError, OSError, ValueError):
                continue
            square, time_ids = cut(picture, raw.key, 0, False, size)
            inside = np.asarray(cut(mask, raw.key, 0, False, size)[0])[..., 0] / 255
            if inside.max() < 0.5:
                continue
            self.pictures.append(square)
            self.masks.append(torch.from_numpy(inside).float())
            self.rival.append(bool(raw.meta.get("other_query")))
            tokenizer = self.base.texts[0][0]
            length = len(tokenizer(query, truncation=True, max_length=tokenizer.model_max_length).input_ids)
            self.words.append(max(1, length - 2))
            item = {"position": len(items), "weight": 1.0, "no_prompt": True, "no_subject": False, "prompt": ""}
            item |= {"query": query, "other": raw.meta.get("other_query") or "", "time_ids": time_ids}
            items.append(item | views_of(square, self.base.views))
            if len(items) == run.validation_samples:
                break
        if not items:
            raise SSRError(
                f"run.validation {run.validation} has no sample with a picture, KEY.mask.png and a query in KEY.json"
            )
        return items

    @torch.no_grad()
    def figures(self, model: SubjectModel) -> dict[str, float]:
        """``attention_in_mask``: the share of the query's attention on the true subject (``area_of_mask``: what chance
        would give); ``loss_right``, and ``query_gain``: how much worse the other subject's query denoises the asked-for
        subject. That is measured inside its mask: the picture shows the other subject too, which the wrong query
        denoises better. The prompt is empty: all that is known about the picture comes through the subject."""
        attention, whole, right, wrong = [], [], [], []
        masks = torch.stack(self.masks)[:, None].split(BATCH)
        for (features, other), mask in zip(self.batches, masks, strict=True):
            latents = self.base.scale(features.mean)
            noise = normal(SEED, features.positions, 2, latents)
            timesteps = draw_timesteps(SEED, features.positions, len(self.base.alphas), latents.device)
            target = self.base.scheduler.get_velocity(latents, noise, timesteps) if self.base.velocity else noise
            inside = F.adaptive_avg_pool2d(mask.to(latents), latents.shape[-2:])
            inside /= inside.sum(dim=(2, 3), keepdim=True)
            asked = features.query
            for query, errors in ((asked, right), (other, wrong)):
                features.query = query
                noise_pred, _, seen = denoise(model, self.base, features, latents, noise, timesteps)
                error = (noise_pred.float() - target) ** 2
                errors.append((error.mean(1, keepdim=True) * inside).sum(dim=(1, 2, 3)).cpu())
                if query is asked:
                    whole.append(error.mean(dim=(1, 2, 3)).cpu())
                    attention.append(seen.float().mean(1).cpu())  # (n, L, P)
            features.query = asked
        maps = self._maps(torch.cat(attention))
        inside = (maps * self.inside).sum(1)
        right, wrong = torch.cat(right), torch.cat(wrong)
        rival = torch.tensor(self.rival)
        figures = _interval("attention_in_mask", inside) | {"area_of_mask": float(self.inside.mean())}
        figures |= _interval("loss_right", torch.cat(whole))
        return figures | (_interval("query_gain", (wrong - right)[rival]) if rival.any() else {})

    def _maps(self, attention: Tensor) -> Tensor:
        """What the words of each query take of each patch, (n, P - 1)."""
        return torch.stack([a[1 : 1 + count].mean(0)[1:] for a, count in zip(attention, self.words, strict=True)])

    @torch.no_grad()
    def grid(self, model: SubjectModel) -> Image.Image:
        """Rows of held-out references: the picture, what the query takes of it, what the other query takes."""
        cells, number = [], 0
        own = next(model.parameters())
        for features, other in self.batches:
            hidden = [hidden.to(own) for hidden in features.hidden.unbind(1)]
            seen = [model.aligner.attention(q.to(own), hidden[-1]).mean(1).cpu() for q in (features.query, other)]
            for i in range(len(other)):
                if number == ROWS:
                    return picture_grid(torch.stack(cells), 3)
                picture = self.pictures[number]
                cells.append(_tensor(picture))
                for attention in seen:
                    taken = attention[i, 1 : 1 + self.words[number]].mean(0)[1:]
                    cells.append(_tensor(_heat(picture, taken)))
                number += 1
        return picture_grid(torch.stack(cells), 3)


def _heat(picture: Image.Image, taken: Tensor) -> Image.Image:
    side = int(len(taken) ** 0.5)
    nothing = torch.zeros(1, 1)
    return Subject(nothing, nothing, taken.float().unflatten(0, (side, side)), picture.size).heat_map(picture)


def _tensor(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


def _interval(name: str, values: Tensor) -> dict[str, float]:
    """Mean and 95 % bootstrap interval."""
    values = values.double().numpy()
    means = values[keyed(SEED).integers(len(values), size=(1000, len(values)))].mean(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return {name: float(values.mean()), f"{name}/low": float(low), f"{name}/high": float(high)}
