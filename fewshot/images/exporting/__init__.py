"""Export a fitted model to a folder that `fewshot.runtime` reads without torch."""
