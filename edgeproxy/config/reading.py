"""Reads the tables of one file and what the environment lays over them.

A value comes from, in this order: `EDGEPROXY_TABLE__KEY`, the file, a variable that SDKs use too
(`PROJECT_WRITEKEY`, `WORKSPACE_REGION`), the default. At each of the first two a secret may be
given as a file instead (`x_file`). A mistake is noted and something stands in for the value, so
that reading goes on and all mistakes are found at once; the caller raises if there are any.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from edgeproxy.config.kind import Kind
from edgeproxy.config.mistakes import ConfigError, Mistake, nearest
from edgeproxy.config.settings import TABLES, kinds_of

__all__ = ["PREFIX", "Reader", "parse", "resolve"]

T = TypeVar("T", bound=msgspec.Struct)

PREFIX = "EDGEPROXY_"
_FALLBACKS = {
    ("hightouch", "write_key"): "PROJECT_WRITEKEY",
    ("hightouch", "region"): "WORKSPACE_REGION",
}
_ARRAYS = ("sources", "filters", "tests")


def parse(path: Path | None) -> dict[str, Any]:
    """The file's tables. Raises ConfigError when it cannot be read or is not TOML."""
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        remedy = "name a file that the user of this process can read with --config"
        mistake = Mistake(str(path), "", "", f"cannot be read ({error.strerror})", remedy)
    except UnicodeDecodeError as error:
        mistake = Mistake(str(path), "", "", f"is not UTF-8 at byte {error.start}")
    except tomllib.TOMLDecodeError as error:
        mistake = Mistake(str(path), "", "", f"is not TOML: {error}", "texts need quotes")
    raise ConfigError([mistake])


