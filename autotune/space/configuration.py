"""A configuration: one value for each knob of a workload. Only the workload knows what they mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from autotune.space.knobs import KnobValue


class InvalidConfiguration(ValueError):
    """A value or combination of values that no training run can have: rule, value and remedy in one line."""


class Configuration(Mapping[str, KnobValue]):
    """An immutable, hashable mapping from knob names to values, in insertion order.

    Equality ignores the order. It validates nothing: `Workload.check` does.
    """

    __slots__ = ("_hash", "_values")

    def __init__(self, values: Mapping[str, KnobValue]) -> None:
        self._values = dict(values)
        self._hash = hash(frozenset(self._values.items()))

    def __getitem__(self, name: str) -> KnobValue:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self._values == other._values if isinstance(other, Configuration) else NotImplemented

    def __repr__(self) -> str:
        return f"Configuration({self._values!r})"

    def with_values(self, values: Mapping[str, KnobValue]) -> Configuration:
        """A copy with new values for the named knobs."""
        return Configuration({**self._values, **values})

    def difference(self, other: Configuration) -> dict[str, KnobValue]:
        """The knobs in which this configuration differs from `other`, with their values here.

        A knob missing from one of the two (added after its study was stored) is not a difference.
        """
        theirs = other._values
        return {name: value for name, value in self._values.items() if theirs.get(name, value) != value}
