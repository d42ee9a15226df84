"""What all embedders are: transformers that learn nothing, and whose embeddings a domain may map."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from copy import deepcopy
from dataclasses import replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags

from fewshot.embedding.domain import Domain
from fewshot.embedding.network import Embedded
from fewshot.errors import brief
from fewshot.utils.values import OnError

#: What scikit-learn keeps in an estimator besides its parameters.
_SETTINGS = ("_sklearn_output_config", "_metadata_request")


class BaseEmbedder(ABC, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """An embedder whose parameter ``domain``, a `Domain`, the path of one, or None, maps its embeddings."""

    domain: Any = None
    #: Attributes that clones share.
    _shared: tuple[str, ...] = ("_found",)
    #: The parameter, and the domain that was found for it. It stays even if the file is replaced.
    _found: tuple[Any, Domain | None] = (None, None)

    @abstractmethod
    def embed(self, X: Any, *, thumbnails: bool = False, on_error: OnError | None = None) -> Embedded:
        """Return the embeddings of a collection of items, the errors of unreadable ones, and thumbnails on request."""

    @abstractmethod
    def _check_parameters(self) -> Any:
        """Raise if a parameter is invalid."""

    def fit(self, X: Any = None, y: Any = None) -> Self:
        """Check the parameters; there is nothing to learn."""
        self._check_parameters()
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Return the embeddings (n, d) of a collection of n items, in their order; see `embed`."""
        return self.embed(X).embeddings

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters, and never those within the backbone, which is used as it was fitted."""
        return super().get_params(deep=False)

    def set_params(self, **params: Any) -> Self:
        """Set parameters.

        Raises
        ------
        ValueError
            If there is no such parameter, or it is one of the backbone: clones share the backbone and never refit it.
        """
        if inner := next((name for name in params if name.startswith("backbone__")), None):
            raise ValueError(
                f"{brief(inner)} would be without effect, since an embedder is used as it was fitted; to tune it, use "
                "its steps and a classifier of embeddings, as in make_pipeline(vectoriser, svd, "
                "DiscriminantClassifier())"
            )
        return super().set_params(**params)

    @property
    def unadapted(self) -> Self:
        """A copy without domain, which shares the network or other backbone."""
        return self.__sklearn_clone__().set_params(domain=None)

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        return tags

    def __sklearn_clone__(self) -> Self:
        # scikit-learn's clone would copy the backbone, which may be large, and which clones do not change.
        clone = type(self)(**self.get_params(deep=False))
        clone.__dict__.update({k: v for k, v in self.__dict__.items() if k in self._shared})
        clone.__dict__.update({k: deepcopy(v) for k, v in self.__dict__.items() if k in _SETTINGS})
        return clone

    def find_domain(self) -> Domain | None:
        """Return the domain, read from its file if necessary.

        Raises
        ------
        TypeError, ValueError
            If it is neither a domain nor the file of one.
        """
        given, found = self._found
        if given is not self.domain:
            given = found = self.domain
            if isinstance(given, (str, os.PathLike)):
                found = Domain.load(os.fspath(given))
            elif not isinstance(given, (Domain, type(None))):
                raise TypeError(f"domain is {brief(repr(given))}; expected what adapt returns as domain, or its file")
            self._found = given, found
        return found

    def _extended(self, fingerprint: str) -> str:
        """Return the fingerprint of mapped embeddings, from that of the embeddings."""
        domain = self.find_domain()
        return fingerprint if domain is None else domain.extend(fingerprint)

    def _mapped(self, embedded: Embedded, fingerprint: str) -> Embedded:
        """Map embeddings, which come from an embedder with this fingerprint."""
        if (domain := self.find_domain()) is None:
            return embedded
        if domain.embedder != fingerprint:
            raise ValueError(
                f"domain was adapted to the embeddings of {domain.embedder[:12]}, and this embedder is "
                f"{fingerprint[:12]}; adapt again, with this embedder"
            )
        return replace(embedded, embeddings=domain(embedded.embeddings))
