"""A configuration: one value for each knob of a workload. What the values mean, the workload alone knows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from autotune.space.knobs import KnobValue


class InvalidConfiguration(ValueError):
    """A value or combination of values that no training run can have: rule, value and remedy in one line."""


class Configuration(Mapping[str, KnobValue]):
    """An immutable, hashable mapping from the names of knobs to their values, in the order it was made in.

    Two are equal that have the same values, whatever their order. It checks nothing: `Workload.check` does.
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
        """This configuration with other values for the named knobs."""
        return Configuration({**self._values, **values})

    def difference(self, other: Configuration) -> dict[str, KnobValue]:
        """The knobs in which this configuration differs from `other`, with the values it has here.

        A knob that one of the two lacks (it is younger than the study that kept it) makes no difference.
        """
        return {name: value for name, value in self._values.items() if name in other and other[name] != value}
