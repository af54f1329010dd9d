"""``attrs.define`` and ``attrs.frozen``, for classes that are made in half of the time.

attrs writes and compiles ``__eq__``, ``__hash__`` and ``__repr__`` anew for each class. A daemon makes some three
hundred before it answers, and compares few of them: here all share one of each. The rest is attrs' own, and what
makes no difference to whoever uses such a class (``attrs.evolve``, ``attrs.fields``, …) stays as it is.
"""

from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attrs import define, frozen
else:
    import attrs

    _OWN = frozenset(("__eq__", "__ne__", "__hash__", "__repr__"))
    _ASKED = frozenset(("eq", "order", "repr", "str", "unsafe_hash", "hash"))

    def define(maybe_cls: type | None = None, **options: Any) -> Any:
        """As ``attrs.define``."""
        return _decorate(attrs.define, maybe_cls, options, hashed=False)

    def frozen(maybe_cls: type | None = None, **options: Any) -> Any:
        """As ``attrs.frozen``."""
        return _decorate(attrs.frozen, maybe_cls, options, hashed=True)

    def _decorate(make: Any, maybe_cls: type | None, options: Any, *, hashed: bool) -> Any:
        def decorate(cls: type) -> type:
            if _ASKED & options.keys() or _OWN & vars(cls).keys() or issubclass(cls, BaseException):
                return make(**options)(cls)
            made = make(eq=False, repr=False, **options)(cls)
            if any(field.eq_key for field in made.__attrs_attrs__):
                raise TypeError(
                    f"{cls.__name__}: fields are compared by a key: take attrs' own decorator"
                )
            names = [field.name for field in made.__attrs_attrs__ if field.eq]
            # With its class, there are always several: of one name attrgetter gives the bare value.
            made.__compared__ = attrgetter("__class__", "__class__", *names)
            made.__eq__, made.__repr__ = _equals, _shown
            made.__hash__ = _hashed if hashed else None
            return made

        return decorate if maybe_cls is None else decorate(maybe_cls)


def _equals(self: Any, other: Any) -> Any:
    if other.__class__ is not self.__class__:
        return NotImplemented
    compared = self.__class__.__compared__
    return compared(self) == compared(other)


def _hashed(self: Any) -> int:
    return hash(self.__class__.__compared__(self))


@recursive_repr("...")
def _shown(self: Any) -> str:
    parts = []
    for field in self.__attrs_attrs__:
        if field.repr:
            show = repr if field.repr is True else field.repr
            parts.append(f"{field.name}={show(getattr(self, field.name))}")
    return f"{self.__class__.__qualname__.rsplit('>.', 1)[-1]}({', '.join(parts)})"


__all__ = ["define", "frozen"]
