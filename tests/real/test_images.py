"""Real images: every page of them, the values that are known of them, and what drgn and crash see in their cores."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from hibercheck.cli.export import command
from hibercheck.errors import Mismatch
from hibercheck.kernel.kernel import open_kernel
from hibercheck.swsusp.export import export
from hibercheck.swsusp.image import open_image
from hibercheck.swsusp.vmcore import USER_REGS
from tests.conftest import ROOT, SHARED_CASES
from tests.support import isf
from tests.support.unpacked import plain_path
from tests.swsusp.test_export import notes, segments

CASES = json.loads((SHARED_CASES / "cases.json").read_text())["cases"] if SHARED_CASES.is_dir() else []
COMMITTED = json.loads((ROOT / "fixtures" / "cases.json").read_text())["cases"]
IMAGES = {case["image"]: case["resumee"] for case in CASES}
PAIRS = {case["image"]: case["resumee"] for case in COMMITTED} | IMAGES
DEBIAN = "images/b9e5b9779f.bin.xz"
SEVEN = "images/66a25b5b9c.bin.xz"


@pytest.fixture(params=PAIRS, ids=lambda name: Path(name).name[:10])
def pair(request):
    """An image and its kernel: committed ones, and the measured ones where they are."""
    image, kernel = request.param, PAIRS[request.param]
    if image in IMAGES:
        unpacked = request.getfixturevalue("unpacked")
        return unpacked(image), unpacked(kernel)
    return plain_path(image), plain_path(kernel)


def test_every_page_decodes_and_the_checksum_is_right(pair):
    with open_image(str(pair[0])) as image:
        result = image.verify()
    assert result.problems == ()
    assert result.pages == image.info.pages - 1


def test_the_banner_is_the_kernel_s(pair):
    with open_image(str(pair[0])) as image, open_kernel(str(pair[1])) as kernel:
        assert image.find_banner() == kernel.banner.strip()


def test_known_values_of_a_debian_image(unpacked):
    with open_image(str(unpacked(DEBIAN))) as image:
        assert image.record.cr3 == 0x3C6A000
        assert image.record.jump_address - image.record.jump_address_phys == 0xFFFFFFFF80000000
        assert image.record.e820_checksum == 0x33D0B172
        assert (image.compressor, image.pfns.has_zero_flag) == ("lzo", False)
        assert image.find_banner().startswith("Linux version 6.1.0-50-cloud-amd64 ")


def test_known_values_of_an_lz4_image_with_zero_pages(unpacked):
    with open_image(str(unpacked(SEVEN))) as image:
        assert (image.record.cr3, image.record.e820_checksum) == (0x5C3E000, 0x1D1E3625)
        assert (image.compressor, image.pfns.has_zero_flag) == ("lz4", True)


def test_a_question_does_not_decode_the_image(unpacked):
    with open_image(str(unpacked(DEBIAN))) as image:
        decoded = []
        storage = image.stream.storage
        plain = storage.decode
        storage.decode = lambda number, offset, data: decoded.append(number) or plain(number, offset, data)
        assert image.frame(image.record.cr3 >> 12) is not None
        assert len(decoded) == 2
        assert image.stream.chunks > 400


def test_the_core_holds_what_the_image_holds(pair, tmp_path):
    with open_image(str(pair[0])) as image:
        result = export(image, str(tmp_path / "core"))
        assert result.found
        assert f"OSRELEASE={image.find_banner().split()[2]}\n" in result.vmcoreinfo
        count = 0
        for address, data in segments(tmp_path / "core"):
            for offset in range(0, len(data), 4096 * 17):
                assert image.frame((address + offset) // 4096) == data[offset : offset + 4096]
            count += len(data) // 4096
        assert count == len(image.pfns) == result.frames


@pytest.fixture
def core(pair, tmp_path):
    """The image as a core, opened in drgn."""
    drgn = pytest.importorskip("drgn")
    with open_image(str(pair[0])) as image:
        export(image, str(tmp_path / "core"))
    program = drgn.Program()
    program.set_core_dump(str(tmp_path / "core"))
    lines = dict(line.split("=", 1) for line in program["VMCOREINFO"].string_().decode().splitlines())
    return program, int(lines["KERNELOFFSET"], 16)


def test_drgn_translates_by_the_image_s_page_tables(core, pair):
    program, kaslr = core
    with open_kernel(str(pair[1])) as kernel:
        banner, release = kernel.banner.strip(), kernel.release
        address = kernel.require("linux_banner").address
    assert program["UTS_RELEASE"].string_().decode() == release
    assert program.read(address + kaslr, len(banner)).decode() == banner


def task_type(drgn, program, kernel):
    """Give drgn the few types of a task list, out of the kernel's BTF: the kernels of the cases have no DWARF."""
    size = kernel.size_of("task_struct")
    offsets = {name: kernel.offset_of("task_struct", name) * 8 for name in ("tasks", "pid", "comm")}
    integer = program.int_type("int", 4, True)
    char = program.int_type("char", 1, True)
    list_head = program.struct_type(
        "list_head",
        16,
        (
            drgn.TypeMember(lambda: program.pointer_type(program.type("struct list_head")), "next", 0),
            drgn.TypeMember(lambda: program.pointer_type(program.type("struct list_head")), "prev", 64),
        ),
    )
    task = program.struct_type(
        "task_struct",
        size,
        (
            drgn.TypeMember(list_head, "tasks", offsets["tasks"]),
            drgn.TypeMember(integer, "pid", offsets["pid"]),
            drgn.TypeMember(program.array_type(char, 16), "comm", offsets["comm"]),
        ),
    )
    known = {"list_head": list_head, "task_struct": task}
    program.register_type_finder("btf", lambda _program, _kinds, name, _file: known.get(name), enable_index=0)
    return task


