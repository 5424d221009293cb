"""The kernel's command line, read as the kernel reads it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibercheck.handoff.facts.arguments import parse_size, split_command_line, whole_number
from hibercheck.handoff.facts.cmdline import (
    CommandLine,
    compressor_asked,
    loader_part,
    parse_command_line,
    parse_running_line,
)
from hibercheck.handoff.facts.e820 import RAM, RESERVED, E820Entry, differences, edited, ram_pages, ram_runs


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("", []),
        ("quiet nosmt=force", [("quiet", None), ("nosmt", "force")]),
        ('a="b c" d', [("a", "b c"), ("d", None)]),
        ('"a=b c" d', [("a", "b c"), ("d", None)]),
        ("ro -- nosmt", [("ro", None)]),
        ("log-buf-len=1M", [("log_buf_len", "1M")]),
        ("a=b=c", [("a", "b=c")]),
        ('unbalanced="x y', [("unbalanced", "x y")]),
    ],
)
def test_splits_as_next_arg_does(text, pairs):
    assert split_command_line(text) == pairs


@pytest.mark.parametrize(
    ("text", "nosmt", "bugs"),
    [
        ("nosmt", True, set()),
        ("nosmt=force", True, set()),
        ("mitigations=auto", False, set()),
        ("mds=full,nosmt", False, {"mds"}),
        ("l1tf=full", False, {"l1tf"}),
        ("l1tf=flush,nosmt", False, {"l1tf"}),
        ("nosmtx", False, set()),
        ("init=/bin/nosmt", False, set()),
    ],
)
def test_what_switches_smt_off(text, nosmt, bugs):
    cmdline = parse_command_line(text)
    assert (cmdline.nosmt, set(cmdline.nosmt_if_bugs)) == (nosmt, bugs)


def test_mitigations_auto_nosmt_depends_on_any_of_the_bugs():
    assert {"l1tf", "mds"} <= parse_command_line("mitigations=auto,nosmt").nosmt_if_bugs


@pytest.mark.parametrize(
    ("text", "bugs"),
    [
        ("l1tf=full l1tf=off", set()),
        ("l1tf=full l1tf=nonsense", {"l1tf"}),  # "nonsense" is not a value: the kernel keeps what it had
        ("retbleed=auto,nosmt retbleed=unret", {"retbleed"}),  # its words accumulate
        ("mds=full,nosmt mds=full", set()),
        ("mitigations=auto,nosmt mitigations=off", set()),
    ],
)
def test_which_of_several_mitigations_counts(text, bugs):
    assert parse_command_line(text).nosmt_if_bugs == bugs


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("maxcpus=2", "max_cpus", 2),
        ("maxcpus=0x2", "max_cpus", 2),
        ("maxcpus=08", "max_cpus", 0),
        ("maxcpus=1 maxcpus=3", "max_cpus", 3),
        ("maxcpus=2 maxcpus", "max_cpus", 2),
        ("maxcpus=x", "max_cpus", 0),  # get_option() stores the 0 that it reads
        ("maxcpus=-1", "max_cpus", None),
        ("maxcpus=4294967298", "max_cpus", 2),
        ("nosmp", "max_cpus", 0),
        ("nosmp maxcpus=2", "max_cpus", 2),
        ("maxcpus=2 nosmp", "max_cpus", 0),
        ("nr_cpus=4", "nr_cpus", 4),
        ("nr_cpus=x", "nr_cpus", None),
        ("nr_cpus=1 nr_cpus=2", "nr_cpus", 1),
        ("nr_cpus=0 nr-cpus=3", "nr_cpus", 3),
        ("possible_cpus=2", "possible_cpus", 2),
        ("disable_cpu_apicid=0x3", "ignored_apic", 3),
        ("disable_cpu_apicid", "ignored_apic", None),
        ("cpuhp.parallel=0", "parallel_bringup", False),
        ("cpuhp.parallel=off cpuhp.parallel=Yes", "parallel_bringup", True),
        ("cpuhp.parallel", "parallel_bringup", None),
        ("nolapic", "lapic_off", True),
        ("disableapic", "lapic_off", True),
        ("acpi=off", "acpi_off", True),
        ("acpi=off acpi=force", "acpi_off", False),
        ("acpi=off acpi=strict", "acpi_off", True),
        ("nokaslr", "kaslr", False),
        ("kaslr", "kaslr", True),
        ("nokaslr=1", "kaslr", True),
        ("root=/dev/sda -- nokaslr", "kaslr", False),  # the decompressor reads on behind it
        ('init="/bin/sh nokaslr x"', "kaslr", False),  # and through quotes
        ("no-kaslr", "kaslr", True),
        ("no5lvl", "la57", False),
        ("-- no5lvl", "la57", False),
        ("no5lvl=y", "la57", True),
        ("pti=on", "pti", True),
        ("pti=on pti=auto", "pti", None),
        ("-- pti=off", "pti", False),
        ("nopti", "pti", False),
        ("mitigations=off", "pti", False),
        ("mitigations=off mitigations=auto", "pti", None),
        ("pti=auto", "pti", None),
        ("idle=halt", "idle", "halt"),
        ("idle=halt idle=fast", "idle", "halt"),
        ("idle=halt idle=poll", "idle", "poll"),
        ("cpuidle.off=1", "cpuidle_off", True),
        ("cpuidle.off=0", "cpuidle_off", False),
        ("cpuidle.off=0x10", "cpuidle_off", True),
        ("cpuidle.off=y", "cpuidle_off", False),  # it is an int, and no number is refused
        ("cpuidle.off=1 cpuidle.off=2x", "cpuidle_off", True),
        ("cpuidle.off", "cpuidle_off", False),
        ("intel_idle.max_cstate=0", "intel_idle_off", True),
        ("intel_idle.max_cstate=1", "intel_idle_off", False),
        ("intel_idle.max_cstate=4", "intel_idle_max", 4),
        ("processor.max_cstate=3", "acpi_idle_max", 3),
        ("processor.max_cstate=3 processor.max_cstate=x", "acpi_idle_max", 3),
        ("possible_cpus=2 possible_cpus=3", "possible_cpus", 3),
        ("fred=on fred=off", "fred", "off"),
        ("fred", "fred", None),
        ("mitigations=off", "mitigations_off", True),
        ("mitigations=auto", "mitigations_off", False),
        ("mitigations=off mitigations=auto", "mitigations_off", False),
        ("intel-idle.max-cstate=0 intel_idle.max_cstate=9", "intel_idle_off", False),
        ("clearcpuid=monitor,131", "cleared", {"monitor", "131"}),
        ("clearcpuid=smap clearcpuid=smep", "cleared", {"smep"}),
        ("-- clearcpuid=smap", "cleared", {"smap"}),
        ("noxsave nosmap", "cleared", {"xsave", "smap"}),
        ("hugepages=8", "huge_pages", 16 << 20),
        ("default_hugepagesz=1G hugepages=2", "huge_pages", 2 << 30),
        ("hugepages=2 default_hugepagesz=1G", "huge_pages", 2 << 30),
        ("hugepagesz=1G hugepages=1 hugepagesz=2M hugepages=3", "huge_pages", (1 << 30) + (6 << 20)),
        ("hugepages=4 hugepages=8", "huge_pages", 8 << 20),  # the second is ignored
        ("hugepagesz=3M hugepages=8", "huge_pages", 0),
        ("hugepages=0:1,1:2", "huge_pages", 6 << 20),
        ("nohibernate", "no_hibernation", "nohibernate"),
        ("hibernate=no", "no_hibernation", "hibernate=no"),
        ("hibernate=now", "no_hibernation", "hibernate=now"),  # only its beginning is compared
        ("hibernate=no hibernate=nocompress", "no_hibernation", "hibernate=no"),
        ("hibernate=nocompress hibernate=no", "no_hibernation", "hibernate=no"),
        ("hibernate=nocompress", "no_hibernation", None),
        ("hibernate=noresume", "no_hibernation", None),
        ("noresume", "no_hibernation", None),
        ("noresume", "no_resume", "noresume"),
        ("hibernate=noresume", "no_resume", "hibernate=noresume"),
        ("-- noresume", "no_resume", None),
        ("resume=/dev/a resume=UUID=ü", "resume", "UUID=ü"),
        ("resume=/dev/a noresume resume=/dev/b", "resume", "/dev/a"),
        ("resume_offset=5 resume-offset=0x7", "resume_offset", 0),  # sscanf() with %llu
        ("resume_offset=5 resume_offset=x", "resume_offset", 5),
        ("lockdown=integrity", "lockdown", "integrity"),
        ("lockdown=confidentiality lockdown=integrity", "lockdown", "confidentiality"),
        ("lockdown=none lockdown", "lockdown", None),
        ("acpi_sleep=s4_hwsig", "hardware_signature", True),
        ("acpi_sleep=nonvs,s4_hwsig,s4_nohwsig", "hardware_signature", False),
        ("acpi_sleep=s4_nohwsig acpi_sleep=nonvs,s4_hwsig", "hardware_signature", True),
        ("acpi_sleep=nonvs", "hardware_signature", None),
        ("bootconfig", "bootconfig", True),
    ],
)
def test_one_parameter(text, field, value):
    assert getattr(parse_command_line(text), field) == value


@pytest.mark.parametrize(
    ("name", "bug"), [("mds", "mds"), ("tsx_async_abort", "taa"), ("mmio_stale_data", "mmio_stale_data")]
)
def test_mitigations_that_ask_for_no_smt(name, bug):
    """arch/x86/kernel/cpu/bugs.c: only "full,nosmt" does, and "off" is a value that takes it back."""
    assert parse_command_line(f"{name}=full,nosmt").nosmt_if_bugs == {bug}
    for value in ("full", "off"):
        assert parse_command_line(f"{name}={value}").nosmt_if_bugs == set()
        assert parse_command_line(f"{name}=full,nosmt {name}={value}").nosmt_if_bugs == set()


@pytest.mark.parametrize(
    ("value", "asks"),
    [("off", 0), ("flush,nowarn", 0), ("flush", 0), ("flush,nosmt", 1), ("full", 1), ("full,force", 1)],
)
def test_values_of_l1tf(value, asks):
    assert parse_command_line(f"l1tf={value}").nosmt_if_bugs == ({"l1tf"} if asks else set())
    assert parse_command_line(f"l1tf=full,force l1tf={value}").nosmt_if_bugs == ({"l1tf"} if asks else set())


def test_all_mitigations_together_ask_for_no_smt_on_any_of_five_bugs():
    five = {"l1tf", "mds", "taa", "mmio_stale_data", "retbleed"}
    assert parse_command_line("mitigations=auto,nosmt").nosmt_if_bugs == five
    assert parse_command_line("mitigations=off mitigations=auto,nosmt").nosmt_if_bugs == five
    assert parse_command_line("mitigations retbleed retbleed=auto").nosmt_if_bugs == set()


@pytest.mark.parametrize(
    ("word", "flag"),
    [
        ("noxsave", "xsave"),
        ("nosmap", "smap"),
        ("nosmep", "smep"),
        ("nopcid", "pcid"),
        ("nopku", "pku"),
        ("nofsgsbase", "fsgsbase"),
        ("nox2apic", "x2apic"),
    ],
)
def test_words_that_clear_a_feature(word, flag):
    assert parse_command_line(word).cleared == {flag}


def test_an_empty_line_asks_for_nothing():
    line = parse_command_line("")
    assert line == CommandLine("")
    off = (line.nosmt, line.nosmt_force, line.lapic_off, line.acpi_off, line.cpuidle_off, line.bootconfig)
    assert off == (False,) * 6
    assert (line.kaslr, line.la57, line.huge_pages, line.limits_cpus) == (True, True, 0, False)


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("nr_cpus=1", True),
        ("possible_cpus=1", True),
        ("disable_cpu_apicid=0", True),
        ("nosmp", True),
        ("maxcpus=0", True),
        ("maxcpus=1", False),  # the others are present and offline
        ("nosmt", False),
    ],
)
def test_what_takes_cpus_out_of_the_present_mask(text, limits):
    assert parse_command_line(text).limits_cpus is limits


def test_words_count_beside_others():
    assert parse_command_line("quiet nolapic ro").lapic_off
    assert parse_command_line("quiet bootconfig ro").bootconfig
    assert parse_command_line("idle=nomwait").idle == "nomwait"
    assert (parse_command_line("nosmt").nosmt_force, parse_command_line("nosmt=force").nosmt_force) == (False, True)
    assert parse_command_line("pti=auto nopti").pti is None
    assert parse_command_line("mitigations=off mitigations=auto,nosmt").pti is None


@pytest.mark.parametrize(
    ("text", "offset"),
    [
        ("resume_offset=12", 12),
        ("nohibernate resume_offset=12", None),
        ("noresume resume_offset=12", None),
        ("resume_offset", None),
        ("quiet=7", None),
    ],
)
def test_where_the_image_is_said_to_lie(text, offset):
    assert parse_command_line(text).resume_offset == offset


def test_what_forbids_first_is_named():
    assert parse_command_line("noresume hibernate=noresume").no_resume == "noresume"
    assert parse_command_line("nohibernate hibernate=no").no_hibernation == "nohibernate"
    assert parse_command_line("nohibernate resume=/dev/a").resume is None
    assert parse_command_line("resume").resume is None


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("hugepagesz=1G default_hugepagesz=2M hugepages=1", 2 << 20),
        ("hugepagesz=1G hugepages=1", 1 << 30),
        ("hugepagesz=1G quiet=5", 0),
        ("hugepagesz=x hugepages=1", 0),
        ("hugepages", 0),
        ("hugepages=x", 0),
        ("hugepages=999999999999999", 999999999999999 << 21),
        ("hugepages=9999999999999999", 0),
    ],
)
def test_huge_pages(text, size):
    assert parse_command_line(text).huge_pages == min(size, (1 << 64) - 1)


@pytest.mark.parametrize(
    ("text", "edits"),
    [
        ("mem=1M", [("remove", 1 << 20, (1 << 64) - 1 - (1 << 20), RAM, 0)]),
        ("memmap=exactmap", [("clear", 0, (1 << 64) - 1, 0, 0)]),
        ("memmap=1M@2M", [("add", 2 << 20, 1 << 20, 0, RAM)]),
        ("memmap=1M", [("remove", 1 << 20, (1 << 64) - 1 - (1 << 20), RAM, 0)]),
        ("memmap=1M%2M-1+2", [("update", 2 << 20, 1 << 20, 1, 2)]),
        ("memmap=1M%2M+2", [("add", 2 << 20, 1 << 20, 0, 2)]),
        ("memmap=1M%2M-1", [("remove", 2 << 20, 1 << 20, 1, 0)]),
    ],
)
def test_what_the_line_does_to_the_memory_map(text, edits):
    found = parse_command_line(text).memory_edits
    assert [(one.action, one.start, one.size, one.old, one.new) for one in found] == edits


def test_a_cleared_feature_has_a_name_and_a_number():
    line = parse_command_line("clearcpuid=131,smap")
    assert line.clears("monitor", 131)
    assert line.clears("smap", 308)
    assert not line.clears("smep", 295)


def test_a_built_in_line_comes_first_and_the_decompressor_does_not_see_it():
    line = parse_command_line("maxcpus=3", "nosmt nokaslr maxcpus=2 hibernate=no")
    assert (line.nosmt, line.max_cpus, line.no_hibernation) == (True, 3, "hibernate=no")
    assert line.kaslr
    assert line.text == "nosmt nokaslr maxcpus=2 hibernate=no maxcpus=3"
    assert parse_command_line("nosmt", "").text == "nosmt"


def test_a_built_in_line_may_take_the_place_of_the_boot_loaders():
    line = parse_command_line("nosmt nokaslr maxcpus=1", "maxcpus=2", override=True)
    assert (line.nosmt, line.max_cpus, line.kaslr) == (False, 2, False)


def test_a_bootconfig_comes_too_late_for_early_parameters():
    line = parse_command_line("quiet", bootconfig="nosmt lockdown=integrity hibernate=no cpuidle.off=1 nokaslr")
    assert (line.nosmt, line.lockdown, line.kaslr) == (False, None, True)
    assert (line.no_hibernation, line.cpuidle_off) == ("hibernate=no", True)


@pytest.mark.parametrize(
    ("line", "builtin", "override", "loader"),
    [
        ("a b", "", False, "a b"),
        ("nosmt a b", "nosmt", False, "a b"),
        ("a b", "nosmt", False, "a b"),
        ("nosmt", "nosmt", True, None),
    ],
)
def test_what_the_boot_loader_passed(line, builtin, override, loader):
    assert loader_part(line, builtin, override=override) == loader


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1k", 1024),
        ("0x10", 16),
        ("2G", 2 << 30),
        ("010", 8),
        ("99999999999E", (1 << 64) - 1),
        ("x", None),
        (None, None),
    ],
)
def test_sizes_as_memparse_reads_them(text, size):
    assert parse_size(text) == size


MIB = 1 << 20
MACHINE = (E820Entry(0, 640 << 10, RAM), E820Entry(MIB, 255 * MIB, RAM), E820Entry(3 << 30, MIB, RESERVED))


@pytest.mark.parametrize(
    ("text", "runs"),
    [
        ("", [(1, 0xA0), (0x100, 0x10000)]),
        ("mem=200M", [(1, 0xA0), (0x100, 0xC800)]),
        ("mem=100M mem=200M", [(1, 0xA0), (0x100, 0x6400)]),
        ("mem=0 mem=x mem", [(1, 0xA0), (0x100, 0x10000)]),
        ("memmap=100M", [(1, 0xA0), (0x100, 0x6400)]),
        ("memmap=1M$16M", [(1, 0xA0), (0x100, 0x1000), (0x1100, 0x10000)]),
        ("memmap=4097$16M", [(1, 0xA0), (0x100, 0x1000), (0x1002, 0x10000)]),  # whole pages only
        ("memmap=1M#16M", [(1, 0xA0), (0x100, 0x1000), (0x1100, 0x10000)]),
        ("memmap=1M!16M", [(1, 0xA0), (0x100, 0x1000), (0x1100, 0x10000)]),
        ("memmap=1M$16M,1M$18M", [(1, 0xA0), (0x100, 0x1000), (0x1100, 0x1200), (0x1300, 0x10000)]),
        ("memmap=1M$16M memmap=16M@16M", [(1, 0xA0), (0x100, 0x1000), (0x1100, 0x10000)]),  # the higher type wins
        ("memmap=1M@3G", [(1, 0xA0), (0x100, 0x10000)]),
        ("memmap=1M@512M", [(1, 0xA0), (0x100, 0x10000), (0x20000, 0x20100)]),
        ("memmap=exactmap memmap=64M@0", [(1, 0xA0), (0x100, 0x4000)]),
        ("memmap=64M@0 memmap=exactmap", []),
        ("memmap=1M%16M-1+2", [(1, 0xA0), (0x100, 0x1000), (0x1100, 0x10000)]),
        ("memmap=1M%16M-2+1", [(1, 0xA0), (0x100, 0x10000)]),
        ("memmap=1M%3G-2+1", [(1, 0xA0), (0x100, 0x10000), (0xC0000, 0xC0100)]),
        ("memmap=1M%16M-1", [(1, 0xA0), (0x100, 0x1000), (0x1100, 0x10000)]),
        ("memmap=1M%16M+7", [(1, 0xA0), (0x100, 0x1000), (0x1100, 0x10000)]),
        ("memmap=1M%16M", [(1, 0xA0), (0x100, 0x1000), (0x1100, 0x10000)]),
        ("memmap=1M%16M-1+2x", [(1, 0xA0), (0x100, 0x10000)]),
        ("memmap=1M$16Mx", [(1, 0xA0), (0x100, 0x1000), (0x1100, 0x10000)]),
        ("memmap=$16M memmap=x memmap", [(1, 0xA0), (0x100, 0x10000)]),
    ],
)
def test_what_the_line_makes_of_memory(text, runs):
    assert list(ram_runs(edited(MACHINE, parse_command_line(text).memory_edits))) == runs


# A small model of the kernel's readers, written from what they do and not from the code that is tested.

_PIECES = st.sampled_from(
    [
        "nokaslr",
        "pti",
        "maxcpus",
        "nosmt",
        "mem",
        "=",
        '"',
        " ",
        "--",
        "-",
        "_",
        "a",
        "2",
        "64M",
        "on",
        "\t",
        "\xa0",
        "é",
    ]
)
_LINES = st.lists(_PIECES, max_size=14).map("".join)


def _blank(byte):
    return byte in (9, 10, 11, 12, 13, 32, 160)


def _pairs(text):
    """parse_args() one byte after the other."""
    data, at, found = text.encode(), 0, []
    while True:
        while at < len(data) and _blank(data[at]):
            at += 1
        if at == len(data):
            return found
        quoted = within = data[at] == ord('"')
        at += quoted
        start, equals = at, 0
        while at < len(data) and (within or not _blank(data[at])):
            if data[at] == ord("=") and not equals and at > start:
                equals = at
            within ^= data[at] == ord('"')
            at += 1
        end = at
        value = None
        if equals:
            value = data[equals + 1 : end]
            if value[:1] == b'"':
                value = value[1:]
                value, quoted = (value[:-1], False) if value[-1:] == b'"' else (value, quoted)
            if quoted and value[-1:] == b'"':
                value = value[:-1]
        name = data[start : equals or end]
        if not equals and quoted and name[-1:] == b'"':
            name = name[:-1]
        if name == b"--" and value is None:
            return found
        found.append((name.decode("latin-1").replace("-", "_"), None if value is None else value.decode("latin-1")))


def _has_word(text, word):
    """cmdline_find_option_bool(): every byte up to a blank ends a word."""
    return word.encode() in bytes(byte if byte > 32 else 32 for byte in text.encode()).split(b" ")


@given(_LINES)
def test_arguments_are_split_as_a_model_of_the_kernel_does(text):
    assert split_command_line(text) == _pairs(text)


@given(_LINES, _LINES)
def test_the_decompressor_looks_for_words_in_the_loaders_line(text, builtin):
    line = parse_command_line(text, builtin)
    assert line.kaslr is not _has_word(text, "nokaslr")


@given(st.lists(st.integers(0, 40), max_size=4), st.lists(st.integers(0, 600), max_size=4), st.data())
def test_of_several_limits_the_smallest_counts_and_of_maxcpus_the_last(cpus, memory, data):
    words = [f"nr_cpus={count}" for count in cpus] + [f"mem={size}M" for size in memory]
    words += [f"maxcpus={count}" for count in cpus]
    words = data.draw(st.permutations(words))
    line = parse_command_line(" ".join(words))
    given_last = [int(word.removeprefix("maxcpus=")) for word in words if word.startswith("maxcpus")]
    assert line.max_cpus == (given_last[-1] if given_last else None)
    assert line.nr_cpus == min((count for count in cpus if count), default=None)
    limit = min((size << 8 for size in memory if size), default=0x10000)
    expected = sum(max(0, min(end, limit) - start) for start, end in ((1, 0xA0), (0x100, 0x10000)))
    assert ram_pages(edited(MACHINE, line.memory_edits)) == expected


@given(
    st.lists(
        st.tuples(st.integers(0, 64), st.integers(0, 32), st.sampled_from([1, 2, 3, 7, 12])).map(
            lambda one: E820Entry(one[0] << 12, one[1] << 12, one[2])
        ),
        max_size=12,
    ),
    st.lists(
        st.tuples(st.integers(0, 64), st.integers(0, 32), st.sampled_from("@#$!"), st.integers(1, 2)),
        max_size=4,
    ),
)
def test_a_map_is_edited_as_frame_by_frame(entries, edits):
    """The model holds the types of each frame in a set, and takes the highest."""
    frames = [{one.kind for one in entries if one.address <= pfn << 12 < one.end} for pfn in range(128)]
    line = []
    for start, size, mark, old in edits:
        kind = {"@": 1, "#": 3, "$": 2, "!": 12}[mark]
        line += [f"memmap={size << 12:#x}{mark}{start << 12:#x}", f"memmap={size << 12:#x}%{start << 12:#x}-{old}"]
        for pfn in range(start, start + size):
            frames[pfn] = (frames[pfn] | {kind}) - {old}
    found = edited(tuple(entries), parse_command_line(" ".join(line)).memory_edits)
    for pfn, kinds in enumerate(frames):
        assert next((one.kind for one in found if one.address <= pfn << 12 < one.end), 0) == max(kinds, default=0)
    whole = edited(tuple(entries), ())
    assert differences(whole, tuple(entries)) == ()
    assert all(ours != theirs and start < end for start, end, ours, theirs in differences(whole, found))


def test_a_hostile_line_ends_soon():
    """The kernel keeps 2047 bytes of a line."""
    assert parse_command_line("x" * 2047 + " nosmt").nosmt is False
    entries = tuple(E820Entry(pfn << 13, 1 << 12, 1) for pfn in range(4096))
    assert len(edited(entries, parse_command_line("memmap=1%5-1 " * 200).memory_edits)) <= 4097


@pytest.mark.parametrize(("line", "builtin", "override", "loader", "built_in"), [
    ("nokaslr nosmt", "", False, "nokaslr nosmt", ""), ("nokaslr nosmt", "nokaslr", False, "nosmt", "nokaslr"),
    ("nokaslr", "nokaslr", False, "", "nokaslr"), ("nosmt maxcpus=1", "nokaslr", False, "nosmt maxcpus=1", ""),
    ("nokaslr", "nokaslr", True, "", "nokaslr"),
])  # fmt: skip
@pytest.mark.parametrize("bootconfig", ["", "nr_cpus=2"])
def test_the_line_of_a_kernel_that_runs_is_what_the_loader_passed_and_what_is_built_in(
    line, builtin, override, loader, built_in, bootconfig
):
    found = parse_running_line(line, builtin, override=override, bootconfig=bootconfig)
    assert found == parse_command_line(loader, built_in, override=override, bootconfig=bootconfig)
    assert loader_part(line, builtin, override=override) == (None if override else loader)
    assert found.kaslr is (loader.split()[:1] != ["nokaslr"])  # the decompressor saw the loader's part alone
    assert (found == parse_command_line(loader, built_in, override=override)) is not bool(bootconfig)


@pytest.mark.parametrize(("line", "asked"), [
    ("", None), ("hibernate", None), ("hibernate=nocompress", "none"), ("hibernate=noresume", None),
    ("hibernate.compressor=lz4", "lz4"), ("hibernate.compressor=lz4 hibernate.compressor=lzo", "lzo"),
    ("hibernate.compressor=lz4 hibernate=nocompress", "none"), ("hibernate.compressor", None),
    ("other=nocompress hibernate.compressor=", None),
])  # fmt: skip
def test_by_what_it_is_to_compress(line, asked):
    assert compressor_asked(line) == asked


@pytest.mark.parametrize(("text", "number"), [
    ("5", 5), ("-5", -5), ("+5", 5), ("-0x10", -16), ("0x10", 16), ("010", 8), ("-", None), ("", None), (None, None),
    ("5\n", 5), ("--5", None), ("+-5", None), ("5x", None), ("2147483647", 2147483647), ("2147483648", None),
    ("-2147483648", -2147483648), ("-2147483649", None),
])  # fmt: skip
def test_whole_numbers_as_kstrtoint_reads_them(text, number):
    assert whole_number(text) == number
