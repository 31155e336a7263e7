"""`[mapping]` as a whole: its scopes, its event rules, presets, files of its own, the revision."""

import hashlib
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path as FilePath
from typing import Any

import msgspec

from edgeproxy.config import nearest, resolve
from edgeproxy.events.verdicts import TYPES
from edgeproxy.mapping.names import is_pattern, squeeze
from edgeproxy.mapping.paths import parse_path
from edgeproxy.mapping.reading import Notes, RuleReader
from edgeproxy.mapping.rules import EventRule, MappingSet, Rule

__all__ = ["BESIDE_FILE", "SECRETS", "Document", "MappingReader", "open_document", "revision_of"]

PRESETS = ("ecommerce",)
KEYS = (
    "revision", "file", "preset", "unmapped", "keep", "hmac_key", "hmac_key_file",
    "default", "global", "type", "event", "source",
)  # fmt: skip
#: What stays beside `file`: the rest is the file's.
SECRETS = ("hmac_key", "hmac_key_file")
BESIDE_FILE = ("file", *SECRETS)


class Document(msgspec.Struct):
    """The three tables of a mapping, wherever they stand."""

    mapping: dict[str, Any] = {}
    filters: list[dict[str, Any]] = []
    tests: list[dict[str, Any]] = []


def open_document(path: FilePath, notes: Notes) -> Document | None:
    """Read `[mapping]`, `[[filters]]` and `[[tests]]` of a file; other tables are not looked at."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        notes.add("", "", f"cannot be read: {error.strerror}", "name a file that exists")
        return None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        notes.add("", "", f"is not TOML: {error}")
        return None
    mapping = tables.get("mapping", {})
    rows: dict[str, list[dict[str, Any]]] = {}
    for name in ("filters", "tests"):
        given = tables.get(name, [])
        if not isinstance(given, list) or not all(isinstance(row, dict) for row in given):
            notes.add(f"[{name}]", "", "is not an array of tables", f"write it as [[{name}]]")
            given = []
        rows[name] = given
    if not isinstance(mapping, dict):
        notes.add("[mapping]", "", "is not a table", "write it as [mapping]")
        mapping = {}
    return Document(mapping, rows["filters"], rows["tests"])


def revision_of(document: Document) -> str:
    """The revision as given, or a hash of the rules: 12 characters, without any secret."""
    given = document.mapping.get("revision")
    if isinstance(given, str) and given:
        return given
    rules = (_without_keys(document.mapping), _without_keys(document.filters))
    text = msgspec.json.encode(rules, order="sorted")
    return hashlib.sha256(text).hexdigest()[:12]


def _without_keys(value: Any) -> Any:
    if isinstance(value, dict):
        secrets = ("key", "key_file", "hmac_key", "hmac_key_file", "file")
        return {
            k: _without_keys(v)
            for k, v in value.items()
            if k not in secrets or not isinstance(v, str)
        }
    return [_without_keys(item) for item in value] if isinstance(value, list) else value


class MappingReader:
    """Reads one `[mapping]`, noting every mistake."""

    def __init__(
        self,
        notes: Notes,
        given: Mapping[str, Any],
        folder: FilePath,
        credentials: FilePath | None = None,
        hmac_key: str | None = None,
    ) -> None:
        """Take the table.

        Args:
            folder: what relative names of files are relative to.
            credentials: where relative names of secrets' files are looked for first.
            hmac_key: the key where the table itself gives none.
        """
        self._notes = notes
        self._given = given
        self._folder = folder
        self._credentials = credentials
        self.hmac_key = self._key("[mapping]", "hmac_key", given) or hmac_key
        """What `hmac_sha256` uses that has no key of its own."""
        self._rules = RuleReader(notes, self._secret)

    def read(self, revision: str, sources: frozenset[str] | None = None) -> MappingSet:
        """The mapping set; what has mistakes is left out of it.

        Args:
            revision: see `revision_of`.
            sources: the sources that exist; None when not known.
        """
        notes, given = self._notes, self._given
        notes.unknown("[mapping]", given, KEYS)
        notes.typed("[mapping]", given, "revision", str, "")
        unmapped = given.get("unmapped", "forward")
        if unmapped not in ("forward", "drop"):
            notes.add("[mapping]", "unmapped", f"is {unmapped!r}", 'write "forward" or "drop"')
        keep = []
        for text in notes.texts("[mapping]", given, "keep"):
            try:
                keep.append(parse_path(text))
            except ValueError as error:
                notes.add("[mapping]", "keep", str(error), "write paths as properties.total")
        return MappingSet(
            revision,
            unmapped != "drop",
            tuple(keep),
            self._scope("default"),
            self._scope("global"),
            self._scopes("type", "an event type", TYPES),
            self._scopes("source", "a source", sources),
            self._events(),
        )

    # --- secrets ---

    def _secret(self, table: str, key: str, options: Mapping[str, Any]) -> str | None:
        found = self._key(table, "key", options, key) or self.hmac_key
        if found is None and not {"key", "key_file"} & set(options):
            self._notes.add(
                table, key, "hmac_sha256 has no key",
                'set hmac_key or hmac_key_file in [mapping], or give it key_file = "…"',
            )  # fmt: skip
        return found

    def _key(self, table: str, name: str, given: Mapping[str, Any], key: str = "") -> str | None:
        """A secret, or the content of the file that `<name>_file` names."""
        label = f"{key}: {name}" if key else name
        found = given.get(name)
        path = given.get(f"{name}_file")
        if found is not None and path is not None:
            self._notes.add(table, label, f"and {name}_file are both given", "keep one of them")
        if path is not None:
            if not isinstance(path, str):
                self._notes.add(table, f"{label}_file", "is not a text", "name a file")
                return None
            try:
                found = (
                    resolve(FilePath(path), self._folder, self._credentials)
                    .read_text(encoding="utf-8")
                    .strip()
                )
            except (OSError, UnicodeDecodeError) as error:
                why = getattr(error, "strerror", None) or "it is not text"
                self._notes.add(
                    table, f"{label}_file", f"cannot be read: {why}", "name a readable file"
                )
                return None
        if found is None:
            return None
        if not isinstance(found, str) or len(found) < _SHORTEST_KEY:
            self._notes.add(
                table, label, f"is not a text of at least {_SHORTEST_KEY} characters",
                "a shorter key can be guessed",
            )  # fmt: skip
            return None
        return found

    # --- scopes ---

    def _table(self, key: str) -> dict[str, Any]:
        given = self._given.get(key, {})
        if isinstance(given, dict):
            return given
        self._notes.add("[mapping]", key, "is not a table", f"write it as [mapping.{key}]")
        return {}

    def _scope(self, key: str) -> tuple[Rule, ...]:
        return self._rules.rules(f"[mapping.{key}]", self._table(key))

    def _scopes(
        self, key: str, what: str, known: frozenset[str] | None
    ) -> dict[str, tuple[Rule, ...]]:
        found = {}
        for name, rules in self._table(key).items():
            if known is not None and name not in known:
                self._notes.add(f"[mapping.{key}]", name, f"is not {what}", nearest(name, known))
            elif not isinstance(rules, dict):
                self._notes.add(
                    f"[mapping.{key}]",
                    name,
                    "is not a table of rules",
                    f"write [mapping.{key}.{name}]",
                )
            else:
                found[name] = self._rules.rules(f"[mapping.{key}.{name}]", rules)
        return found

    # --- events ---

    def _events(self) -> tuple[EventRule, ...]:
        own = self._event_rules(self._table("event"))
        preset = self._given.get("preset")
        if preset is None:
            return tuple(own.values())
        if preset not in PRESETS:
            self._notes.add(
                "[mapping]",
                "preset",
                f"there is none called {preset!r}",
                nearest(str(preset), PRESETS),
            )
            return tuple(own.values())
        text = (
            files("edgeproxy.mapping")
            .joinpath(f"presets/{preset}.toml")
            .read_text(encoding="utf-8")
        )
        shipped = self._event_rules(tomllib.loads(text)["mapping"]["event"])
        return tuple(
            own[title] + shipped[title] if title in shipped else own[title] for title in own
        ) + tuple(rule for title, rule in shipped.items() if title not in own)

    def _event_rules(self, tables: Mapping[str, Any]) -> dict[str, EventRule]:
        found: dict[str, EventRule] = {}
        for title, given in tables.items():
            if isinstance(given, dict):
                found[title] = self._event_rule(title, given)
            else:
                self._notes.add(
                    "[mapping.event]",
                    title,
                    "is not a table of rules",
                    f'write [mapping.event."{title}"]',
                )
        self._one_rule_each(found)
        return found

    def _event_rule(self, title: str, given: Mapping[str, Any]) -> EventRule:
        table = f'[mapping.event."{title}"]'
        names = self._notes.texts(table, given, "match") or (title,)
        sends = self._notes.typed(table, given, "event", str, title) or title
        rules = {key: value for key, value in given.items() if key not in ("match", "event")}
        return EventRule(
            title,
            sends,
            tuple(name for name in names if not name.startswith("~") and not is_pattern(name)),
            tuple(squeeze(name[1:]) for name in names if name.startswith("~")),
            tuple(name for name in names if is_pattern(name)),
            self._rules.rules(table, rules),
        )

    def _one_rule_each(self, rules: Mapping[str, EventRule]) -> None:
        seen: dict[str, str] = {}
        for rule in rules.values():
            for name in (
                *rule.exact,
                *(f"~{spelling}" for spelling in rule.spellings),
                *rule.patterns,
            ):
                if name in seen:
                    self._notes.add(
                        rule.name, "match", f"{name!r} is matched by [mapping.event.\"{seen[name]}\"] too",
                        "keep it in one of them",
                    )  # fmt: skip
                seen.setdefault(name, rule.title)


_SHORTEST_KEY = 16
