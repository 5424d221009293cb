"""Following code that reads and writes memory in every way, beside the emulator, also with less than all known."""

from __future__ import annotations

import importlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hibercheck.x86.follow import CourseEnd, Unmapped, follow
from hibercheck.x86.paging import Access

RIP, LINE, PERCPU, STACK = 0x1000000, 0x5000, 0x8000, 0xA000
PAGES = {LINE: 3, LINE + 0x1000: 5, PERCPU: 7, STACK: 11, STACK + 0x1000: 13}
OPERATIONS = {
    "mov %gs:0x40,%eax": "658b042540000000",
    "mov %gs:0x3c(%rcx),%edx": "658b513c",
    "mov (%rdi,%rcx,4),%eax": "8b048f",
    "mov 0xff9(%rdi),%rax": "488b87f90f0000",
    "mov %rax,0xffd(%rdi)": "488987fd0f0000",
    "mov %ax,0xfff(%rdi)": "668987ff0f0000",
    "mov 0xffe(%rdi),%edx": "8b97fe0f0000",
    "movzwl 3(%rdi),%ecx": "0fb74f03",
    "movzwl 0xfff(%rdi),%ecx": "0fb78fff0f0000",
    "movzbl (%rdi,%rbx),%edx": "0fb6141f",
    "movl $0x11223344,6(%rdi)": "c7470644332211",
    "movb $0x7f,9(%rdi)": "c647097f",
    "movq $-2,8(%rdi)": "48c74708feffffff",
    "mov 0x10(%rip),%eax": "8b0510000000",
    "lea 0x10(%rip),%rdx": "488d1510000000",
    "lea -8(,%rbx,8),%ecx": "8d0cddf8ffffff",
    "lea (%rdi,%rcx),%rdi": "488d3c0f",
    "lea 0xff0(%rdi),%rdi": "488dbff00f0000",
    "lea 4(%rsp),%rsp": "488d642404",
    "cmpl $5,4(%rdi)": "837f0405",
    "cmpb $0x41,0xfff(%rdi)": "80bfff0f000041",
    "add %eax,(%rdi)": "0107",
    "add 8(%rdi),%rbx": "48035f08",
    "incl 4(%rdi)": "ff4704",
    "decq 0xffc(%rdi)": "48ff8ffc0f0000",
    "xor 2(%rdi),%cx": "66334f02",
    "andl $0xff00ff,0xffe(%rdi)": "81a7fe0f0000ff00ff00",
    "or $1,%dh": "80ce01",
    "testb $4,1(%rdi)": "f6470104",
    "sub (%rdi),%rdx": "482b17",
    "sub %ecx,%ecx": "29c9",
    "xor %ecx,%edx": "31ca",
    "movslq 5(%rdi),%rax": "48634705",
    "movsbq 7(%rdi),%rbx": "480fbe5f07",
    "movswl %dx,%eax": "0fbfc2",
    "push %rcx": "51",
    "pushq 8(%rdi)": "ff7708",
    "push $-3": "6afd",
    "pop %rax": "58",
    "popq 0xffc(%rdi)": "8f87fc0f0000",
    "call the next": "e800000000",
    "mov %bl,%ah": "88dc",
    "mov %ah,%bl": "88e3",
    "mov $0x1234,%ax": "66b83412",
    "mov $-1,%rcx": "48c7c1ffffffff",
    "mov $0x80000000,%edx": "ba00000080",
    "movabs $0x1122334455667788,%rbx": "48bb8877665544332211",
    "and $15,%ecx": "83e10f",
    "nop": "90",
    "mfence": "0faef0",
    "lfence": "0faee8",
    "pause": "f390",
    "cld": "fc",
    "endbr64": "f30f1efa",
    "nopw 0(%rax,%rax)": "660f1f0400",
    "jmp the next": "eb00",
}
REGISTERS = ("rax", "rbx", "rcx", "rdx", "rdi", "rsp")


def content(page):
    """Return a page of which all bytes near one another differ."""
    return bytes(place * PAGES[page] + (place >> 8) & 0xFF for place in range(4096))


CONTENTS = {page: content(page) for page in PAGES}


def followed(code, registers, missing=(), unknown=()):
    pages = {RIP: code.ljust(4096, b"\xcc")} | CONTENTS

    def read(address, size):
        assert 0 < size <= 4096 - address % 4096, "more than one page at once"
        page = address & ~0xFFF
        if page in missing or page not in pages:
            raise Unmapped
        return None if page in unknown else pages[page][address - page :][:size]

    return follow(read, registers, RIP, gs_base=PERCPU, gdt=None, foreign=lambda _address, _size: False)


