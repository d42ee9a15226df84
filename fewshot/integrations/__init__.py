"""Adapters for other frameworks, one file and one optional extra per framework.

Both define a `FewShotRetriever`, which classifies a query and then searches a store from `fewshot.retrieval`.
"""
