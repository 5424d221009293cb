"""The arithmetic flags, each of which may be unknown (SDM volume 1, 3.4.3.1 "Status Flags")."""

from __future__ import annotations

from iced_x86 import ConditionCode

from hibercheck.data import dataclass


@dataclass(frozen=True, slots=True)
class Flags:
    """ZF, SF, CF, OF and PF; None where a flag is not known."""

    zf: bool | None = None
    sf: bool | None = None
    cf: bool | None = None
    of: bool | None = None
    pf: bool | None = None


NOT_KNOWN = Flags()


def flags_of(result: int | None, size: int, *, carry: bool, overflow: bool) -> Flags:
    """Return the flags after a result of ``size`` bytes; none is known if the result is not."""
    if result is None:
        return NOT_KNOWN
    return Flags(
        zf=result & ((1 << 8 * size) - 1) == 0,
        sf=bool(result >> (8 * size - 1) & 1),
        cf=carry,
        of=overflow,
        pf=(result & 0xFF).bit_count() % 2 == 0,
    )


def arithmetic(first: int | None, second: int | None, size: int, *, subtract: bool) -> tuple[int | None, Flags]:
    """Add or subtract in ``size`` bytes; return the result and the flags."""
    if first is None or second is None:
        return None, NOT_KNOWN
    top, mask = 8 * size - 1, (1 << 8 * size) - 1
    first, second = first & mask, second & mask
    result = (first - second if subtract else first + second) & mask
    carry = first < second if subtract else first + second > mask
    # overflow: the operands' signs differ (subtraction) or agree (addition), and the result's is not the first's
    signs = (first ^ second if subtract else ~(first ^ second)) & (first ^ result)
    return result, flags_of(result, size, carry=carry, overflow=bool(signs >> top & 1))


def holds(flags: Flags, condition: int) -> bool | None:
    """Evaluate the condition of a Jcc (SDM volume 2, "Jcc"), or None where a flag that it needs is not known.

    Args:
        flags: The flags.
        condition: A `iced_x86.ConditionCode`.
    """
    less = None if flags.sf is None or flags.of is None else flags.sf != flags.of
    pairs = (
        (ConditionCode.O, ConditionCode.NO, flags.of),
        (ConditionCode.B, ConditionCode.AE, flags.cf),
        (ConditionCode.E, ConditionCode.NE, flags.zf),
        (ConditionCode.BE, ConditionCode.A, _either(flags.cf, flags.zf)),
        (ConditionCode.S, ConditionCode.NS, flags.sf),
        (ConditionCode.P, ConditionCode.NP, flags.pf),
        (ConditionCode.L, ConditionCode.GE, less),
        (ConditionCode.LE, ConditionCode.G, _either(flags.zf, less)),
    )
    for positive, negative, value in pairs:
        if condition in (positive, negative):
            return None if value is None else value == (condition == positive)
    return None


def _either(first: bool | None, second: bool | None) -> bool | None:
    return True if first or second else None if first is None or second is None else False
