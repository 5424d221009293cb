"""Whom the rescue reaches: traits of ``cpuhp_smt_enable`` and ``freeze_secondary_cpus``."""

from __future__ import annotations

from hibercheck.kernel.code import commits
from hibercheck.kernel.code.disasm import Decoded
from hibercheck.kernel.code.graph import cycle_through, leading_to
from hibercheck.kernel.code.model import Evidence, Trait
from hibercheck.kernel.code.program import Function, Program
from hibercheck.kernel.code.values import absent, calls_to, quote, quote_call, references

_MAX_CANDIDATES = 64
"""Instructions looked at for being in a loop; freeze_secondary_cpus has under ten."""

_BRING_UP = ("bringup_hibernate_cpu", "add_cpu", "cpu_up", "_cpu_up")
_PRIMARY = ("topology_get_primary_thread",)
_NEXT_IN_MASK = ("_find_next_bit", "find_next_bit", "cpumask_next")
_TOPOLOGY = ("cpuid_to_apicid", "x86_topo_system", "__cpu_primary_thread_mask")


def needs_primary(program: Program) -> Trait[bool]:
    """Whether ``cpuhp_smt_enable`` passes over CPUs whose core's primary thread is offline.

    It does if, between taking a CPU and calling ``_cpu_up`` for it, it asks for the CPU's primary thread: by a call of
    ``topology_get_primary_thread`` or ``topology_is_core_online``, or inlined, by a second test of the online mask that
    follows a look at the APIC ids.  It does not matter where the hook brings up all present CPUs by itself besides.
    """
    name = "rescue_needs_primary"
    everyone = _brings_all_up(program)
    return Trait(name, False, everyone) if everyone else _skips_by_primary(program, name)


def _skips_by_primary(program: Program, name: str) -> Trait[bool]:
    """Whether ``cpuhp_smt_enable``, whoever calls it, passes over CPUs whose core's primary thread is offline."""
    function = program.function_of("cpuhp_smt_enable")
    if function is None:
        return Trait(name, None, (absent("cpuhp_smt_enable"),), reason="there is no rescue to restrict")
    ups = calls_to(function, [program.address("_cpu_up"), program.address("cpu_up")])
    if not ups:
        return Trait(name, None, reason="cpuhp_smt_enable calls neither _cpu_up nor cpu_up: it could not be understood")
    asked = _asks_for_primary(program, function, ups)
    if asked:
        return Trait(name, True, asked, commits.PRIMARY_ONLINE)
    if function.truncated:
        return Trait(name, None, reason=f"cpuhp_smt_enable could not be read to its end: {function.truncated}")
    tests = [quote(function, node, "cpu_online(cpu)") for node in _online_tests(program, function)]
    calls = ", ".join(sorted({program.name(target) for target in function.calls().values()}))
    evidence = (*tests, Evidence(function.name, function.entry, f"it calls only {calls}"))
    return Trait(name, False, evidence, commits.PRIMARY_ONLINE)


def _brings_all_up(program: Program) -> tuple[Evidence, ...]:
    """Evidence for a loop over the present CPUs in the hook, which brings each of them up; empty if there is none."""
    hook, present = program.function_of("hibernate_resume_nonboot_cpu_disable"), program.address("__cpu_present_mask")
    if hook is None or present is None:
        return ()
    masks = references(hook, present)
    calls = calls_to(hook, [program.address(name) for name in _BRING_UP])
    looped = [address for address in calls[:_MAX_CANDIDATES] if cycle_through(hook.successors, address)]
    if not masks or not looped:
        return ()
    return quote(hook, masks[0], "the present CPUs"), quote_call(program, hook, looped[0])


def _asks_for_primary(program: Program, function: Function, ups: list[int]) -> tuple[Evidence, ...]:
    """Evidence for the question in the function, before a CPU is brought up; empty if it is not asked."""
    primary = [program.address(name) for name in _PRIMARY]
    before = leading_to(function.successors, ups)
    for address, target in sorted(function.calls().items()):
        if address in ups or address not in before:
            continue
        if target in primary:
            return (quote_call(program, function, address), *_second_test(program, function, address))
        if _asks(program, target, primary):
            return (quote_call(program, function, address),)
    online, topology = _online_tests(program, function), _topology(program, function)
    if len(online) > 1 and topology:
        return quote(function, topology[0], "APIC id of the CPU"), quote(function, online[-1], "cpu_online(primary)")
    return ()


def _asks(program: Program, target: int, primary: list[int | None]) -> bool:
    """Whether a helper called for each CPU asks for the primary thread itself."""
    if program.is_thunk(target) or program.is_noise(target) or program.is_known(target):
        return False
    helper = program.function(target)
    return bool(calls_to(helper, primary)) or bool(_online_tests(program, helper) and _topology(program, helper))


def _topology(program: Program, function: Function) -> list[Decoded]:
    """Instructions that look at APIC ids or at the layout of cores."""
    known = [address for name in _TOPOLOGY if (address := program.address(name)) is not None]
    return [node for address in known for node in references(function, address, 4)]


def _online_tests(program: Program, function: Function) -> list[Decoded]:
    """Bit tests of the mask of online CPUs."""
    mask = program.address("__cpu_online_mask")
    found = references(function, mask) if mask is not None else []
    return [node for node in found if node.mnemonic in ("bt", "test")]


def _second_test(program: Program, function: Function, after: int) -> tuple[Evidence, ...]:
    tests = [node for node in _online_tests(program, function) if node.address > after]
    return tuple(quote(function, node, "cpu_online(primary)") for node in tests[:1])


