"""From the settings' tables to a mapping set, noting every mistake with its table, key and remedy."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from edgeproxy.config.mistakes import Mistake, nearest
from edgeproxy.mapping.coercion import kind_of, suits
from edgeproxy.mapping.expressions import Expression, compile_expression
from edgeproxy.mapping.paths import EVERY, Path, parse_path, show_path
from edgeproxy.mapping.rules import Rule
from edgeproxy.mapping.table import field_table
from edgeproxy.mapping.transforms import TRANSFORMS, Chain, Step, Transform
from edgeproxy.mapping.values import Unfit, encode

__all__ = ["RULE_KEYS", "Notes", "RuleReader", "plain", "read_chain", "read_expression"]

RULE_KEYS = ("from", "value", "expr", "default", "transform", "when", "copy")
_TYPES = {row.output: row.type for row in field_table()}
_KINDS = {
    str: "a text",
    int: "a whole number",
    bool: "true or false",
    dict: "a table",
    list: "a list",
}


class Notes:
    """The mistakes of one document, as they are found."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.mistakes: list[Mistake] = []

    def add(self, table: str, key: str, problem: str, remedy: str = "") -> None:
        """Note one mistake."""
        self.mistakes.append(Mistake(self.where, table, key, problem, remedy))

    def unknown(self, table: str, given: Mapping[str, Any], known: tuple[str, ...]) -> None:
        """Note every key that means nothing here."""
        for key in given:
            if key not in known:
                self.add(table, key, "is not a known key", nearest(key, known))

    def typed(
        self, table: str, given: Mapping[str, Any], key: str, kind: type, default: Any
    ) -> Any:
        """A value of one type, or the default; of another type it is a mistake."""
        value = given.get(key, default)
        if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
            return value
        if key in given:
            self.add(table, key, f"is not {_KINDS[kind]}", "")
        return default

    def texts(self, table: str, given: Mapping[str, Any], key: str) -> tuple[str, ...]:
        """A list of texts, or one text alone."""
        value = given.get(key, [])
        found = [value] if isinstance(value, str) else value
        if not isinstance(found, list) or not all(isinstance(one, str) and one for one in found):
            self.add(table, key, "is not a text or a list of texts", f'write it as {key} = ["…"]')
            return ()
        return tuple(found)


def read_expression(
    notes: Notes, table: str, key: str, source: object, *, with_item: bool = False
) -> Expression | None:
    """Compile an expression; a mistake is noted and None given."""
    if not isinstance(source, str) or not source.strip():
        notes.add(table, key, "is not a text", "write an expression, as 'properties.total > 100'")
        return None
    try:
        return compile_expression(source, with_item=with_item)
    except ValueError as error:
        notes.add(table, key, f"the expression {source!r} cannot be used: {error}")
        return None


class RuleReader:
    """Reads the rules of one table."""

    def __init__(
        self, notes: Notes, secret: Callable[[str, str, Mapping[str, Any]], str | None]
    ) -> None:
        """Take where mistakes go, and what finds an HMAC key for a transform's options."""
        self._notes = notes
        self._secret = secret

    def rules(self, table: str, given: Mapping[str, Any]) -> tuple[Rule, ...]:
        """Every rule of a table; those with mistakes are left out."""
        found: dict[Path, Rule] = {}
        for key, value in given.items():
            rule = self._rule(table, key, value)
            if rule is None:
                continue
            if rule.output in found:
                self._notes.add(
                    table, key, f"is the same key as {found[rule.output].name}", "keep one of them"
                )
            found[rule.output] = rule
        return tuple(found.values())

    def _rule(self, table: str, key: str, given: object) -> Rule | None:
        before = len(self._notes.mistakes)
        output = self._path(table, key, key)
        if output is None:
            return None
        if isinstance(given, str | list):
            given = {"from": given}
        if not isinstance(given, dict):
            self._notes.add(
                table, key, "is neither a path nor a table",
                f'write a path in quotes, or {{ value = {json.dumps(given, default=str)} }} for a constant',
            )  # fmt: skip
            return None
        if not self._known(table, key, given):
            return None
        with_item = EVERY in output
        expr, when = (
            read_expression(self._notes, table, f"{key}: {part}", given[part], with_item=with_item)
            if part in given else None
            for part in ("expr", "when")
        )  # fmt: skip
        rule = Rule(
            output,
            f'{table} "{key}"',
            self._inputs(table, key, output, given),
            self._constant(table, key, "value", given),
            expr,
            self._constant(table, key, "default", given),
            read_chain(self._notes, table, key, given.get("transform", []), self._secret),
            when,
            bool(self._notes.typed(table, given, "copy", bool, False)),
        )
        return rule if len(self._notes.mistakes) == before else None

    def _known(self, table: str, key: str, given: Mapping[str, Any]) -> bool:
        unknown = [part for part in given if part not in RULE_KEYS]
        for part in unknown:
            self._notes.add(
                table, f"{key}: {part}", "is not a known key of a rule",
                f'{nearest(part, RULE_KEYS)} If a path was meant, put all of it in quotes: "{key}.{part}"',
            )  # fmt: skip
        suppliers = [part for part in ("from", "value", "expr") if part in given]
        if len(suppliers) > 1:
            self._notes.add(table, key, f"has both {' and '.join(suppliers)}", "keep one of them")
        if not given:
            self._notes.add(table, key, "is an empty table", "name a path, a value or a transform")
        if "default" in given and ("value" in given or "expr" in given):
            self._notes.add(
                table, key, "has a default beside a value or expr", "a default goes with from"
            )
        if "transform" in given and "value" in given:
            self._notes.add(
                table, key, "transforms a constant", "write the constant as it is to be sent"
            )
        return not unknown and bool(given)

    def _path(self, table: str, key: str, text: object) -> Path | None:
        try:
            if not isinstance(text, str):
                raise ValueError(f"{json.dumps(text, default=str)} is not a path")  # noqa: TRY004, TRY301
            return parse_path(text)
        except ValueError as error:
            self._notes.add(
                table, key, str(error), 'write it as properties.total, or context."odd key"'
            )
            return None

    def _inputs(
        self, table: str, key: str, output: Path, given: Mapping[str, Any]
    ) -> tuple[Path, ...]:
        if "value" in given or "expr" in given:
            return ()
        listed = given.get("from", show_path(output))
        listed = listed if isinstance(listed, list) else [listed]
        if not listed:
            self._notes.add(table, key, "has an empty list of inputs", "name at least one path")
        paths = [self._path(table, key, one) for one in listed]
        for path in paths:
            inner = 0 if path is None else path.count(EVERY)
            if path is not None and inner and output.count(EVERY) not in (0, inner):
                self._notes.add(
                    table, key, f"{show_path(path)} has {inner} [] and the key has {output.count(EVERY)}",
                    "give both as many, or leave [] out of one of them",
                )  # fmt: skip
        return tuple(path for path in paths if path is not None)

    def _constant(self, table: str, key: str, part: str, given: Mapping[str, Any]) -> bytes | None:
        if part not in given:
            return None
        try:
            text = encode(plain(given[part]))
        except Unfit as error:
            self._notes.add(
                table, f"{key}: {part}", str(error), "write a text, number, list or table"
            )
            return None
        wanted = _TYPES.get(key)
        if wanted is not None and not suits(kind_of(text), wanted):
            self._notes.add(
                table, f"{key}: {part}", f"is {kind_of(text)}, and Hightouch wants {wanted}",
                f"write it as a {wanted}",
            )  # fmt: skip
        return text


