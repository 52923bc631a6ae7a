"""``accelerate launch -m ssr_encoder.training CONFIG ...``: the same as ``ssr train CONFIG ...``."""

import sys

from ..cli import main

sys.exit(main(["train", *sys.argv[1:]]))
