"""Stage ``ssr``: the paper's training, everything but the subject encoder frozen, ``L = L_LDM + tau * L_reg``."""

from __future__ import annotations

from .subject import UNetRecipe


class SSRRecipe(UNetRecipe):
    """The subject encoder alone, on a finished base."""

    name = "ssr"
    learning_rates = {"cpu": 5e-4, "cuda": 6e-4}
    conditions = (0.6, 0.3, 0.0, 0.1)  # text alone would teach the subject branch nothing
    train_base = False
    each = 1  # no pairs: the paper's loss
