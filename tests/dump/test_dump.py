from __future__ import annotations

import os
import resource
import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hibercheck.dump.dump import open_dump
from hibercheck.errors import HibercheckError, InputProblem, MalformedDump, Unsupported
from tests.support.effort import ends
from tests.support.wrappers import COMPRESS

A, B, C = (bytes([value]) * 4096 for value in (0xA1, 0xB2, 0xC3))
RANDOM = bytes((i * i * 7 + i // 5) & 0xFF for i in range(4096))


@pytest.fixture
def qemu_core(writers):
    """A core of two CPUs as QEMU writes it."""
    notes = b"".join(writers.note(b"CORE", 1, writers.prstatus(rip=cpu)) for cpu in range(2))
    for cpu in range(2):
        registers = {"rip": 0x1000 + cpu, "rsp": 0x2000, "rflags": 0x246, "r15": 15, "cr0": 0x80050033, "cr2": 2}
        registers |= {"cr3": 0x3000, "cr4": 0x20, "cs_selector": 0x10, "ss_selector": 0x18, "gs_base": 0x77}
        registers |= {"gdt_base": 0x11, "gdt_limit": 0x7F, "idt_base": 0x22, "idt_limit": 0xFFF, "cs_base": 0x5}
        registers |= {"tr_selector": 0x40, "tr_base": 0x33, "tr_limit": 0x67}
        notes += writers.note(b"QEMU", 0, writers.qemu_state(kernel_gs=0x88, **registers))
    notes += writers.note(b"VMCOREINFO", 0, b"OSRELEASE=6.1.0\nSYMBOL(init_top_pgt)=ffffffff82a10000\n")
    return writers.elf_core([(0, A + B), (0x100000, C)], notes)


def test_qemu_core(write, qemu_core):
    with open_dump(write(qemu_core)) as dump:
        assert dump.kind == "ELF"
        assert [dump.frame(pfn) for pfn in (0, 1, 2, 0xFF, 0x100, 0x101)] == [A, B, None, None, C, None]
        assert list(dump.runs()) == [(0, 2), (0x100, 1)]
        assert dump.vmcoreinfo == {"OSRELEASE": "6.1.0", "SYMBOL(init_top_pgt)": "ffffffff82a10000"}
        cpu = dump.cpus[1]
    assert len(dump.cpus) == 2
    assert (cpu.cpu, cpu.source, cpu.rip, cpu.rsp, cpu.r15) == (1, "QEMU note", 0x1001, 0x2000, 15)
    assert (cpu.cr0, cpu.cr2, cpu.cr3, cpu.cr4, cpu.efer, cpu.halted) == (0x80050033, 2, 0x3000, 0x20, None, None)
    assert dump.machine_cpus == len(dump.cpus)  # an emulator has them all
    assert (cpu.gdt_base, cpu.gdt_limit, cpu.idt_base, cpu.idt_limit) == (0x11, 0x7F, 0x22, 0xFFF)
    assert (cpu.tr, cpu.tr_base, cpu.tr_limit, cpu.cs, cpu.ss, cpu.cs_base) == (0x40, 0x33, 0x67, 0x10, 0x18, 5)
    assert (cpu.gs_base, cpu.kernel_gs_base, cpu.interrupts_enabled) == (0x77, 0x88, True)


def test_old_qemu_note_has_no_kernel_gs_base(write, writers):
    core = writers.elf_core([(0, A)], writers.note(b"QEMU", 0, writers.qemu_state(kernel_gs=None, rip=7)))
    with open_dump(write(core)) as dump:
        assert (dump.cpus[0].rip, dump.cpus[0].kernel_gs_base) == (7, None)


def test_vmcore_with_prstatus_only(write, writers):
    notes = writers.note(b"CORE", 1, writers.prstatus(rip=1, rsp=2, eflags=3, cs=0x10, ss=0x18, gs_base=9, rdi=4))
    with open_dump(write(writers.elf_core([(0x1000, A)], notes))) as dump:
        cpu = dump.cpus[0]
        assert (cpu.source, cpu.rip, cpu.rsp, cpu.rflags, cpu.rdi, cpu.gs_base) == ("NT_PRSTATUS", 1, 2, 3, 4, 9)
        assert (cpu.cr3, cpu.idt_base, cpu.halted) == (None, None, None)
        assert dump.machine_cpus is None
        assert dump.vmcoreinfo is None


def test_many_segments_are_counted_in_section_0(write, writers):
    with open_dump(write(writers.elf_core([(0x3000, A), (0x1000, B)], extended=True))) as dump:
        assert [dump.frame(pfn) for pfn in (1, 2, 3)] == [B, None, A]


def test_a_frame_shared_by_two_segments(write, writers):
    core = writers.elf_core([(0x1000, RANDOM[:0xC00]), (0x1C00, RANDOM[0xC00:] + A)])
    with open_dump(write(core)) as dump:
        assert (dump.frame(1), dump.frame(2)) == (RANDOM, A)


def test_what_kcore_has_no_physical_address_for_is_passed_over_however_far_it_reaches(write, writers):
    core = bytearray(writers.elf_core([(0x1000, A), ((1 << 64) - 1, B)]))
    vmalloc = 64 + 2 * 56
    assert core[vmalloc + 24 : vmalloc + 32] == b"\xff" * 8
    core[vmalloc + 32 : vmalloc + 40] = (0x31FFFFFFFFFFFF).to_bytes(8, "little")  # of 5 levels
    with open_dump(write(bytes(core))) as dump:
        assert list(dump.runs()) == [(1, 1)]
        assert dump.frame(1) == A


def test_memory_left_out_of_the_file_is_unknown(write, writers):
    with open_dump(write(writers.elf_core([(0, A + B[:100])], memsz_extra=1 << 20))) as dump:
        assert [dump.frame(pfn) for pfn in (0, 1, 2)] == [A, None, None]


@pytest.mark.parametrize("compression", ["none", "zlib", "lzo", "zstd"])
def test_kdump(write, writers, compression):
    frames = {0: A, 3: RANDOM, 32767: B, 32768: C, 70000: RANDOM}
    notes = writers.note(b"CORE", 1, writers.prstatus(rip=5))
    content = writers.kdump(frames, notes, b"KERNELOFFSET=1000000\n", compression=compression)
    with open_dump(write(content)) as dump:
        assert dump.kind == "kdump-compressed"
        assert {pfn: dump.frame(pfn) for pfn in frames} == frames
        assert [dump.frame(pfn) for pfn in (1, 2, 4, 32766, 70001, 1 << 40)] == [None] * 6
        assert list(dump.runs()) == [(0, 1), (3, 1), (32767, 2), (70000, 1)]
        assert (dump.cpus[0].rip, dump.vmcoreinfo) == (5, {"KERNELOFFSET": "1000000"})


def test_kdump_of_an_old_version_takes_the_old_frame_number(write, writers):
    with open_dump(write(writers.kdump({1: A}, version=3))) as dump:
        assert dump.frame(1) == A
        assert dump.cpus == ()


def test_snappy_is_refused_by_name(write, writers):
    with (
        open_dump(write(writers.kdump({0: A}, compression="snappy"))) as dump,
        pytest.raises(Unsupported, match="snappy"),
    ):
        dump.frame(0)


def test_split_kdump_is_refused(write, writers):
    with pytest.raises(Unsupported, match=r"split dump.*--reassemble"):
        open_dump(write(writers.kdump({0: A}, split=1)))


def test_damaged_compressed_frame(write, writers):
    content = bytearray(writers.kdump({0: RANDOM}))
    content[-10:] = b"\xff" * 10
    content[-1500:-1400] = bytes(100)
    with open_dump(write(bytes(content))) as dump, pytest.raises(MalformedDump, match="PFN 0x0"):
        dump.frame(0)


def test_a_decompression_bomb_is_bounded(write, writers):
    with open_dump(write(writers.kdump({0: bytes(1 << 20)}))) as dump, pytest.raises(MalformedDump, match="4097 bytes"):
        dump.frame(0)


LISTING = """
(qemu) info registers -a

CPU#0
RAX=0000000000000000 RBX=0000000000000001 RCX=0000000000000080 RDX=0000000000310000
RSI=ffff888000000000 RDI=00000000003506b0 RBP=0000000000000001 RSP=ffffc90000013d80
R8 =00000000000fe000 R9 =0000000000000009 R10=000000000000000a R11=000000000000000b
R12=000000000000000c R13=000000000000000d R14=000000000000000e R15=fffffffffffffff2
RIP=ffffffff812c20e0 RFL=00000046 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=0
ES =0000 0000000000000000 00000000 00000000
CS =0010 0000000000000000 ffffffff 00af9b00 DPL=0 CS64 [-RA]
SS =0018 0000000000000000 ffffffff 00cf9300 DPL=0 DS   [-WA]
DS =0000 0000000000000000 00000000 00000000
FS =0000 000000000c3f63c0 00000000 00000000
GS =0000 ffff888007a00000 00000000 00000000
LDT=0000 0000000000000000 00000000 00008200 DPL=0 LDT
TR =0040 fffffe0000003000 00000067 00008900 DPL=0 TSS64-avl
GDT=     fffffe0000001000 0000007f
IDT=     fffffe0000000000 00000fff
CR0=80050033 CR2=00000000005e27a0 CR3=0000000000688000 CR4=003506b0
DR0=0000000000000000 DR1=0000000000000000 DR2=0000000000000000 DR3=0000000000000000
DR6=00000000ffff0ff0 DR7=0000000000000400
CCS=0000000000000004 CCD=0000000000000004 CCO=EFLAGS
EFER=0000000000000d01
FCW=037f FSW=0000 [ST=0] FTW=00 MXCSR=00001f80
CPU#1
EAX=00000000 EBX=00000000 ECX=00000000 EDX=000506e3
ESI=00000000 EDI=00000000 EBP=00000000 ESP=00000000
EIP=0000fff0 EFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=1
ES =0000 00000000 0000ffff 00009300
CS =f000 ffff0000 0000ffff 00009b00
SS =0000 00000000 0000ffff 00009300
DS =0000 00000000 0000ffff 00009300
FS =0000 00000000 0000ffff 00009300
GS =0000 00000000 0000ffff 00009300
LDT=0000 00000000 0000ffff 00008200
TR =0000 00000000 0000ffff 00008b00
GDT=     00000000 0000ffff
IDT=     00000000 0000ffff
CR0=60000010 CR2=00000000 CR3=00000000 CR4=00000000
EFER=0000000000000000
"""


def test_raw_memory_with_a_listing(write):
    with open_dump(write(A + B + C[:10]), registers=write(LISTING, "registers")) as dump:
        assert dump.kind == "raw"
        assert [dump.frame(pfn) for pfn in (0, 1, 2, -1)] == [A, B, None, None]
        first, second = dump.cpus
    assert (first.rip, first.rsp, first.rflags, first.r8, first.r15) == (
        *(0xFFFFFFFF812C20E0, 0xFFFFC90000013D80, 0x46, 0xFE000, 0xFFFFFFFFFFFFFFF2),
    )
    assert (first.cr0, first.cr2, first.cr3, first.cr4, first.efer) == (0x80050033, 0x5E27A0, 0x688000, 0x3506B0, 0xD01)
    assert (first.gs_base, first.fs_base, first.cs, first.ss) == (0xFFFF888007A00000, 0xC3F63C0, 0x10, 0x18)
    assert (first.tr, first.tr_base, first.tr_limit) == (0x40, 0xFFFFFE0000003000, 0x67)
    assert (first.gdt_base, first.gdt_limit, first.idt_base) == (0xFFFFFE0000001000, 0x7F, 0xFFFFFE0000000000)
    assert (first.halted, second.halted) == (False, True)
    assert (second.rip, second.cs, second.cs_base, second.rflags, second.r8) == (0xFFF0, 0xF000, 0xFFFF0000, 2, 0)
    assert (first.cpu, second.cpu, first.source) == (0, 1, "register listing")


def test_a_listing_takes_the_place_of_the_notes(write, qemu_core):
    with open_dump(write(qemu_core), registers=write(LISTING, "registers")) as dump:
        assert dump.cpus[0].efer == 0xD01


def test_a_listing_of_one_cpu_has_no_heading(write):
    one = LISTING.split("CPU#0\n")[1].partition("CPU#1")[0]
    with open_dump(write(A), registers=write(one, "registers")) as dump:
        assert [cpu.cpu for cpu in dump.cpus] == [0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no registers"),
        ("hello\nworld\n", "holds no registers"),
        (LISTING.replace("IDT=     fff", "XXX=     fff"), "line 4: the registers of CPU 0 lack IDT"),
        (LISTING.replace("CPU#1", "CPU#0"), "CPU 0 is listed twice"),
        (LISTING.replace("RIP=", "RIQ="), "CPU 0 lack RIP"),
    ],
)
def test_bad_listings(write, text, message):
    with pytest.raises(MalformedDump, match=message):
        open_dump(write(A), registers=write(text, "registers"))


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"", MalformedDump, "the file is empty"),
        (b"hello", MalformedDump, "neither an ELF core.*--resumer-registers"),
        (b"\x7fELF", MalformedDump, "header is cut"),
        (b"KDUMP   ", MalformedDump, "header of .* outside the file"),
        (b"\x28\xb5\x2f\xfd rest", MalformedDump, "the zstd data are damaged after 0 plain bytes"),
        (b"\xfd7zXZ\0", MalformedDump, "the xz file is cut short after 0 plain bytes"),
        (b"EMiL", Unsupported, "LiME"),
    ],
)
def test_other_files(write, content, error, message):
    with pytest.raises(error, match=message) as caught:
        open_dump(write(content))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", [form for form in COMPRESS if form != "lzma"])
