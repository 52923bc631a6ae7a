"""The trained parts in one module, with the fingerprint that ties subjects to the encoder that made them."""

from __future__ import annotations

import hashlib
import json

import torch
from torch import Tensor, nn

from .aligner import SubjectConfig, TokenToPatchAligner
from .packing import SubjectKeyValues

_IDENTITY = ("query_dim", "image_dim", "heads", "head_dim", "hidden_layers", "layers", "image_mean", "image_std")


class SubjectModel(nn.Module):
    """What the paper trains, everything else frozen: the aligner with its projections and norm, and each
    cross-attention layer's keys and values."""

    def __init__(self, config: SubjectConfig):
        super().__init__()
        self.config = config
        self.aligner = TokenToPatchAligner.from_config(config)
        self.key_values = SubjectKeyValues.from_config(config)

    def forward(
        self,
        query_embeds: Tensor,
        hidden_states: list[Tensor],
        patch_weights: Tensor | None = None,
        scale: Tensor | float = 1.0,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Query and picture to a pack in one go, as training needs it.

        Args:
            query_embeds: (R, N, L, query_dim): N subjects for each of R samples.
            hidden_states: K tensors (R, N, P, image_dim).
            patch_weights: (R, N, P) or None.
            scale: as in :meth:`SubjectKeyValues.forward`.

        Returns:
            pack (R, N*K*L, F), scale_embeds (R*N, K, L, query_dim), attention (R*N, H, L, P).
        """
        rows = len(query_embeds)
        weights = None if patch_weights is None else patch_weights.flatten(0, 1)
        tokens, scale_embeds, attention = self.aligner(
            query_embeds.flatten(0, 1), [hidden.flatten(0, 1) for hidden in hidden_states], weights
        )
        return self.key_values(tokens.unflatten(0, (rows, -1)), scale), scale_embeds, attention

    @torch.no_grad()
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the sizes and the weights of the parts that make subject tokens. Where the base
        models lie and the defaults of generation do not count: a copy or a moved folder is the same encoder."""
        values = {name: getattr(self.config, name) for name in _IDENTITY}
        digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
        for name, value in sorted(self.aligner.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]
