"""The parameter `domain` of embedders."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from fewshot.embedding.domain import Domain
from fewshot.embedding.network import Embedded
from fewshot.errors import brief


class Adapted:
    """An embedder whose parameter ``domain``, a `Domain`, the path of one, or None, maps its embeddings."""

    domain: Any = None
    #: The parameter, and the domain that was found for it. It stays even if the file is replaced.
    _found: tuple[Any, Domain | None] = (None, None)

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