def needs_node(program: Program, *, data_symbols: bool) -> Trait[bool]:
    """Whether ``cpuhp_smt_enable`` passes over CPUs of an offline NUMA node (it consults ``node_states``).

    Where the kernel lists no data, that is the mask besides that of online CPUs whose bits it tests.
    """
    name = "rescue_needs_node"
    function = program.function_of("cpuhp_smt_enable")
    if function is None:
        return Trait(name, None, (absent("cpuhp_smt_enable"),), reason="there is no rescue to restrict")
    states, online = program.find("node_states"), program.find("__cpu_online_mask")
    if states is not None:
        found = references(function, states.address, states.size or 256)
    elif data_symbols:
        found = []
    elif online is not None:
        tests = [node for node in function if node.mnemonic == "bt"]
        found = [node for node in tests if any(one.address not in (None, online.address) for one in node.operands)]
    else:
        return Trait(name, None, (absent("node_states"),), reason="the kernel's symbols lack data")
    if found:
        return Trait(name, True, (quote(function, found[0], "node_online(cpu_to_node(cpu))"),))
    if function.truncated:
        return Trait(name, None, reason=f"{function.name} could not be read to its end: {function.truncated}")
    return Trait(name, False, (absent("node_states", "cpuhp_smt_enable does not test it"),))


def freeze_order(program: Program) -> Trait[str]:
    """In which order ``freeze_secondary_cpus`` takes the online CPUs down: it walks the mask, or counts down."""
    name = "freeze_order"
    wanted = ("freeze_secondary_cpus", "__freeze_secondary_cpus", "disable_nonboot_cpus")
    function = next((found for one in wanted if (found := program.function_of(one)) is not None), None)
    if function is None:
        return Trait(name, None, (absent("freeze_secondary_cpus"),), reason="the function was not found")
    walks = _calls_by_name(program, function, _NEXT_IN_MASK)
    in_loop = [address for address in walks[:_MAX_CANDIDATES] if cycle_through(function.successors, address)]
    if in_loop:
        return Trait(name, "ascending", (quote_call(program, function, in_loop[0]),))
    counts = [node for node in function if _counts_down(node)]
    looped = [n for n in counts[:_MAX_CANDIDATES] if cycle_through(function.successors, n.address)]
    if looped and (_online_tests(program, function) or _calls_by_name(program, function, ("cpu_online",))):
        return Trait(name, "descending", (quote(function, looped[0]),))
    return Trait(name, None, reason=f"the loop of {function.name} was not recognised")


def _calls_by_name(program: Program, function: Function, wanted: tuple[str, ...]) -> list[int]:
    """Addresses of calls to functions of some names, static copies of inline functions (-Os) among them."""
    return [at for at, to in sorted(function.calls().items()) if program.name(to).split(".", 1)[0] in wanted]


def _counts_down(node: Decoded) -> bool:
    """Whether an instruction takes one off a register."""
    if node.effective is not None:
        return node.effective.displacement == -1 and node.effective.index is None
    if node.mnemonic == "add":
        return node.immediate is not None and node.immediate & 0xFFFFFFFF == 0xFFFFFFFF
    return node.mnemonic in ("sub", "dec") and node.immediate in (1, None)


def rescans(program: Program) -> Trait[bool]:
    """Whether dead SMT siblings are woken and parked again once the cpuidle driver is there, and after a resume."""
    name = "rescans_dead_siblings"
    function = program.function_of("arch_cpu_rescan_dead_smt_siblings")
    if function is None:
        return Trait(name, False, (absent("arch_cpu_rescan_dead_smt_siblings"),))
    called = calls_to(function, [program.address("cpuhp_smt_enable")])
    evidence = [quote_call(program, function, address) for address in called]
    return Trait(name, True, tuple(evidence) or (Evidence(function.name, function.entry, "exists"),))


def reparks_siblings(program: Program) -> Trait[bool]:
    """Whether, resumed with SMT off, it brings the siblings up and takes them down again (``arch_resume_nosmt``)."""
    name = "reparks_siblings_after_resume"
    function = program.function_of("arch_resume_nosmt")
    if function is None:
        return Trait(name, False, (absent("arch_resume_nosmt"),))
    ways = ("cpuhp_smt_enable", "arch_cpu_rescan_dead_smt_siblings")
    called = calls_to(function, [program.address(one) for one in ways])
    if called:
        evidence = tuple(quote_call(program, function, address) for address in called)
        return Trait(name, True, evidence)
    if function.truncated:
        return Trait(name, None, reason=f"arch_resume_nosmt could not be read to its end: {function.truncated}")
    evidence = (Evidence(function.name, function.entry, "it calls neither cpuhp_smt_enable nor the rescan"),)
    return Trait(name, False, evidence)


def nosmt_targets(program: Program, reparks: Trait[bool]) -> Trait[str]:
    """Whom a kernel that was resumed with SMT off re-initialises besides the CPUs that it froze: cpuhp_smt_enable()'s.

    ``present`` is every CPU that is offline (and takes siblings down again, so that others stay up), ``online cores``
    only those whose core's primary thread is online, ``none`` where it does nothing of the kind.
    """
    name = "nosmt_resume_targets"
    if reparks.value is None:
        return Trait(name, None, reparks.evidence, reason=reparks.reason)
    if not reparks.value:
        return Trait(name, "none", reparks.evidence)
    skips = _skips_by_primary(program, name)
    if skips.value is None:
        return Trait(name, None, skips.evidence, reason=skips.reason)
    value = "online cores" if skips.value else "present"
    return Trait(name, value, (*reparks.evidence[:1], *skips.evidence), commits.PRIMARY_ONLINE)
