"""Adapters for other tools, one file per tool.

`langchain` and `haystack` each need an optional extra and define a `FewShotRetriever`, which classifies a query and
then searches a store from `fewshot.retrieval`. `label_formats` writes images for tools that people label with, and
reads what they have labelled.
"""