def emulated(code, registers, missing):
    """Run code up to its HLT; return the accesses, (address, size, kind, value, by), and whether it faults."""
    unicorn = pytest.importorskip("unicorn")
    x86 = importlib.import_module("unicorn.x86_const")
    uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    uc.mem_map(RIP, 4096)
    uc.mem_write(RIP, code.ljust(4096, b"\xcc"))
    for page, held in CONTENTS.items():
        if page not in missing:
            uc.mem_map(page, 4096)
            uc.mem_write(page, held)
    for name, value in registers.items():
        uc.reg_write(getattr(x86, f"UC_X86_REG_{name.upper()}"), value)
    uc.reg_write(x86.UC_X86_REG_GS_BASE, PERCPU)
    made, ran = [], []

    def reads(_uc, _kind, address, size, _value, _data):
        try:
            value = int.from_bytes(uc.mem_read(address, size), "little")
        except unicorn.UcError:  # its end is not mapped: it faults
            return
        made.append((address, size, Access.READ, value, ran[-1][0]))

    def writes(_uc, _kind, address, size, value, _data):
        made.append((address, size, Access.WRITE, value & ((1 << 8 * size) - 1), ran[-1][0]))

    uc.hook_add(unicorn.UC_HOOK_CODE, lambda _uc, address, size, _data: ran.append((address, size)))
    uc.hook_add(unicorn.UC_HOOK_MEM_READ, reads)
    uc.hook_add(unicorn.UC_HOOK_MEM_WRITE, writes)
    try:
        uc.emu_start(RIP, RIP + len(code) - 3)
    except unicorn.UcError:
        made = [one for one in made if one[4] != ran[-1][0]]  # how far it came with the last one is its own affair
        return made, ran, True
    return made, ran, False


@example(["mov 0xff9(%rdi),%rax"], [0] * 6, set(), {LINE + 0x1000}, set(), 0x75)
@example(["mov 0xff9(%rdi),%rax"], [0] * 6, {LINE + 0x1000}, set(), set(), 0x75)
@example(["mov %rax,0xffd(%rdi)"], [0] * 6, {LINE + 0x1000}, set(), set(), 0x75)
@example(["popq 0xffc(%rdi)", "mov 0xff9(%rdi),%rax"], [0] * 6, set(), {STACK}, set(), 0x75)
@given(
    st.lists(st.sampled_from(sorted(OPERATIONS)), min_size=1, max_size=8),
    st.lists(st.sampled_from([0, 1, 4, 0x7F, 0x80, 0xFFFF, 0x80000000]) | st.integers(0, 64), min_size=6, max_size=6),
    st.sets(st.sampled_from(sorted(PAGES)), max_size=1),
    st.sets(st.sampled_from(sorted(PAGES)), max_size=1),
    st.sets(st.sampled_from(REGISTERS), max_size=2),
    st.integers(0x70, 0x7F),
)
def test_it_goes_as_the_emulator_does_as_far_as_it_knows(operations, values, missing, unknown, forgotten, jump):
    """What is not known to it must be said so; what it says must be what the machine does."""
    body = bytes.fromhex("85c0" + "".join(OPERATIONS[name] for name in operations))
    code = body + bytes([jump, 4]) + bytes.fromhex("48894708") + b"\xf4\xeb\xfd"  # jcc over mov %rax,8(%rdi); hlt
    registers = dict(zip(REGISTERS, values, strict=True))
    registers |= {"rdi": LINE + values[4] % 256, "rsp": STACK + 0x1000 + values[5] % 64}
    made, ran, faults = emulated(code, registers, missing)
    known = {name: value for name, value in registers.items() if name not in forgotten}
    found = followed(code, known, missing, unknown)
    ours = [one for one in found.data if found.end is CourseEnd.WAITS or one.by != found.rip]
    if not forgotten and not unknown:
        assert found.end is (CourseEnd.FAULTS if faults else CourseEnd.WAITS)
        assert [(one.address, one.size, one.access, one.value, one.by) for one in ours] == made
        assert list(found.fetched)[: len(ran)] == list(dict.fromkeys(ran))
        return
    # a read from it knows not where is not among what it tells: all that it tells is so, and in that order
    assert found.end in {CourseEnd.UNKNOWN, CourseEnd.WAITS, *([CourseEnd.FAULTS] if faults else [])}
    theirs = iter(made)
    for one in ours:
        if one.by in {by for by, _ in ran} and not (faults and one.by == ran[-1][0]):
            place = one.address, one.size, one.access, one.by
            value = next(value for *where, value, by in theirs if (*where, by) == place)
            assert one.value in {None, value}
