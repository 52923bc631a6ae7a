"""The embedded model's recipes by stage name, in the order in which they are run."""

from .aligner import AlignerRecipe
from .captioner import CaptionerRecipe
from .clip import CLIPRecipe
from .controlnet import ControlNetRecipe
from .dino import DINORecipe
from .few_step import FewStepRecipe
from .motion import MotionRecipe
from .oracle import OracleRecipe
from .subject import SSRRecipe, UNetRecipe
from .vae import VAERecipe

RECIPES = {
    recipe.name: recipe
    for recipe in (
        VAERecipe,
        CLIPRecipe,
        OracleRecipe,
        CaptionerRecipe,
        DINORecipe,
        UNetRecipe,
        SSRRecipe,
        AlignerRecipe,
        FewStepRecipe,
        ControlNetRecipe,
        MotionRecipe,
    )
}
