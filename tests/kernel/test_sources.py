from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hibercheck.errors import HibercheckError, InputProblem, MalformedKernel, Mismatch, MissingFact, Unsupported
from hibercheck.kernel.kallsyms import find
from hibercheck.kernel.kernel import open_kernel
from tests.support.effort import steps
from tests.support.elf_writer import BANNER, RODATA, SYMBOLS, TEXT, Section, Sym, write_elf, write_kernel
from tests.support.kallsyms_writer import LAYOUTS, Layout, write_kallsyms
from tests.support.text_only import write_text_symbols
from tests.support.unpacked import plain_path

LINES = [(one.value, "T", one.name) for one in SYMBOLS]


def listing(lines: list[tuple[int, str, str]], slide: int = 0) -> str:
    """The lines as /proc/kallsyms shows them on a kernel that KASLR moved."""
    return "".join(
        f"{value + slide if value >= TEXT else value:016x} {letter} {name}\n" for value, letter, name in lines
    )


@pytest.fixture
def stripped(tmp_path: Path) -> Path:
    path = tmp_path / "vmlinux"
    path.write_bytes(write_kernel())
    return path


def with_symbols(kernel: Path, text: str) -> Path:
    path = kernel.parent / "System.map"
    path.write_text(text)
    return path


@pytest.mark.parametrize("slide", [0, 0x200000, 0x1AC00000])
def test_a_list_of_symbols(stripped: Path, slide: int) -> None:
    module = f"{TEXT + 0x30000000:016x} t play\t[snd]\n\n"
    symbols = with_symbols(stripped, listing(LINES, slide) + module)
    with open_kernel(str(stripped), symbols=str(symbols)) as kernel:
        assert {one.name: one.address for one in kernel.source} == {name: value for value, _, name in LINES}
        assert kernel.percpu_start == 0
        assert kernel.symbol("play") is None


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", MalformedKernel, "is empty|_text"),
        ("ffffffff81000000 T other\n", MalformedKernel, "does not list _text"),
        (listing([(0, "T", "_text"), (0, "T", "x")]), InputProblem, "addresses hidden"),
        (listing([(TEXT + 0x1000, "T", "_text")]), Mismatch, "another kernel"),
        (listing([(TEXT - 0x200000, "T", "_text")]), Mismatch, "another kernel"),
        (listing([(TEXT, "T", "_text"), (RODATA + 64, "R", "linux_banner")]), Mismatch, "linux_banner"),
        (listing([(TEXT, "T", "_text"), (1 << 60, "R", "linux_banner")]), Mismatch, "linux_banner"),
        ("ffffffff81000000 T\n", MalformedKernel, "line 1"),
        (listing(LINES) + "nonsense here now\n", MalformedKernel, f"line {len(LINES) + 1}"),
        ("1ffffffffffffffff T _text\n", MalformedKernel, "line 1"),
        ("ffff_fff_8100000 T _text\n", MalformedKernel, "line 1"),
        ("-81000000 T _text\n", MalformedKernel, "line 1"),
        ("ffffffffffffffff B The real System.map is in the linux-image-6.1-dbg package\n", InputProblem, "placeholder"),
    ],
)
def test_lists_that_do_not_serve(stripped: Path, text: str, error: type[HibercheckError], message: str) -> None:
    symbols = with_symbols(stripped, text)
    with pytest.raises((error, InputProblem), match=message) as caught:
        open_kernel(str(stripped), symbols=str(symbols))
    assert caught.value.path is not None
    assert "\n" not in str(caught.value)


def test_debug_information_as_symbols(stripped: Path) -> None:
    debug = stripped.parent / "vmlinux.debug"
    sections = [Section(".text", TEXT, b"", 6, 8, 4096), Section(".rodata", RODATA, b"", 2, 8, 4096)]
    symbols = [Sym("_text", TEXT, 0, 0, 1), Sym("linux_banner", RODATA, 9, 1, 1, 2)]
    debug.write_bytes(write_elf(sections, symbols))
    with open_kernel(str(stripped), symbols=str(debug)) as kernel:
        assert kernel.require("linux_banner").size == 9
        assert kernel.source.origin == str(debug)
    with pytest.raises(Unsupported, match="without the kernel"):
        open_kernel(str(debug))
    debug.write_bytes(write_elf(sections, [*symbols[:1], Sym("linux_banner", RODATA + 8, 9, 1, 1, 2)]))
    with pytest.raises(Mismatch, match="linux_banner"):
        open_kernel(str(stripped), symbols=str(debug))


def test_kallsyms_of_another_place_are_refused(tmp_path: Path) -> None:
    lines = [(TEXT + 4 * n, "t", f"function_{n}") for n in range(900)] + [(RODATA + 4096, "R", "linux_banner")]
    at = RODATA + len(BANNER) + -len(BANNER) % 8
    path = tmp_path / "vmlinux"
    path.write_bytes(write_kernel(rodata=bytes(-len(BANNER) % 8) + write_kallsyms(lines, LAYOUTS[5], at) + bytes(64)))
    with open_kernel(str(path)) as kernel, pytest.raises(MalformedKernel, match="damaged: the linux_banner"):
        kernel.symbol("function_3")