def plain(value: Any) -> Any:
    """TOML's dates and times as the text that JSON has for them."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.isoformat() if hasattr(value, "isoformat") else value


# --- transforms ---


def read_chain(
    notes: Notes,
    table: str,
    key: str,
    given: object,
    secret: Callable[[str, str, Mapping[str, Any]], str | None],
) -> Chain:
    """Build a chain from `"lower"`, `{ split = "," }` or a list of these."""
    steps: list[Step] = []
    for one in given if isinstance(given, list) else [given]:
        name, options = _named(one)
        if name is None:
            notes.add(table, key, f"{one!r} is not a transform", 'write "lower" or { split = "," }')
        elif name not in TRANSFORMS:
            notes.add(table, key, f"there is no transform {name!r}", nearest(name, TRANSFORMS))
        else:
            step = _build(notes, table, key, name, options, secret)
            steps.extend([] if step is None else [step])
    return tuple(steps)


def _named(given: object) -> tuple[str | None, object]:
    if isinstance(given, str):
        return given, {}
    if isinstance(given, dict) and len(given) == 1:
        return next(iter(given.items()))
    return None, {}


def _build(
    notes: Notes,
    table: str,
    key: str,
    name: str,
    given: object,
    secret: Callable[[str, str, Mapping[str, Any]], str | None],
) -> Step | None:
    transform = TRANSFORMS[name]
    if not isinstance(given, dict):
        if transform.main is None:
            notes.add(table, key, f"{name} takes no value alone", _shown(name, transform))
            return None
        given = {transform.main: given}
    options: dict[str, Any] = {}
    before = len(notes.mistakes)
    for option in given:
        if option not in transform.options and not (
            transform.keyed and option in ("key", "key_file")
        ):
            notes.add(table, key, f"{name} has no option {option!r}", _shown(name, transform))
    for option, spec in transform.options.items():
        value = given.get(option, spec.default)
        wrong = isinstance(value, bool) and spec.kind is not bool
        if option in given and (wrong or not isinstance(value, spec.kind)):
            notes.add(
                table, key, f"{name}: {option} is not {_KINDS[spec.kind]}", _shown(name, transform)
            )
        elif spec.required and option not in given:
            notes.add(table, key, f"{name} needs {option}", _shown(name, transform))
        options[option] = value
    if transform.keyed:
        options["key"] = secret(table, key, given)
    if len(notes.mistakes) > before:
        return None
    try:
        return transform.build(**options)
    except ValueError as error:
        notes.add(table, key, f"{name}: {error}", _shown(name, transform))
        return None


def _shown(name: str, transform: Transform) -> str:
    names = [*transform.options, *(("key", "key_file") if transform.keyed else ())]
    if not names:
        return f'write it as "{name}"'
    return f"write it as {{ {name} = {{ {', '.join(f'{option} = …' for option in names)} }} }}"
