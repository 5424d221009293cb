"""Facts of the resumer's run that a user may state by ``--fact NAME=VALUE``, each declared once.

They are what no other option says: most are known from a dump or from collected facts, and matter where there is none.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from hibercheck.cpulist import parse_cpu_list
from hibercheck.data import dataclass
from hibercheck.errors import UsageProblem
from hibercheck.numbers import decimal


@dataclass(frozen=True, slots=True)
class GivenFact:
    """One such fact.

    Attributes:
        name: As ``--fact`` takes it.
        what: What it says, in one clause.
        form: How its value is written.
        parse: Turns the value into data; raises ValueError with a reason.
    """

    name: str
    what: str
    form: str
    parse: Callable[[str], Any]


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"is not one of {', '.join(words)}")
        return text

    return parse


def _signed_flags(text: str) -> dict[str, bool]:
    """Parse ``+mwait,-pcid``."""
    flags = {}
    for word in filter(None, (part.strip() for part in text.split(","))):
        if not re.fullmatch(r"[+-][0-9A-Za-z_]+", word):
            raise ValueError(f"{word!r} is not a CPU flag with + or - before it")
        flags[word[1:]] = word[0] == "+"
    if not flags:
        raise ValueError("names no CPU flag")
    return flags


def _pages(text: str) -> int:
    try:
        return decimal(text, 10**15)
    except ValueError:
        raise ValueError("is not a number of pages") from None


def _count(text: str) -> int:
    try:
        return decimal(text, 10**9)
    except ValueError:
        raise ValueError("is not a number up to 999999999") from None


def _line_size(text: str) -> int:
    sizes = [1 << power for power in range(3, 13)]
    if text not in map(str, sizes):
        raise ValueError("is not a power of two from 8 to 4096")
    return int(text)


def _alignment(text: str) -> int:
    """CONFIG_PHYSICAL_ALIGN as the x86-64 Kconfig has it."""
    sizes = {f"{size}M": size << 20 for size in (2, 4, 8, 16)}
    if text not in sizes:
        raise ValueError(f"is not one of {', '.join(sizes)}")
    return sizes[text]


FACTS = {
    fact.name: fact
    for fact in (
        GivenFact("cpus", "the CPUs that the resumer has", "LIST", parse_cpu_list),
        GivenFact("booted", "the CPUs that it has started at least once", "LIST", parse_cpu_list),
        GivenFact("smt", "whether it runs with SMT on", "on|off", _one_of("on", "off")),
        GivenFact("cpu-flags", "features that its CPU has or lacks unlike the resumee's", "+FLAG,-FLAG", _signed_flags),
        GivenFact(
            "cpu-vendor",
            "who made its CPU",
            "intel|amd|hygon|zhaoxin",
            _one_of("intel", "amd", "hygon", "zhaoxin"),
        ),
        GivenFact(
            "lockdown",
            "the mode of its kernel lockdown",
            "none|integrity|confidentiality",
            _one_of("none", "integrity", "confidentiality"),
        ),
        GivenFact(
            "lz4", "whether its LZ4 module is loaded before it resumes", "loaded|absent", _one_of("loaded", "absent")
        ),
        GivenFact(
            "hw-sig", "whether its firmware has the signature of the image", "same|other", _one_of("same", "other")
        ),
        GivenFact("pages", "its number of physical pages", "COUNT", _pages),
        GivenFact("free-pages", "how many of them are free when it resumes", "COUNT", _pages),
        GivenFact(
            "mwait",
            "whether a CPU in MWAIT sleeps, or MWAIT ends at once, always",
            "sleeps|ends",
            _one_of("sleeps", "ends"),
        ),
        GivenFact("exit-latency", "microseconds that a parked CPU takes to wake at most", "COUNT", _count),
        GivenFact("copy-rate", "pages that it copies in a millisecond", "COUNT", _count),
        GivenFact("line-size", "bytes of the line that MWAIT monitors, by CPUID.5", "64|128|...", _line_size),
        GivenFact("load-align", "what its random load address is a multiple of", "2M|4M|8M|16M", _alignment),
        GivenFact(
            "modes",
            "whether it finds x2APIC, IOMMU and memory encryption as the resumee has them",
            "same|other",
            _one_of("same", "other"),
        ),
        GivenFact(
            "resume",
            "who starts the resume: the kernel by its parameters, or a program by /sys/power/resume",
            "kernel|user",
            _one_of("kernel", "user"),
        ),
    )
}
"""By name.  A new one is one line here, and a `given()` among the sources of the fact that obeys it."""


def parse_fact(text: str) -> tuple[str, Any]:
    """Parse ``NAME=VALUE``.

    Raises:
        UsageProblem: There is no fact of that name, or its value is not valid.
    """
    name, equals, value = text.partition("=")
    fact = FACTS.get(name)
    if fact is None or not equals:
        raise UsageProblem(f"--fact {text!r} names no fact", advice=f"there are {', '.join(FACTS)}; write NAME=VALUE")
    try:
        return name, fact.parse(value)
    except ValueError as error:
        raise UsageProblem(f"--fact {name}={value} {error}", advice=f"write --fact {name}={fact.form}") from error
