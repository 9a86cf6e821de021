"""Virtual keys, in memory: the secret that a caller presents → the principal it is. No I/O."""

import hashlib
import hmac
import re
from collections.abc import Iterable

from msgspec import Struct

from aiproxyd.config import KeySettings
from aiproxyd.globs import compile_globs


class Principal(Struct, frozen=True):
    """An authenticated caller."""

    name: str
    allowed_models: re.Pattern[str] | None = None
    """What the names of models that it may use look like; None: all."""

    def may_use(self, model: str) -> bool:
        """Tell whether the caller may use *model*, by the name that it asked for."""
        return self.allowed_models is None or self.allowed_models.match(model) is not None


ANONYMOUS = Principal("-")
"""Whoever calls where no key is asked for."""


class Keyring:
    """All virtual keys."""

    def __init__(self, keys: Iterable[KeySettings]) -> None:
        self._principals = {
            key.digest: Principal(key.name, compile_globs(key.models) if key.models else None) for key in keys
        }

    @property
    def is_empty(self) -> bool:
        """Whether no key is configured, so that nobody can present one."""
        return not self._principals

    def find(self, secret: str) -> Principal | None:
        """Return the principal whose key *secret* is.

        Takes the same time for any wrong secret: only SHA-256 digests are compared, each of them with all of its bytes.
        """
        presented = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
        found: Principal | None = None
        for digest, principal in self._principals.items():
            if hmac.compare_digest(digest, presented):
                found = principal
        return found
