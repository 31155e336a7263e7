"""Who may send: sources by write key, and the origins of each."""

from collections.abc import Iterable

from edgeproxy.config import Source
from edgeproxy.server.answers import RefusedError
from edgeproxy.server.origins import Origins

__all__ = ["Sources"]


class Sources:
    """The sources that the settings name."""

    def __init__(self, sources: Iterable[Source]) -> None:
        """Index sources by their keys; the settings make sure that no two share one."""
        sources = list(sources)
        self._by_key = {key: source for source in sources for key in source.write_keys}
        self._origins = {source.name: Origins(source.allowed_origins) for source in sources}
        self.all_origins = Origins(o for source in sources for o in source.allowed_origins)

    def find(self, candidates: Iterable[object]) -> Source | None:
        """The source of the first candidate that is not empty; None when that is no key of ours."""
        for key in candidates:
            if isinstance(key, str) and key:
                return self._by_key.get(key)
        return None

    def require(self, candidates: Iterable[object]) -> Source:
        """As `find`. Raises RefusedError where there is none."""
        source = self.find(candidates)
        if source is None:
            raise RefusedError(
                401, "unknown_key", "the write key is missing or is not one of this proxy's sources"
            )
        return source

    def allows(self, source: Source, origin: str) -> bool:
        """Say whether pages of an origin may send to a source."""
        return self._origins[source.name].allows(origin)