class Reader:
    """Reads tables one by one; collects mistakes and where each value came from."""

    def __init__(self, path: Path | None, environ: Mapping[str, str]) -> None:
        self.document = parse(path)
        self.where = str(path) if path else "no configuration file"
        self.folder = path.parent if path else Path()
        credentials = environ.get("CREDENTIALS_DIRECTORY")
        self.credentials = Path(credentials) if credentials else None
        self.mistakes: list[Mistake] = []
        self.unreadable: list[Mistake] = []
        """Files that settings name and this process cannot use: for some commands no matter."""
        self.failed: set[tuple[str, str]] = set()
        self.origins: dict[str, str] = {}
        self._environ = environ
        self._laid_over = self._environment()
        self._judge_top_level()

    def _judge_top_level(self) -> None:
        tables = [name for name, _ in TABLES] + ["mapping"]
        for name, value in self.document.items():
            if name not in tables and name not in _ARRAYS:
                wrong = "is not a known table" if isinstance(value, dict | list) else "has no table"
                self.note(f"[{name}]", "", wrong, nearest(name, [*tables, *_ARRAYS]))
            elif name in tables and not isinstance(value, dict):
                self.note(f"[{name}]", "", "is not a table", f"begin it with a line [{name}]")
            elif name in _ARRAYS and not (
                isinstance(value, list) and all(isinstance(item, dict) for item in value)
            ):
                self.note(f"[[{name}]]", "", "is not a list of tables", f"write [[{name}]]")

    def _environment(self) -> dict[tuple[str, str], str]:
        """Which variable speaks for which setting. An empty variable says nothing."""
        known = {
            (table, key + suffix): f"{PREFIX}{table}__{key}{suffix}".upper()
            for table, struct in TABLES
            for key, kind in kinds_of(struct).items()
            for suffix in (("", "_file") if kind.secret else ("",))
        }
        by_name = {variable: setting for setting, variable in known.items()}
        found = {}
        for variable, value in self._environ.items():
            if not variable.startswith(PREFIX) or not value.strip():
                continue
            if variable in by_name:
                found[by_name[variable]] = variable
            elif variable.startswith(f"{PREFIX}MAPPING__"):
                found["mapping", variable.removeprefix(f"{PREFIX}MAPPING__").lower()] = variable
            else:
                remedy = (
                    nearest(variable, by_name)
                    if "__" in variable
                    else (f"variables are written {PREFIX}TABLE__KEY, with two underscores between")
                )
                self.mistakes.append(Mistake(variable, "", "", "is not a known setting", remedy))
        return found

    def note(self, table: str, key: str, problem: str, remedy: str = "", where: str = "") -> None:
        """Note a mistake in the file, or in `where`."""
        self.mistakes.append(Mistake(where or self.where, table, key, problem, remedy))

    def note_unusable(self, table: str, key: str, problem: str, remedy: str) -> None:
        """Note that a plain table's setting names a file that cannot be used."""
        origin = self.origins.get(f"{table}.{key}", self.where)
        self.unreadable.append(Mistake(origin, f"[{table}]", key, problem, remedy))

    def rows(self, name: str) -> tuple[dict[str, Any], ...]:
        """The tables of an array such as `[[sources]]`; those that are not tables are left out."""
        rows = self.document.get(name)
        if not isinstance(rows, list):
            return ()
        return tuple(row for row in rows if isinstance(row, dict))

    def mapping(self) -> dict[str, object]:
        """`[mapping]` as written, with the scalars that the environment lays over it."""
        table = self.document.get("mapping")
        laid_over: dict[str, object] = {
            key: self._environ[variable]
            for (name, key), variable in self._laid_over.items()
            if name == "mapping"
        }
        return (table if isinstance(table, dict) else {}) | laid_over

    def table(self, name: str, struct: type[T]) -> T:
        """A plain table: the file's, with the environment laid over it."""
        given = self.document.get(name)
        return self.values(f"[{name}]", name, given if isinstance(given, dict) else {}, struct)

    def values(self, label: str, name: str, given: dict[str, Any], struct: type[T]) -> T:
        """The values of one table or row. `name` is what `failed` and `origins` call it."""
        kinds = kinds_of(struct)
        allowed = [*kinds, *(f"{key}_file" for key, kind in kinds.items() if kind.secret)]
        for key in given:
            if key not in allowed:
                self.note(label, key, "is not a known key", nearest(key, allowed))
        values: dict[str, Any] = {}
        for key, kind in kinds.items():
            try:
                origin, value = self._value(label, name, key, kind, given)
            except _WrongError as wrong:
                self.failed.add((name, key))
                if wrong.unreadable:
                    self.unreadable.append(wrong.mistake)
                    continue
                self.mistakes.append(wrong.mistake)
                if kind.secret:  # so that it is not reported as missing, too
                    values[key] = kind.read(f"unusable-{name}-{key}")
                continue
            self.origins[f"{name}.{key}"] = origin
            if origin != "default":
                values[key] = value
        return struct(**values)

    def _value(
        self, label: str, name: str, key: str, kind: Kind, given: dict[str, Any]
    ) -> tuple[str, object]:
        variable = self._laid_over.get((name, key), "")
        file_variable = self._laid_over.get((name, f"{key}_file"), "")
        fallback = _FALLBACKS.get((name, key), "")
        if variable and file_variable:
            raise _WrongError(
                variable, label, key, f"{file_variable} says it too", "unset one of them"
            )
        if variable:
            return variable, self._read(variable, label, key, kind, self._from(kind, variable))
        if file_variable:
            return file_variable, self._secret(
                file_variable, label, key, kind, self._environ[file_variable]
            )
        said, said_file = given.get(key), given.get(f"{key}_file")
        if said and said_file:
            raise _WrongError(self.where, label, key, f"{key}_file says it too", "keep one of them")
        if kind.secret and said_file:
            origin = f"{self.where}, {key}_file"
            return origin, self._secret(self.where, label, key, kind, said_file)
        if said is not None and not (fallback and said == ""):
            return self.where, self._read(self.where, label, key, kind, said)
        if fallback and self._environ.get(fallback, "").strip():
            return fallback, self._read(fallback, label, key, kind, self._from(kind, fallback))
        return "default", None

    def _from(self, kind: Kind, variable: str) -> object:
        return kind.from_text(self._environ[variable].strip())

    def _read(self, where: str, label: str, key: str, kind: Kind, value: object) -> object:
        try:
            found = kind.read(value)
        except ValueError as error:
            raise _WrongError(where, label, key, str(error)) from error
        if kind.file and found is not None:
            found = self.resolve(found)
            self._content(where, label, key, found)
        return found

    def _secret(self, where: str, label: str, key: str, kind: Kind, name: object) -> object:
        if not isinstance(name, str):
            raise _WrongError(where, label, f"{key}_file", "is not the name of a file")
        path = self.resolve(Path(name.strip()))
        try:
            content = self._content(where, label, f"{key}_file", path).decode()
        except UnicodeDecodeError as error:
            raise _WrongError(where, label, f"{key}_file", f"{path} is not text") from error
        if not content.strip():
            raise _WrongError(
                where, label, f"{key}_file", f"{path} is empty", "write the secret to it"
            )
        return self._read(where, label, f"{key}_file", kind, kind.from_text(content.strip()))

    def _content(self, where: str, label: str, key: str, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            remedy = "name a file that the user of this process can read"
            if self.credentials and path.parent == self.folder:
                remedy += f", or a credential in {self.credentials}"
            problem = f"{path}: {error.strerror}"
            raise _WrongError(where, label, key, problem, remedy, unreadable=True) from error

    def resolve(self, path: Path) -> Path:
        """Where a file named in the settings is: a credential of that name, else beside the file."""
        return resolve(path, self.folder, self.credentials)


def resolve(path: Path, folder: Path, credentials: Path | None) -> Path:
    """A relative name is a systemd credential if there is one, else beside the configuration.

    Where it may not be looked, it is taken to be there: reading it says what is wrong.
    """
    if credentials is None:
        return folder / path
    try:
        return credentials / path if (credentials / path).exists() else folder / path
    except OSError:
        return credentials / path


class _WrongError(Exception):
    """One value cannot be used."""

    def __init__(
        self,
        where: str,
        label: str,
        key: str,
        problem: str,
        remedy: str = "",
        *,
        unreadable: bool = False,
    ) -> None:
        super().__init__(problem)
        self.mistake = Mistake(where, label, key, problem, remedy)
        self.unreadable = unreadable