def test_kallsyms_that_fit_nothing_are_searched_once(tmp_path: Path) -> None:
    """They were in the section and in each segment around it, and again for every name that was asked for."""
    lines = [(TEXT + 4 * n, "t", f"function_{n}") for n in range(2000)]
    at = RODATA + len(BANNER) + -len(BANNER) % 8
    table = bytearray(write_kallsyms(lines, LAYOUTS[5], at))
    path = tmp_path / "vmlinux"
    path.write_bytes(write_kernel(rodata=bytes(-len(BANNER) % 8) + table + bytes(64)))
    with open_kernel(str(path)) as kernel:
        content = kernel.read(at, len(table))
        whole = steps(find, content, at)
    table[table.rindex((2000).to_bytes(4, "little")) + 8] ^= 0x7F  # the length of the first name
    path.write_bytes(write_kernel(rodata=bytes(-len(BANNER) % 8) + table + bytes(64)))
    with open_kernel(str(path)) as kernel:

        def asked() -> None:
            with pytest.raises(MissingFact, match="no symbols"):
                kernel.symbol("function_3")

        first, second = steps(asked), steps(asked)
    assert first < 2 * whole
    assert second < first / 10


def test_a_missing_list(stripped: Path) -> None:
    with pytest.raises(InputProblem, match="No such file"):
        open_kernel(str(stripped), symbols=str(stripped.parent / "absent"))


def test_a_kernel_without_symbols_says_what_to_do(stripped: Path) -> None:
    with open_kernel(str(stripped)) as kernel:
        with pytest.raises(MissingFact, match=r"no symbols.*System.map") as caught:
            kernel.symbol("idt_table")
        assert caught.value.exit_status == 4
        assert kernel.banner.startswith("Linux version 6.1.0-made")


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_a_stripped_kernels_own_symbols(tmp_path: Path, layout: Layout) -> None:
    low = [(8 * n, "A", f"percpu_{n}") for n in range(30 if layout.addresses in {"percpu", "absolute"} else 0)]
    high = [(TEXT, "T", "_text")] + [(TEXT + 4 * n, "t", f"function_{n}") for n in range(1, 900)]
    high.append((RODATA, "R", "linux_banner"))
    at = RODATA + len(BANNER) + -len(BANNER) % 8
    rodata = bytes(-len(BANNER) % 8) + write_kallsyms([*low, *high], layout, at) + bytes(64)
    path = tmp_path / "vmlinux"
    path.write_bytes(write_kernel(rodata=rodata))
    with open_kernel(str(path)) as kernel:
        assert kernel.source.origin == "kallsyms"
        assert len(kernel.source) == len(low) + len(high)
        assert kernel.require("function_3").address == TEXT + 12
        assert kernel.extent(kernel.require("function_3")) == 4
        assert kernel.nearest(TEXT + 14) == (kernel.symbol("function_3"), 2)
        assert kernel.banner.startswith("Linux version 6.1.0-made")


@settings(max_examples=150, deadline=None)
@given(text=st.one_of(st.text(max_size=200), st.from_regex(r"([0-9a-f]{0,17} [a-zA-Z]{0,2} [_a-z]{0,6}\n){1,5}")))
def test_any_list_raises_only_our_errors(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    directory = tmp_path_factory.mktemp("k")
    kernel = directory / "vmlinux"
    kernel.write_bytes(write_kernel(SYMBOLS))
    (directory / "map").write_bytes(text.encode("utf-8", "replace"))
    message = ""
    try:
        open_kernel(str(kernel), symbols=str(directory / "map")).close()
    except HibercheckError as error:
        message = str(error)
    assert "\n" not in message


def test_the_length_of_a_list_is_bounded(stripped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hibercheck.kernel.sources.MAX_SYMBOLS", 3)
    symbols = with_symbols(stripped, listing(LINES))
    with pytest.raises(MalformedKernel, match="more than 3 lines"):
        open_kernel(str(stripped), symbols=str(symbols))


KERNELS = Path(__file__).resolve().parents[2] / "fixtures" / "kernels"


@pytest.mark.parametrize("other", ["mid-current", "v73-stock"])
def test_a_list_without_the_banner_is_held_to_the_kernels_own_symbols(tmp_path: Path, other: str) -> None:
    with open_kernel(plain_path("kernels/small-hlt.vmlinux.xz")) as kernel:
        symbols = write_text_symbols(kernel, tmp_path / "System.map")
    with open_kernel(plain_path("kernels/small-hlt.vmlinux.xz"), symbols=str(symbols)) as kernel:
        assert kernel.symbol("native_play_dead") is not None
    with pytest.raises(
        Mismatch, match=r"System.map: belongs to another kernel than .*: (its _text is|that kernel has no)"
    ):
        open_kernel(plain_path(f"kernels/{other}.vmlinux.xz"), symbols=str(symbols))


@pytest.mark.parametrize("other", ["small-current", "small-hlt"])
def test_a_list_of_a_near_build_is_refused_though_its_banner_is_where_it_should_be(tmp_path: Path, other: str) -> None:
    path = plain_path("kernels/small-current.vmlinux.xz")
    with open_kernel(plain_path(f"kernels/{other}.vmlinux.xz")) as near, open_kernel(path) as kernel:
        assert near.require("linux_banner").address == kernel.require("linux_banner").address
        lines = listing([(one.address, one.letter, one.name) for one in near.source])
    symbols = tmp_path / "System.map"
    symbols.write_text(lines)
    if other == "small-current":
        open_kernel(path, symbols=str(symbols)).close()
        return
    with pytest.raises(Mismatch, match=r"belongs to another kernel than .*: that kernel has no \w+ at 0x"):
        open_kernel(path, symbols=str(symbols))


def test_symbols_of_another_build_are_refused_by_its_build_id(tmp_path: Path) -> None:
    separate = {}
    for name in ("small-current", "small-hlt"):
        separate[name] = tmp_path / name
        separate[name].write_bytes(Path(plain_path(f"kernels/{name}.vmlinux.xz")).read_bytes())
    kernel = plain_path("kernels/small-current.vmlinux.xz")
    open_kernel(kernel, symbols=str(separate["small-current"])).close()
    with pytest.raises(Mismatch, match=r"belongs to another kernel than .*: its build id is"):
        open_kernel(kernel, symbols=str(separate["small-hlt"]))
