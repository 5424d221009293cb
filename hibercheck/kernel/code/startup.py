"""What a kernel does while it starts: which CPUs it brings up in which order, and whose parameters it obeys."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from hibercheck.data import dataclass
from hibercheck.errors import MissingFact
from hibercheck.kernel.code.model import Evidence, Trait
from hibercheck.kernel.code.names import OF_ONE_CPU, OF_OTHER_CPUS, built_for_one_cpu
from hibercheck.kernel.code.program import Function, Program
from hibercheck.kernel.code.values import absent, argument, calls_to, quote, quote_call, references

_COMMAND_LINE_SIZE = 2048
"""COMMAND_LINE_SIZE, arch/x86/include/asm/setup.h."""

_COPIES = ("strlcpy", "strscpy", "sized_strscpy")
_MOST_STRINGS = 4096
_FORCED, _ASKED = b"skipping bootconfig", b"'bootconfig' found on command line, but"
"""Parts of what setup_boot_config() of init/main.c complains with: the first only where it is always read."""


@dataclass(frozen=True, slots=True)
class _Copy:
    """A copy of a string between two places that are known."""

    call: int
    target: int
    source: int


class StartupReader:
    """Reads a kernel's start.

    Args:
        program: The kernel's code.
        data_symbols: Whether the symbols include data, so that absence of one means something.
    """

    def __init__(self, program: Program, *, data_symbols: bool) -> None:
        self.program = program
        self.data_symbols = data_symbols

    def _unread(self) -> str:
        """Why what only starting code does is not known, where a function of it is not there."""
        return "the kernel's symbols lack the functions that start it"

    @property
    def _starts(self) -> bool:
        """Whether the code that starts the kernel is there at all, so that absence of a part means something."""
        return self.program.find("start_kernel") is not None

    # -- CPUs ------------------------------------------------------------------------------------------------------

    def one_cpu(self) -> Trait[bool]:
        """Whether it is built for one CPU, without CONFIG_SMP: it has what only such a kernel has."""
        name = "one_cpu"
        value = built_for_one_cpu(self.program.find)
        if value is None:
            asked = (*OF_ONE_CPU, *OF_OTHER_CPUS)
            return Trait(name, None, tuple(map(absent, asked)), reason="the kernel's symbols lack what would tell")
        found = next(filter(None, map(self.program.find, (*OF_OTHER_CPUS, *OF_ONE_CPU))))
        option = OF_ONE_CPU[found.name] if value else "CONFIG_SMP"
        return Trait(name, value, (Evidence(found.name, found.address, option),))

    def primaries_first(self) -> Trait[bool]:
        """Whether bringup_nonboot_cpus() starts the primary threads of all cores before their siblings.

        At run time it may still decide otherwise: arch_cpuhp_init_parallel_bringup() refuses where guest state is
        encrypted, or where the firmware brings CPUs up.
        """
        name = "parallel_bringup"
        function = self.program.function_of("bringup_nonboot_cpus")
        if function is None:
            reason = "it is built for one CPU" if built_for_one_cpu(self.program.find) else self._unread()
            return Trait(name, None, (absent("bringup_nonboot_cpus"),), reason=reason)
        inner = self.program.function_of("cpuhp_bringup_cpus_parallel")
        functions = [function, *([inner] if inner is not None else [])]
        for one in functions:
            asked = calls_to(one, [self.program.address("arch_cpuhp_init_parallel_bringup")])
            if not asked:
                continue
            evidence = [quote_call(self.program, one, asked[0])]
            mask = self.program.address("__cpu_primary_thread_mask")
            masks = references(one, mask) if mask is not None else []
            evidence += [quote(one, node, "cpu_primary_thread_mask") for node in masks[:1]]
            # The order is compiled in with CONFIG_HOTPLUG_SMT, which cpuhp_smt_enable() belongs to.
            smt = self.program.find("cpuhp_smt_enable")
            if mask is None and smt is not None:
                evidence.append(Evidence(smt.name, smt.address, "CONFIG_HOTPLUG_SMT"))
            return Trait(name, len(evidence) > 1, tuple(evidence))
        if function.truncated:
            return Trait(name, None, reason=f"{function.name} could not be read to its end: {function.truncated}")
        calls = ", ".join(sorted({self.program.name(target) for target in function.calls().values()}))
        return Trait(name, False, (Evidence(function.name, function.entry, f"it calls only {calls}"),))

    def switch(self) -> Trait[bool]:
        """Whether ``cpuhp.parallel=0`` makes it start them in order of their numbers."""
        name = "parallel_switch"
        symbol = self.program.find("parallel_bringup_parse_param")
        if symbol is not None:
            return Trait(name, True, (Evidence(symbol.name, symbol.address, 'early_param("cpuhp.parallel")'),))
        if not self._starts:
            return Trait(name, None, (absent("parallel_bringup_parse_param"),), reason=self._unread())
        return Trait(name, False, (absent("parallel_bringup_parse_param"),))

    # -- The command line ------------------------------------------------------------------------------------------

    @cached_property
    def _copies(self) -> tuple[_Copy, ...] | None:
        """Copies of strings in setup_arch() from and to known places; None where it was not found."""
        function = self.program.function_of("setup_arch")
        return None if function is None else tuple(self._known_calls(function, _COPIES))

    def _known_calls(self, function: Function, names: tuple[str, ...]) -> Iterator[_Copy]:
        for call in calls_to(function, [self.program.address(name) for name in names]):
            target, source = (argument(function, call, register) for register in ("rdi", "rsi"))
            if target is not None and source is not None:
                yield _Copy(call, target, source)

    @cached_property
    def _builtin(self) -> tuple[int, Evidence] | None:
        """Where CONFIG_CMDLINE lies, and what says so; None where there is none or it was not found.

        setup_arch() copies it to boot_command_line, and that to what it hands to start_kernel().
        """
        symbol = self.program.find("builtin_cmdline")
        if symbol is not None:
            return symbol.address, Evidence(symbol.name, symbol.address, "CONFIG_CMDLINE")
        if self.data_symbols:
            return None  # setup_arch() is long: following it where the symbols have told took a tenth of a check's time
        function = self.program.function_of("setup_arch")
        for first in self._copies or ():
            if function is not None and any(first.target == then.source for then in self._copies or ()):
                return first.source, quote_call(self.program, function, first.call)
        return None

    def builtin_cmdline(self) -> Trait[str]:
        """Return the command line that is built in (CONFIG_CMDLINE); empty if there is none.

        It comes before the boot loader's, or replaces it.  What runs before the kernel proper does not see it: the
        decompressor looks for ``nokaslr`` in the boot loader's alone (arch/x86/boot/compressed/cmdline.c).
        """
        name = "builtin_cmdline"
        if self._builtin is None:
            if self.data_symbols:
                return Trait(name, "", (absent("builtin_cmdline"),))
            if not self._copies:
                return Trait(name, None, reason="the code of setup_arch() that would use it was not understood")
            return Trait(name, "", (absent("setup_arch", "it copies nothing to boot_command_line"),))
        address, evidence = self._builtin
        try:
            line = self.program.kernel.read(address, _COMMAND_LINE_SIZE).split(b"\0", 1)[0]
        except MissingFact:
            return Trait(name, None, (evidence,), reason="its contents are not in this file: they are freed after boot")
        return Trait(name, line.decode("utf-8", "replace").strip(), (evidence,))

    def overrides(self) -> Trait[bool]:
        """Whether it replaces the boot loader's command line (CONFIG_CMDLINE_OVERRIDE) instead of preceding it."""
        name = "builtin_cmdline_overrides"
        if self._builtin is None:
            return Trait(name, None, reason="no command line is built in")
        address = self._builtin[0]
        function = self.program.function_of("setup_arch")
        if function is None:
            return Trait(name, None, (absent("setup_arch"),), reason=self._unread())
        for join in self._known_calls(function, ("strlcat",)):
            if join.target == address:
                note = "the boot loader's is appended to it"
                evidence = quote_call(self.program, function, join.call)
                return Trait(name, False, (Evidence(evidence.symbol, evidence.address, f"{evidence.text}  # {note}"),))
        for copy in self._copies or ():
            if copy.source == address:
                return Trait(name, True, (quote_call(self.program, function, copy.call),))
        return Trait(name, None, reason="the code of setup_arch() that uses it was not understood")

    def bootconfig(self) -> Trait[str]:
        """Whether parameters attached to the initramfs count: ``no``, ``if asked for`` (by ``bootconfig``), ``always``.

        The decompressor and early parameters do not see them (init/main.c, setup_boot_config()).
        """
        name = "bootconfig"
        reader = self.program.find("xbc_init")
        if reader is None:
            if not self._starts:
                return Trait(name, None, (absent("xbc_init"),), reason=self._unread())
            return Trait(name, "no", (absent("xbc_init"),))
        for caller in ("setup_boot_config", "start_kernel"):
            function = self.program.function_of(caller)
            for node, text in self._strings(function) if function is not None else ():
                for said, value in ((_FORCED, "always"), (_ASKED, "if asked for")):
                    if said in text:
                        printable = text.lstrip(b"\0010123456789").decode("ascii", "replace").strip()
                        return Trait(name, value, (Evidence(caller, node, repr(printable)),))
        evidence = (Evidence(reader.name, reader.address, "CONFIG_BOOT_CONFIG"),)
        return Trait(name, None, evidence, reason="what setup_boot_config() says was not found")

    def _strings(self, function: Function) -> list[tuple[int, bytes]]:
        """Strings that a function names, with the instruction that does; what only a forced kernel says comes first."""
        found: list[tuple[int, bytes]] = []
        for node in function:
            place = node.immediate
            if place is None and node.effective is not None:
                place = node.effective.address
            if place is None or place >> 31 != (1 << 33) - 1 or len(found) >= _MOST_STRINGS:
                continue
            found.append((node.address, self.program.string(place)))
        return sorted(found, key=lambda one: _FORCED not in one[1])
