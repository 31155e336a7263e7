"""From the settings' raw tables to a Mapper that can be trusted, or to all that is wrong with them."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any, cast

from edgeproxy.config import Settings
from edgeproxy.config.mistakes import ConfigError, Mistake
from edgeproxy.mapping.checking import Types
from edgeproxy.mapping.filtering import read_filters
from edgeproxy.mapping.mapper import Mapper
from edgeproxy.mapping.reading import Notes
from edgeproxy.mapping.sets import (
    BESIDE_FILE,
    SECRETS,
    Document,
    MappingReader,
    open_document,
    revision_of,
)
from edgeproxy.mapping.testing import read_tests

__all__ = [
    "compile_document",
    "compile_file",
    "compile_mapping",
    "compile_settings",
    "mapping_mistakes",
]


def compile_mapping(
    mapping: Mapping[str, Any],
    filters: Sequence[Mapping[str, Any]] = (),
    tests: Sequence[Mapping[str, Any]] = (),
    *,
    types: Types = "coerce",
    folder: FilePath = FilePath(),
    where: str = "config.toml",
    sources: Iterable[str] | None = None,
) -> Mapper:
    """Compile a mapping.

    Args:
        mapping: `[mapping]` as TOML has it; with `file`, the rest is read from there.
        filters: `[[filters]]`; those of the file come after them.
        tests: `[[tests]]`, likewise.
        types: `validation.types`.
        folder: what relative names of files are relative to.
        where: what mistakes call the document.
        sources: the sources that exist, to tell a mistyped name; None when not known.

    Raises:
        ConfigError: with every mistake that was found.
    """
    document = Document(dict(mapping), [dict(row) for row in filters], [dict(row) for row in tests])
    mapper, mistakes = compile_document(document, types, folder, where, sources)
    if mistakes:
        raise ConfigError(mistakes)
    return mapper


def compile_settings(settings: Settings) -> Mapper:
    """Compile the mapping of a configuration. Raises ConfigError with every mistake."""
    mapper, mistakes = _from_settings(settings)
    if mistakes:
        raise ConfigError(mistakes)
    return mapper


def compile_file(settings: Settings, path: FilePath) -> Mapper:
    """Compile the mapping in another file, with the configuration's types, sources and key.

    Raises ConfigError with every mistake.
    """
    other = {"file": str(path.absolute())}
    secrets = {key: settings.mapping[key] for key in SECRETS if key in settings.mapping}
    document = Document(other | secrets)
    names = [source.name for source in settings.sources]
    types = cast(Types, settings.validation.types)
    mapper, mistakes = compile_document(
        document, types, settings.folder, str(path), names, settings.credentials
    )
    if mistakes:
        raise ConfigError(mistakes)
    return mapper


def mapping_mistakes(settings: Settings) -> Iterable[Mistake]:
    """What is wrong with the mapping of a configuration, its failing tests included: a Judge."""
    mapper, mistakes = _from_settings(settings)
    return mistakes or [failure.as_mistake() for failure in mapper.run_tests()]


def _from_settings(settings: Settings) -> tuple[Mapper, list[Mistake]]:
    document = Document(dict(settings.mapping), list(settings.filters), list(settings.tests))
    where = str(settings.path) if settings.path is not None else "no configuration file"
    names = [source.name for source in settings.sources]
    types = cast(Types, settings.validation.types)  # the settings allow no other word
    return compile_document(document, types, settings.folder, where, names, settings.credentials)


def compile_document(
    document: Document,
    types: Types,
    folder: FilePath,
    where: str,
    sources: Iterable[str] | None = None,
    credentials: FilePath | None = None,
) -> tuple[Mapper, list[Mistake]]:
    """As `compile_mapping`, giving the mistakes beside what could be made in spite of them."""
    notes = Notes(where)
    key: str | None = None
    found: list[Mistake] = []
    if document.mapping.get("file") is not None:
        key = MappingReader(notes, document.mapping, folder, credentials).hmac_key
        found = notes.mistakes
        document, notes, folder = _follow(document, notes, folder)
    reader = MappingReader(notes, document.mapping, folder, credentials, key)
    known = None if sources is None else frozenset(sources)
    mapper = Mapper(
        reader.read(revision_of(document), known),
        read_filters(notes, document.filters, known),
        types,
        read_tests(notes, document.tests),
    )
    return mapper, [*found, *(one for one in notes.mistakes if one not in found)]


def _follow(document: Document, notes: Notes, folder: FilePath) -> tuple[Document, Notes, FilePath]:
    """What `[mapping] file` names, with the filters and tests of both."""
    for key in document.mapping:
        if key not in BESIDE_FILE:
            notes.add("[mapping]", key, "stands beside file", "move it into that file")
    name = document.mapping["file"]
    if not isinstance(name, str) or not name:
        notes.add(
            "[mapping]", "file", "is not the name of a file", 'write file = "mappings/2026-11.toml"'
        )
        return Document(), notes, folder
    path = folder / name
    inner = Notes(str(path))
    theirs = open_document(path, inner)
    if theirs is None:
        inner.mistakes[:0] = notes.mistakes
        return Document(), inner, folder
    if "file" in theirs.mapping:
        inner.add(
            "[mapping]", "file", "stands in a file that is itself named by one", "take it out"
        )
    merged = Document(
        {key: value for key, value in theirs.mapping.items() if key != "file"},
        [*document.filters, *theirs.filters],
        [*document.tests, *theirs.tests],
    )
    return merged, inner, path.parent
