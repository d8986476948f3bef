"""Frozen values that are called, compared and written down: attacks, modifications, structures, ways of transplanting.

A value is a frozen dataclass whose fields are numbers, texts, tuples of these, or other values. Its text and its JSON
are canonical: equal values have equal forms, in every process and on every machine, so that results, caches and the
cells of a sweep are keyed by them.
"""

import json
from dataclasses import MISSING, dataclass, fields
from typing import Any, Self

_TYPES: dict[str, type["Value"]] = {}


@dataclass(frozen=True)
class Value:
    """Base of the values. A subclass that is a frozen dataclass has a text and a JSON form, and can be read back.

    Examples
    --------
    >>> @dataclass(frozen=True)
    ... class Halved(Value):
    ...     strength: float
    ...     rounds: int = 1
    >>> str(Halved(0.5)), Halved(0.5, rounds=2).to_json()
    ('Halved(strength=0.5)', '{"rounds": 2, "strength": 0.5, "type": "Halved"}')
    >>> Value.from_json(Halved(0.5).to_json()) == Halved(0.5)
    True
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # By the bare name: JSON that was written before a module moved can still be read.
        _TYPES[cls.__name__] = cls

    def __str__(self) -> str:
        """The type with every field that differs from its default, in the order of the fields."""
        parts = []
        for field in fields(self):
            value = getattr(self, field.name)
            if field.default is MISSING or value != field.default:
                parts.append(f"{field.name}={value if isinstance(value, Value) else repr(value)}")
        return f"{type(self).__name__}({', '.join(parts)})"

    def to_json(self) -> str:
        """Every field and the name of the type, as JSON with sorted keys."""
        # Sorted keys and Python's shortest repr of a float make equal values equal texts everywhere.
        return json.dumps(_plain(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The value that `to_json` wrote.

        Raises
        ------
        ValueError : for another text, or a type that no imported module defines or that is no `cls`.
        """
        try:
            value = _built(json.loads(text))
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"expected the JSON of a {cls.__name__}, as to_json() writes it, got {text!r}") from error
        if not isinstance(value, cls):
            raise ValueError(f"expected the JSON of a {cls.__name__}, as to_json() writes it, got {text!r}")
        return value


def _plain(value: Any) -> Any:
    """Values as dictionaries, tuples as lists: what JSON has."""
    if isinstance(value, Value):
        return {"type": type(value).__name__, **{f.name: _plain(getattr(value, f.name)) for f in fields(value)}}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _built(plain: Any) -> Any:
    if isinstance(plain, dict):
        parts = {name: _built(item) for name, item in plain.items() if name != "type"}
        return _TYPES[plain["type"]](**parts)
    # JSON has no tuples, and values have no lists, as these cannot be hashed.
    if isinstance(plain, list):
        return tuple(_built(item) for item in plain)
    return plain
