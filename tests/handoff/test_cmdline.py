import pytest

from hibercheck.handoff.cmdline import parse_command_line, parse_size, split_command_line


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
    ("text", "field", "value"),
    [
        ("maxcpus=2", "max_cpus", 2),
        ("maxcpus=0x2", "max_cpus", 2),
        ("maxcpus=08", "max_cpus", 0),
        ("maxcpus=1 maxcpus=3", "max_cpus", 3),
        ("nosmp", "max_cpus", 0),
        ("nr_cpus=4", "nr_cpus", 4),
        ("nr_cpus=x", "nr_cpus", None),
        ("possible_cpus=2", "possible_cpus", 2),
        ("nokaslr", "kaslr", False),
        ("kaslr", "kaslr", True),
        ("no5lvl", "la57", False),
        ("pti=on", "pti", True),
        ("nopti", "pti", False),
        ("mitigations=off", "pti", False),
        ("pti=auto", "pti", None),
        ("idle=halt", "idle", "halt"),
        ("cpuidle.off=1", "cpuidle_off", True),
        ("cpuidle.off=0", "cpuidle_off", False),
        ("intel_idle.max_cstate=0", "intel_idle_off", True),
        ("mem=64M", "mem_limit", 64 << 20),
        ("memmap=1M$16M", "memmap", True),
        ("nohibernate", "no_hibernation", "nohibernate"),
        ("hibernate=no", "no_hibernation", "hibernate=no"),
        ("hibernate=nocompress", "no_hibernation", None),
        ("noresume", "no_hibernation", None),
    ],
)
def test_one_parameter(text, field, value):
    assert getattr(parse_command_line(text), field) == value


@pytest.mark.parametrize(("text", "size"), [("1k", 1024), ("0x10", 16), ("2G", 2 << 30), ("x", None), (None, None)])
def test_sizes_as_memparse_reads_them(text, size):
    assert parse_size(text) == size