def test_a_compressed_dump(write, qemu_core, form):
    """lzma's mark is too weak: memory may begin so."""
    pack = COMPRESS[form]
    with open_dump(write(qemu_core)) as plain, open_dump(write(pack(qemu_core), "packed")) as dump:
        assert (dump.kind, dump.cpus, list(dump.runs())) == (plain.kind, plain.cpus, list(plain.runs()))
        assert [dump.frame(first) for first, _ in dump.runs()] == [plain.frame(first) for first, _ in plain.runs()]


def test_other_elf_files(write, writers):
    with pytest.raises(MalformedDump, match="type is not CORE"):
        open_dump(write(writers.elf_core([(0, A)], kind=2)))
    with pytest.raises(Unsupported, match="64-bit x86"):
        open_dump(write(writers.elf_core([(0, A)], machine=183)))
    with pytest.raises(Unsupported, match="64-bit x86") as error:
        open_dump(write(writers.elf_core([(0, A)], ei_class=1)))
    assert "pmemsave" in error.value.advice
    with pytest.raises(MalformedDump, match="holds no memory"):
        open_dump(write(writers.elf_core([])))


def test_cut_files(write, writers, qemu_core):
    with pytest.raises(MalformedDump, match=r"from 0x100000 on should have 4096 bytes.*take it again"):
        open_dump(write(qemu_core[:-1]))
    with pytest.raises(MalformedDump, match="note segment"):
        open_dump(write(qemu_core[:400]))
    bad_note = writers.note(b"QEMU", 0, b"short")
    with pytest.raises(MalformedDump, match="CPU note of owner QEMU"):
        open_dump(write(writers.elf_core([(0, A)], bad_note)))
    with pytest.raises(MalformedDump, match="reaches beyond its segment"):
        open_dump(write(writers.elf_core([(0, A)], struct.pack("<III", 5, 1 << 31, 0))))
    unknown = writers.note(b"QEMU", 0, writers.qemu_state(version=2))
    with pytest.raises(MalformedDump, match="CPU note of owner QEMU"):
        open_dump(write(writers.elf_core([(0, A)], unknown)))


