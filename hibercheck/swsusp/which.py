"""Which of several places on a disk is meant, and how they are called: partitions, and pages within them."""

from __future__ import annotations

from collections.abc import Iterator

from hibercheck.addresses import PAGE_SIZE
from hibercheck.errors import UsageProblem
from hibercheck.files.contents import Contents, contents_at
from hibercheck.files.disk import Partition, Readable, holder, number_in, partitions
from hibercheck.swsusp.search import Marks

_SHOWN = 8


def choose_partition(disk: Readable, resume: str) -> Partition:
    """Return the partition that is meant.

    Args:
        disk: The disk, or a swap device or file system by itself.
        resume: Its number, or what the kernel's ``resume=`` takes: a device, ``UUID=``, ``LABEL=``, ``PARTUUID=`` or
            ``PARTLABEL=``.

    Raises:
        UsageProblem: There is none, with what there is.
    """
    table = partitions(disk)
    kind, _, value = resume.partition("=")
    for one in table:
        if _is(disk, one, kind.upper() if value else "", value or resume):
            return one
    if value and kind.upper() in {"UUID", "LABEL"}:
        whole = Partition(0, 0, 0)
        if _is(disk, whole, kind.upper(), value):
            return whole
    there = ", ".join(_called(one, contents_at(disk, one.start)) for one in table[:_SHOWN]) or "no partition"
    more = ", ..." if len(table) > _SHOWN else ""
    raise UsageProblem(f"{resume} is not one of its partitions; there is {there}{more}", path=disk.path)


def _is(disk: Readable, one: Partition, kind: str, value: str) -> bool:
    value = value.strip('"')
    if kind in {"UUID", "LABEL"}:
        contents = contents_at(disk, one.start)
        own = (contents.uuid if kind == "UUID" else contents.label) if contents is not None else None
    elif kind in {"PARTUUID", "PARTLABEL"}:
        own = one.uuid if kind == "PARTUUID" else one.label
    else:
        return one.number == number_in(value)
    return own is not None and (own == value if kind.endswith("LABEL") else own.lower() == value.lower())


def _called(one: Partition, contents: Contents | None) -> str:
    names = [contents.kind] if contents is not None else []
    names += [f"UUID={contents.uuid}"] if contents is not None and contents.uuid else []
    names += [f"LABEL={contents.label}"] if contents is not None and contents.label else []
    names += [f"PARTUUID={one.uuid}"] if one.uuid and not names[1:] else []
    return f"{one.number} ({', '.join(names)})" if names else str(one.number)


def numbers_of(offset: int, table: tuple[Partition, ...]) -> str:
    """Say where a byte is in the numbers that ``--resume`` and ``--resume-offset`` take."""
    one = holder(table, offset)
    start = 0 if one is None else one.start
    if (offset - start) % PAGE_SIZE:
        return f"at byte {offset:#x}"
    page = (offset - start) // PAGE_SIZE
    options = [] if one is None else [f"--resume {one.number}"]
    options += [f"--resume-offset {page}"] if page or one is None else []
    return " ".join(options)


def described(disk: Readable, table: tuple[Partition, ...], marks: Marks) -> tuple[str, str]:
    """Say what a disk holds, and how to get at a swap space that something encloses; both may be empty."""
    held, advice = [], ""
    for name, contents in _everything(disk, table, marks):
        held.append(f"{name} is {contents.kind}")
        if contents.advice and (not advice or "/dev/" in contents.advice):
            advice = contents.advice
    more = ", ..." if len(held) > _SHOWN else ""
    return ", ".join(held[:_SHOWN]) + more, advice


def _everything(disk: Readable, table: tuple[Partition, ...], marks: Marks) -> Iterator[tuple[str, Contents]]:
    places = {one.start: f"partition {one.number}" for one in table} or {0: "the whole of it"}
    places |= {at: f"at byte {at:#x} there" for at in marks.offsets if at not in places}
    for at, name in places.items():
        contents = contents_at(disk, at)
        if contents is not None:
            yield name, contents
