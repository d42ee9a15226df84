"""``python -m fewshot.runtime``."""

import sys

from fewshot.runtime.command import main

sys.exit(main())