def test_claims_beyond_reason(write, qemu_core):
    header = bytearray(qemu_core)
    struct.pack_into("<H", header, 54, 0)  # e_phentsize
    with pytest.raises(MalformedDump, match="program headers"):
        open_dump(write(bytes(header)))


def test_kdump_bitmap_must_cover_its_frames(write, writers):
    content = bytearray(writers.kdump({0: A}))
    struct.pack_into("<Q", content, 4096 + 96, 1 << 39)
    with pytest.raises(MalformedDump, match="bitmap of 2 blocks"):
        open_dump(write(bytes(content)))


def test_what_is_no_file(tmp_path):
    with pytest.raises(InputProblem, match="No such file"):
        open_dump(str(tmp_path / "absent"))
    with pytest.raises(InputProblem, match="is a directory; give the dump itself"):
        open_dump(str(tmp_path))
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InputProblem, match="neither a file nor a block device; give the dump itself"):
        open_dump(str(tmp_path / "fifo"))
    with pytest.raises(InputProblem, match="cannot be opened"):
        open_dump("bad\0name")


def test_no_descriptor_is_left_open(write, writers):
    before = len(list(Path("/proc/self/fd").iterdir()))
    for content in (b"hello", writers.elf_core([]), b"KDUMP   "):
        with pytest.raises(HibercheckError):
            open_dump(write(content))
    with open_dump(write(writers.elf_core([(0, A)]))):
        pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_sparse_dump_of_64_gib_opens_at_once(tmp_path, writers):
    path = tmp_path / "large"
    size = 64 << 30
    notes = writers.note(b"QEMU", 0, writers.qemu_state(rip=1))
    head = bytearray(writers.elf_core([(0, b"")], notes))
    programs = head.index(struct.pack("<IIQ", 1, 0, len(head)))
    struct.pack_into("<QQ", head, programs + 32, size, size)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with ends(), open_dump(str(path)) as dump:
        assert dump.frame((size >> 12) - 1) == bytes(4096)
        for pfn in range(0, size >> 12, 4096):
            dump.frame(pfn)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_dumps_raise_nothing_else(tmp_path, writers, qemu_core, data):
    kinds = [qemu_core, writers.kdump({0: A, 5: RANDOM, 40000: B}, b"", b"A=B\n"), LISTING.encode()]
    content = bytearray(data.draw(st.sampled_from(kinds)))
    is_listing = content[:1] == b"\n"
    # most of a dump is frames: damage is worth more where the headers are
    last = min(len(content), 9000) - 1
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, last))
        content[place : place + 4] = data.draw(st.sampled_from([b"\xff" * 4, bytes(4), b"\x80\0\0\0", b"\x01\0\0\0"]))
    del content[data.draw(st.integers(0, len(content))) if data.draw(st.integers(0, 4)) == 4 else len(content) :]
    path = Path(tmp_path / "damaged")
    path.write_bytes(content)
    plain = Path(tmp_path / "plain")
    plain.write_bytes(A)
    with (
        suppress(HibercheckError),
        open_dump(str(plain if is_listing else path), registers=str(path) if is_listing else None) as dump,
    ):
        for pfn in (0, 1, 5, 0x100, 40000, 1 << 30):
            frame = dump.frame(pfn)
            assert frame is None or len(frame) == 4096
        assert all(0 <= cpu.rip < 1 << 64 for cpu in dump.cpus)
