"""Strict configuration: frozen models beside their owners, files and dotted overrides, errors that help."""

import copy
import difflib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from mixreorg.errors import MixreorgError
from mixreorg.files import read_json


class StrictConfig(BaseModel):
    """Base of every configuration: immutable, no unknown keys, no silent conversions between types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "config") -> Self:
        """Validate plain values as read from JSON or YAML.

        Args:
            values: nested mappings of plain values.
            source: what the error message calls the origin of the values.

        Raises:
            MixreorgError: unknown key (with the nearest right one), wrong type, or a number that is not finite, one
                line per problem.
        """
        infinite = [f"{source}: {name}: numbers must be finite (got {value})" for name, value in _not_finite(values)]
        if infinite:
            raise MixreorgError("\n".join(infinite))
        try:
            # Through JSON, so that lists become tuples and everything else stays strict.
            return cls.model_validate_json(json.dumps(values))
        except ValidationError as error:
            raise MixreorgError(_explain(cls, error, source)) from None
        except (TypeError, ValueError) as error:
            raise MixreorgError(f"{source}: values must be plain JSON or YAML data ({error})") from None

    def to_dict(self) -> dict[str, Any]:
        """Return plain nested values that :meth:`from_dict` reads back to an equal configuration."""
        values: dict[str, Any] = self.model_dump(mode="json")
        return values

    def with_overrides(self, assignments: Iterable[str], source: str = "--set") -> Self:
        """Return a validated copy with dotted assignments applied.

        Args:
            assignments: as for :func:`assign`.
            source: what error messages call the origin of the assignments.

        Raises:
            MixreorgError: an assignment without ``=``, an unknown key, a wrong type.
        """
        return type(self).from_dict(assign(self.to_dict(), assignments, type(self), source), source=source)

    def updated(self, **changes: Any) -> Self:
        """Return a validated copy with top-level fields replaced; how recipes derive from each other."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        try:
            return type(self).model_validate({**values, **changes})
        except ValidationError as error:
            raise MixreorgError(_explain(type(self), error, type(self).__name__)) from None


def read_config_file(path: Path) -> dict[str, Any]:
    """Read a YAML or JSON file of configuration values.

    Raises:
        MixreorgError: missing file, broken syntax, a name given twice, or a document that is not a mapping.
    """
    if path.suffix == ".json":
        values = read_json(path, _without_repeats)
    else:
        import yaml  # in the extra "train": only training reads YAML

        try:
            values = yaml.load(path.read_text(encoding="utf-8"), _yaml_loader())
        except OSError as error:
            raise MixreorgError(f"cannot read {path}: {error.strerror or error}") from error
        except (yaml.YAMLError, ValueError, RecursionError) as error:  # also of 2026-02-30, or of too many brackets
            raise MixreorgError(f"{path} is not valid YAML: {error}") from error
    try:
        json.dumps(values, default=str, skipkeys=True)
    except (ValueError, RecursionError):  # of a circle
        raise MixreorgError(f"{path}: an alias (*NAME) stands inside of what it names; write the values out") from None
    if not isinstance(values, dict):
        raise MixreorgError(f"{path} must hold a mapping of configuration names to values")
    return values


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Lay nested ``changes`` over ``base``; mappings are merged, everything else is replaced.

    A mapping of another ``kind`` replaces the old one: its fields belong to something else.
    """
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        if (
            isinstance(old, Mapping)
            and isinstance(value, Mapping)
            and value.get("kind", old.get("kind")) == old.get("kind")
        ):
            merged[key] = merge(old, value)
        else:
            merged[key] = value
    return merged


def assign(
    values: Mapping[str, Any], assignments: Iterable[str], owner: type[StrictConfig], source: str = "--set"
) -> dict[str, Any]:
    """Apply dotted assignments, for example ``["optim.lr=1e-3"]``, to nested values that are validated afterwards.

    The right-hand side is read as JSON where it is JSON (``3``, ``0.5``, ``true``, ``[1, 2]``, ``null``) and as text
    otherwise.

    Args:
        values: of all fields; a section of a ``kind`` may leave some to their defaults.
        assignments: in the order in which they are applied.
        owner: the configuration that the values are of.
        source: what error messages call the origin of the assignments.

    Returns:
        A copy.

    Raises:
        MixreorgError: an assignment without ``=``, or an unknown key.
    """
    assigned = copy.deepcopy(dict(values))
    for assignment in assignments:
        path, separator, text = assignment.partition("=")
        if not separator or not path.strip():
            raise MixreorgError(f"{source} {assignment!r}: write it as NAME=VALUE, for example optim.lr=1e-3")
        _assign(assigned, path.strip().split("."), _parse_value(text.strip()), owner, source)
    return assigned


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Dotted names of the values that two nested mappings do not share, in the order of ``after``, then ``before``."""
    names: list[str] = []
    for name in {**after, **before}:
        old, new = before.get(name), after.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            names += [f"{name}.{inner}" for inner in differences(old, new)]
        elif name not in before or name not in after or old != new:
            names.append(str(name))
    return names


