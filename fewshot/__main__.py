"""``python -m fewshot`` is the command ``fewshot``."""

import sys

from fewshot.cli import main

sys.exit(main())