def test_drgn_lists_the_tasks(core, pair):
    drgn = pytest.importorskip("drgn")
    helpers = pytest.importorskip("drgn.helpers.linux.list")
    program, kaslr = core
    with open_kernel(str(pair[1])) as kernel:
        if kernel.section(".BTF") is None:
            pytest.skip("this kernel has no types")
        init_task = drgn.Object(
            program, task_type(drgn, program, kernel), address=kernel.require("init_task").address + kaslr
        )
    tasks = {
        task.pid.value_(): task.comm.string_().decode()
        for task in helpers.list_for_each_entry("struct task_struct", init_task.tasks.address_of_(), "tasks")
    }
    assert init_task.comm.string_() == b"swapper/0"
    assert tasks[1] == "init"
    assert tasks[2] == "kthreadd"
    assert len(tasks) > 20


def test_registers_of_the_boot_cpu(unpacked, tmp_path):
    core, kernel = tmp_path / "core", unpacked(IMAGES[DEBIAN])
    arguments = [str(unpacked(DEBIAN)), str(core), "--kernel", str(kernel)]
    assert CliRunner().invoke(command, arguments, standalone_mode=False).return_value == 0
    (status,) = (description for name, kind, description in notes(core) if (name, kind) == (b"CORE", 1))
    registers = {name: int.from_bytes(status[112 + 8 * n : 120 + 8 * n], "little") for n, name in enumerate(USER_REGS)}
    with open_kernel(str(kernel)) as opened:
        symbol, _ = opened.nearest(registers["rip"])
    assert symbol.name in {"hibernation_snapshot", "create_image"}
    assert registers["rsp"] >> 45 == 0xFFFFC90000000000 >> 45


def test_a_kernel_that_is_not_the_image_s(unpacked, tmp_path):
    arguments = [str(unpacked(DEBIAN)), str(tmp_path / "core"), "--kernel", str(unpacked(IMAGES[SEVEN]))]
    result = CliRunner().invoke(command, arguments, standalone_mode=False)
    assert isinstance(result.exception, Mismatch)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_crash_reaches_its_prompt_and_shows_the_log(unpacked, tmp_path):
    vmlinux = os.environ.get("HIBERCHECK_DWARF_VMLINUX")
    if shutil.which("crash") is None or vmlinux is None:
        pytest.skip("needs crash, and linux-image-6.1.0-50-cloud-amd64-dbg's vmlinux in HIBERCHECK_DWARF_VMLINUX")
    with open_image(str(unpacked(DEBIAN))) as image:
        export(image, str(tmp_path / "core"))
    (tmp_path / "commands").write_text("sys\nlog\nquit\n")
    done = subprocess.run(
        ["crash", "-s", "-i", tmp_path / "commands", vmlinux, tmp_path / "core"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "RELEASE: 6.1.0-50-cloud-amd64" in done.stdout
    assert "PM: hibernation: Creating image:" in done.stdout


@pytest.mark.slow
def test_volatility_lists_the_tasks(unpacked, tmp_path):
    volatility = shutil.which("vol", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if volatility is None:
        pytest.skip("needs volatility3")
    with open_image(str(unpacked(DEBIAN))) as image:
        export(image, str(tmp_path / "core"))
    (tmp_path / "symbols" / "linux").mkdir(parents=True)
    (tmp_path / "cache").mkdir()
    table = isf.make(str(unpacked(IMAGES[DEBIAN])))
    (tmp_path / "symbols" / "linux" / "kernel.json").write_text(json.dumps(table))
    done = subprocess.run(
        [
            *(volatility, "--quiet", "--offline", "--cache-path", tmp_path / "cache", "-s", tmp_path / "symbols"),
            *("-f", tmp_path / "core", "-r", "csv", "linux.pslist"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    rows = list(csv.DictReader(done.stdout.splitlines()))
    tasks = {int(row["PID"]): row["COMM"] for row in rows}
    assert tasks.get(1) == "init", done.stdout + done.stderr
    assert tasks[2] == "kthreadd"
    assert len(tasks) > 20