def _not_finite(values: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, float]]:
    """Dotted names of NaN and infinity, which Python's JSON and YAML read, in nested values."""
    if isinstance(values, float) and not math.isfinite(values):
        yield ".".join(path), values
    items = values.items() if isinstance(values, Mapping) else enumerate(values) if isinstance(values, list) else ()
    for name, value in items:
        yield from _not_finite(value, (*path, str(name)))


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError(_repeated([name for name, _ in pairs]))
    return values


def _repeated(names: list[str]) -> str:
    name = next(name for name in names if names.count(name) > 1)
    return f"{name!r} stands twice in one section; keep one of them"


def _yaml_loader() -> Any:
    """A safe loader that refuses repeated names and takes for numbers what people mean as such.

    ``1e-3`` is one, as in YAML 1.2; ``012`` and ``1:30``, 10 and 90 to PyYAML's YAML 1.1, are text.
    """
    import re

    import yaml

    class Loader(yaml.SafeLoader):
        def compose_mapping_node(self, anchor: Any) -> Any:
            node = super().compose_mapping_node(anchor)
            names = [
                key.value
                for key, _ in node.value
                if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge"
            ]
            if len(set(names)) < len(names):
                raise yaml.composer.ComposerError(None, None, _repeated(names), node.start_mark)
            return node

    numbers = {f"tag:yaml.org,2002:{kind}" for kind in ("int", "float")}
    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in numbers]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    for kind, pattern in {
        "int": r"[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F]+)",
        "float": r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
    }.items():
        Loader.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", re.compile(f"^({pattern})$"), list("-+.0123456789"))
    return Loader


def _parse_value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _assign(values: dict[str, Any], path: list[str], value: Any, owner: type[BaseModel], source: str) -> None:
    # A section of a changed kind has other fields than its old values; validation knows them.
    is_known = True
    for depth, name in enumerate(path[:-1]):
        is_known = is_known and "kind" not in values
        if not is_known:
            values.setdefault(name, {})
        if not isinstance(values.get(name), dict):
            raise MixreorgError(f"{source}: {_no_section(values, path, depth, value, owner)}")
        values = values[name]
    if path[-1] not in values and is_known and "kind" not in values:
        raise MixreorgError(
            f"{source}: {'.'.join(path)} is not a field of {owner.__name__}{_nearest(path[-1], list(values))}"
        )
    if path[-1] == "kind" and values.get("kind", value) != value:
        # Another kind has other fields: those of the old one go.
        values.clear()
    values[path[-1]] = merge(values, {path[-1]: value})[path[-1]]


def _no_section(values: Mapping[str, Any], path: list[str], depth: int, value: Any, owner: type[BaseModel]) -> str:
    """Why nothing can be assigned below ``path[depth]``, a name that should be in ``values``."""
    name = ".".join(path[: depth + 1])
    if path[depth] not in values:
        return f"{name} is not a section of {owner.__name__}{_nearest(path[depth], list(values))}"
    if values[path[depth]] is not None:
        return f"{name} is not a section of {owner.__name__} but a value; set it whole"
    for inner in reversed(path[depth + 1 :]):
        value = {inner: value}
    return f"{name} is null, which has no fields; set it whole: {name}={json.dumps(value)}"


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"


def _explain(owner: type[BaseModel], error: ValidationError, source: str) -> str:
    lines = []
    for problem in error.errors():
        location = [str(part) for part in problem["loc"]]
        where = ".".join(_section(owner, location)[1]) or owner.__name__
        if problem["type"] == "extra_forbidden":
            section, _ = _section(owner, location[:-1])
            known = list(section.model_fields) if section else []
            name = section.__name__ if section else owner.__name__
            lines.append(f"{source}: {where} is not a field of {name}{_nearest(location[-1], known)}")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            # A whole section as the input of a check says nothing that the message does not.
            given = "" if isinstance(problem["input"], Mapping) else f" (got {problem['input']!r})"
            lines.append(f"{source}: {where}: {message}{given}")
    return "\n".join(lines)


def _section(owner: type[BaseModel], path: list[str]) -> tuple[type[BaseModel] | None, list[str]]:
    """Follow field names from ``owner`` to the configuration class they lead to.

    Where a field may hold one of several classes, the path names the one that was chosen, by its ``kind``.

    Returns:
        The class, or None where the path leaves the configuration, and the path without those kinds.
    """
    clean: list[str] = []
    section: type[BaseModel] | None = owner
    choices: list[type[BaseModel]] = []
    is_key = False
    for name in path:
        if is_key:
            # A key of a mapping or an index of a list leads to the class of its values.
            clean.append(name)
            is_key = False
            continue
        chosen = [item for item in choices if item.model_fields["kind"].default == name] if len(choices) > 1 else []
        if chosen:
            section, choices = chosen[0], []
            continue
        clean.append(name)
        field = section.model_fields.get(name) if section else None
        choices = _classes(field.annotation) if field else []
        is_key = bool(choices) and get_origin(field.annotation if field else None) in (dict, list, tuple)
        section = choices[0] if choices else None
    return section, clean


def _classes(annotation: Any) -> list[type[BaseModel]]:
    """Configuration classes that an annotation admits."""
    members = [annotation, *getattr(annotation, "__args__", ())]
    return [item for item in members if isinstance(item, type) and issubclass(item, BaseModel)]
