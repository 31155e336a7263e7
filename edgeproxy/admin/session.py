"""The page's login: the token, once, for a cookie that no script can read.

The cookie is the time until which it is good and a keyed hash of that, made with the token: nothing
is stored, a restart keeps people logged in, and a changed token logs everybody out.
"""

import hashlib
import hmac
import time
from collections.abc import Callable

__all__ = ["DAYS", "Session"]

#: Days that a login lasts.
DAYS = 7


class Session:
    """Makes and judges the cookies of one token."""

    def __init__(self, token: str, now: Callable[[], float] = time.time) -> None:
        """`now` gives seconds since 1970. With an empty token no cookie is ever good."""
        self._key = token.encode()
        self._now = now
        # Instances on one host share its cookies: each token has a name of its own.
        self.name = f"edgeproxy_{self._hash('name')[:8]}"

    @property
    def is_needed(self) -> bool:
        """Whether there is a token at all."""
        return bool(self._key)

    def opens(self, token: str) -> bool:
        """Whether this is the token; takes the same time for every wrong one."""
        given = token.encode("utf-8", "surrogateescape")
        return bool(self._key) and hmac.compare_digest(given, self._key)

    def cookie(self) -> str:
        """A value that is good for DAYS."""
        until = str(int(self._now()) + DAYS * 86400)
        return f"{until}.{self._hash(until)}"

    def is_good(self, cookie: str) -> bool:
        """Whether a cookie was made with this token and is still good."""
        until, _, given = cookie.partition(".")
        if not self._key or not (until.isascii() and until.isdigit()) or len(until) > 12:
            return False
        own = hmac.compare_digest(
            given.encode("utf-8", "surrogateescape"), self._hash(until).encode()
        )
        return own and int(until) > self._now()

    def _hash(self, text: str) -> str:
        return hmac.new(self._key, f"edgeproxy session {text}".encode(), hashlib.sha256).hexdigest()
