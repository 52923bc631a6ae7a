"""``python -m ssr_encoder.cli``: the same as ``ssr``."""

import sys

from . import main

sys.exit(main())
