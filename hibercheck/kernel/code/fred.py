"""How a kernel uses FRED, which takes the place of the IDT on CPUs that have it: when, and on which stacks.

What the processor does is in Intel's "Flexible Return and Event Delivery" specification; here is what a kernel tells it
(arch/x86/kernel/fred.c).
"""

from __future__ import annotations

from hibercheck.data import dataclass
from hibercheck.kernel.code.disasm import Decoded
from hibercheck.kernel.code.model import Evidence, Trait
from hibercheck.kernel.code.program import Function, Program
from hibercheck.kernel.code.values import absent, argument, calls_to, quote

_RSP1, _STACK_LEVELS = 0x1CD, 0x1D0
"""MSRs: IA32_FRED_RSP1, which RSP2 and RSP3 follow, and IA32_FRED_STKLVLS."""
_LOOK_BACK = 4
_ON, _OFF = len("on"), len("off")


@dataclass(frozen=True, slots=True)
class FredReader:
    """Reads what a kernel does with FRED.

    Attributes:
        program: The kernel's code.
    """

    program: Program

    def default(self) -> Trait[bool]:
        """Whether it uses FRED unless ``fred=off`` says no; else only where ``fred=on`` says so.

        cpu_parse_early_param() compares the length of what ``fred=`` is with that of the one word that counts.
        """
        name = "fred_default"
        function = self.program.function_of("cpu_parse_early_param")
        if function is None:
            return Trait(
                name, None, (absent("cpu_parse_early_param"),), reason="the code that obeys fred= was not found"
            )
        for call in calls_to(function, [self.program.address("cmdline_find_option")]):
            key = argument(function, call, "rsi")
            if key is None or self.program.string(key) != b"fred":
                continue
            after = sorted(at for at in function.nodes if at > call)[:_LOOK_BACK]
            compared = [node for node in map(function.nodes.__getitem__, after) if node.mnemonic == "cmp"]
            if compared and compared[0].immediate in (_ON, _OFF):
                word = "on" if compared[0].immediate == _ON else "off"
                evidence = quote(function, compared[0], f'the length of "{word}"')
                return Trait(name, word == "off", (evidence,))
            return Trait(name, None, reason="with what cpu_parse_early_param() compares fred= was not read")
        if function.truncated:
            return Trait(name, None, reason=f"{function.name} could not be read to its end: {function.truncated}")
        return Trait(name, None, (absent("fred="),), reason="cpu_parse_early_param() does not ask for fred=")

    def stacks(self) -> Trait[tuple[int, ...]]:
        """Return the levels of its stacks (IA32_FRED_STKLVLS), and where those of levels 1 to 3 end.

        The latter are bytes from where the per-CPU ``cea_exception_stacks`` points.
        """
        name = "fred_stacks"
        written: dict[int, tuple[int, Evidence]] = {}
        for title in ("cpu_init_fred_exceptions", "cpu_init_fred_rsps"):  # the second was part of the first
            function = self.program.function_of(title)
            for node in function or ():
                msr = argument(function, node.address, "rdi") if function and node.mnemonic == "call" else None
                if function is None or msr is None or not _RSP1 <= msr <= _STACK_LEVELS:
                    continue
                value, at = _value(function, node, msr)
                if value:
                    written[msr] = value, quote(function, at, f"MSR {msr:#x}")
        wanted = (_STACK_LEVELS, _RSP1, _RSP1 + 1, _RSP1 + 2)
        if not all(msr in written for msr in wanted):
            missing = ", ".join(f"{msr:#x}" for msr in wanted if msr not in written)
            return Trait(name, None, reason=f"what it writes to the MSRs {missing} was not read")
        return Trait(name, tuple(written[msr][0] for msr in wanted), tuple(written[msr][1] for msr in wanted))


def _value(function: Function, call: Decoded, msr: int) -> tuple[int | None, Decoded]:
    """Return the constant that a call writes to an MSR; of a stack its distance from the per-CPU pointer."""
    if msr == _STACK_LEVELS:
        return argument(function, call.address, "rsi"), call
    before = sorted((at for at in function.nodes if at < call.address), reverse=True)[:_LOOK_BACK]
    for node in map(function.nodes.__getitem__, before):
        if node.destination == "rsi":
            found = node.effective if node.mnemonic == "lea" else None
            return (found.displacement if found is not None and found.base is not None else None), node
    return None, call
