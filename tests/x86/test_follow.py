"""Following code by hand: where it leads, what it touches, and that it knows what it does not know."""

from __future__ import annotations

import importlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hibercheck.x86.follow import CourseEnd, Unmapped, follow
from hibercheck.x86.paging import Access

RIP, LINE, PERCPU, STACK = 0x1000000, 0x5000, 0x6000, 0x8000
# 6.1's mwait_play_dead() with the line in RDI, from behind the MWAIT:
#  00 mov (%rdi),%eax; 02 cmp $0x4a17dead,%eax; 07 je 1e; 09 mov %gs:0x40,%eax; 11 test %eax,%eax; 13 je 20
#  15 mov %rdi,%rax; 18 monitor; 1b mwait; 1e jmp 00 (the HLT that the kick leads to is put there by a test)
LOOP = bytes.fromhex("8b07 3dadde174a 7415 658b042540000000 85c0 740b 4889f8 0f01c8 0f01c9 ebe0")
KICK = (0x4A17DEAD).to_bytes(4, "little")


def course(code, memory=None, registers=None, *, gdt=None, foreign=None):
    """Follow code at RIP, with memory by page."""
    pages = {RIP: code.ljust(4096, b"\xcc")} | {page: bytes(content) for page, content in (memory or {}).items()}

    def read(address, size):
        page = address & ~0xFFF
        if page not in pages:
            raise Unmapped
        return pages[page][address - page : address - page + size]

    known = {"rdi": LINE, "rsp": STACK + 0x800} if registers is None else registers
    return follow(read, known, RIP, gs_base=PERCPU, gdt=gdt, foreign=foreign or (lambda _address, _size: False))


def memory(line=b"\xef\xbe\xad\xde", number=1):
    percpu = bytes(0x40) + number.to_bytes(4, "little")
    return {LINE: line.ljust(4096, b"\0"), PERCPU: percpu.ljust(4096, b"\0"), STACK: bytes(4096)}


def test_it_goes_round_the_loop():
    found = course(LOOP, memory())
    assert (found.end, found.rip) == (CourseEnd.WAITS, RIP + 0x1B)
    assert [(one.address, one.size, one.value) for one in found.data[:3]] == [
        (LINE, 4, 0xDEADBEEF),
        (PERCPU + 0x40, 4, 1),
        (LINE, 64, 0xDEADBEEF),
    ]


def test_the_kick_leads_elsewhere():
    code = LOOP[:0x1E] + b"\xf4\xeb\xfd"
    found = course(code, memory(KICK))
    assert (found.end, found.rip) == (CourseEnd.WAITS, RIP + 0x1E)
    assert [one.by for one in found.data] == [RIP]


def test_another_number_leads_elsewhere():
    found = course(LOOP + b"\xf4\xeb\xfd", memory(number=0))
    assert (found.end, found.rip) == (CourseEnd.WAITS, RIP + 0x20)


def test_code_that_is_not_its_own_ends_it():
    found = course(LOOP + b"\xf4\xeb\xfd", memory(number=0), foreign=lambda address, _size: address >= RIP + 0x20)
    assert (found.end, found.rip) == (CourseEnd.FOREIGN, RIP + 0x20)


def test_without_the_value_it_does_not_know():
    unknown = follow(
        lambda address, size: LOOP[address - RIP : address - RIP + size] if address >= RIP else None,
        {"rdi": LINE},
        RIP,
        gs_base=PERCPU,
        gdt=None,
        foreign=lambda _address, _size: False,
    )
    assert unknown.end is CourseEnd.UNKNOWN
    assert unknown.rip == RIP + 7
    assert course(LOOP, memory(), {}).end is CourseEnd.UNKNOWN  # not even the line's address


@pytest.mark.parametrize(
    ("code", "end"),
    [
        ("488b0425 00000000 f4", CourseEnd.FAULTS),  # mov 0,%rax
        ("ebfe", CourseEnd.RUNS_ON),
        ("0fa2 f4", CourseEnd.NOT_UNDERSTOOD),  # cpuid
        ("06", CourseEnd.NOT_UNDERSTOOD),  # no instruction in 64-bit mode
        ("c3", CourseEnd.UNKNOWN),  # ret, to what is not known
    ],
)
def test_how_else_it_ends(code, end):
    assert course(bytes.fromhex(code), memory(), {}).end is end


def test_verw_reads_the_descriptor_that_it_names():
    """The emulator's and the machine's VERW do; the kernel wants only its side effect (mds_clear_cpu_buffers())."""
    code = bytes.fromhex("0f002f f4 ebfa")  # verw (%rdi); hlt; jmp
    pages = {LINE: b"\x18".ljust(4096, b"\0"), PERCPU: bytes(4096)}
    read = [(one.address, one.size) for one in course(code, pages, gdt=(PERCPU, 0x7F)).data]
    assert read[:2] == [(LINE, 2), (PERCPU + 0x18, 8)]
    assert {one.size for one in course(code, pages, gdt=(PERCPU, 0x17)).data} == {2}  # beyond the limit nothing is read
    assert course(code, {LINE: pages[LINE]}, gdt=(PERCPU, 0x7F)).end is CourseEnd.FAULTS


def test_calls_and_the_stack():
    code = bytes.fromhex("e803000000 f4 ebf8 53 5b 31c0 c3")  # call 8; hlt; jmp 0; 8: push %rbx; pop %rbx; xor; ret
    found = course(code, memory())
    assert (found.end, found.rip) == (CourseEnd.WAITS, RIP + 5)
    assert [(one.address - STACK, one.access) for one in found.data[:4]] == [
        (0x7F8, Access.WRITE),
        (0x7F0, Access.WRITE),
        (0x7F0, Access.READ),
        (0x7F8, Access.READ),
    ]


def test_an_access_over_a_page_border():
    code = bytes.fromhex("488b87fc0f0000 4883f800 f4")  # mov 0xffc(%rdi),%rax; cmp; hlt
    found = course(code + b"\xeb\xf3", memory(number=0) | {LINE: bytes(4092) + b"abcd"})
    assert found.data[0].value == int.from_bytes(b"abcd" + bytes(4), "little")


# -- against the emulator ---------------------------------------------------------------------------------------------

_REGISTERS = ("rax", "rbx", "rcx", "rdx")
_OPERATIONS = {
    "mov %ebx,%eax": "89d8",
    "mov %bh,%cl": "88f9",
    "movzbl %ah,%edx": "0fb6d4",
    "movslq %ebx,%rcx": "4863cb",
    "movsbl %al,%edx": "0fbed0",
    "lea 8(%rax,%rbx,4),%rcx": "488d4c9808",
    "add %ebx,%eax": "01d8",
    "sub %rdx,%rbx": "4829d3",
    "cmp $-1,%cx": "6683f9ff",
    "and $0x7f,%bl": "80e37f",
    "or %rcx,%rdx": "4809ca",
    "xor %eax,%eax": "31c0",
    "test %dl,%dl": "84d2",
    "inc %rbx": "48ffc3",
    "dec %ch": "fecd",
    "push %rbx; pop %rdx": "535a",
    "mov %rax,(%rdi); mov (%rdi),%bx": "488907668b1f",
}
_JUMPS = {0x70 + number for number in range(16)}


@example(["add %ebx,%eax"], 0x70, [0x7FFFFFFF, 1, 0, 0])
@given(
    st.lists(st.sampled_from(sorted(_OPERATIONS)), min_size=1, max_size=6),
    st.sampled_from(sorted(_JUMPS)),
    st.lists(
        st.sampled_from([0, 1, 0x7F, 0x80, 0xFFFF, 0x7FFFFFFF, 0x80000000]) | st.integers(0, (1 << 64) - 1),
        min_size=4,
        max_size=4,
    ),
)
def test_it_computes_as_the_emulator_does(operations, jump, values):
    """Straight-line code and a conditional jump over a store: registers would differ in what is stored, or where."""
    unicorn = pytest.importorskip("unicorn")
    x86 = importlib.import_module("unicorn.x86_const")

    known_flags = "85c0"  # test %eax,%eax
    body = bytes.fromhex(known_flags + "".join(_OPERATIONS[name] for name in operations))
    stores = bytes.fromhex("48894708 48895f10 48894f18 48895720")  # all four registers behind (%rdi)
    code = body + bytes([jump, len(stores)]) + stores + b"\xf4\xeb\xfd"
    registers = dict(zip(_REGISTERS, values, strict=True)) | {"rdi": LINE, "rsp": STACK + 0x800}
    found = course(code, memory(), registers)
    uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    for page in (RIP, LINE, STACK):
        uc.mem_map(page, 4096)
    uc.mem_write(RIP, code)
    for name, value in registers.items():
        uc.reg_write(getattr(x86, f"UC_X86_REG_{name.upper()}"), value)
    made = []
    uc.hook_add(
        unicorn.UC_HOOK_MEM_WRITE,
        lambda _uc, _kind, address, size, value, _data: made.append((address, size, value & ((1 << 8 * size) - 1))),
    )
    uc.emu_start(RIP, RIP + len(body) + 2 + len(stores))
    assert found.end is CourseEnd.WAITS
    assert [(one.address, one.size, one.value) for one in found.data if one.access is Access.WRITE] == made


def run_at(rip, pages, registers=None):
    """Follow code from ``rip``; a page that is None is there and not known."""

    def read(address, size):
        page = address & ~0xFFF
        if page not in pages:
            raise Unmapped
        content = pages[page]
        return None if content is None else content[address - page : address - page + size]

    return follow(read, registers or {}, rip, gs_base=None, gdt=None, foreign=lambda _address, _size: False)


HALT = b"\xf4\xeb\xfd"  # hlt; jmp to it


@pytest.mark.parametrize(("room", "following", "end"), [
    # the last bytes of a page: what is needed of the next one is fetched, and no more
    (3, "gone", CourseEnd.WAITS), (3, "unknown", CourseEnd.WAITS),
    (2, "gone", CourseEnd.FAULTS), (2, "unknown", CourseEnd.UNKNOWN), (2, "there", CourseEnd.WAITS),
    (1, "gone", CourseEnd.FAULTS), (1, "there", CourseEnd.WAITS),
])  # fmt: skip
def test_an_instruction_may_end_in_the_next_page(room, following, end):
    first = bytes(4096 - room) + HALT[:room]
    pages = {RIP: first}
    if following != "gone":
        pages[RIP + 4096] = None if following == "unknown" else HALT[room:].ljust(4096, b"\xcc")
    assert run_at(RIP + 4096 - room, pages).end is end


@pytest.mark.parametrize("code", [
    "ed 85c0 7400",  # in (%dx),%eax; test %eax,%eax; je
    "8903",  # mov %eax,(%rbx): it may have stored anywhere
    "50", "58", "c3",  # push, pop and ret on a stack that is nowhere
    "ffe3", "ff23",  # jmp *%rbx, jmp *(%rbx)
    "39d8 7500", "ffd3",  # cmp %ebx,%eax; jne - call *%rbx
])  # fmt: skip
def test_what_hangs_on_what_is_not_known_is_not_known(code):
    found = run_at(RIP, {RIP: bytes.fromhex(code).ljust(4096, b"\xcc")}, {"rax": 0})
    known = {"rax": 0, "rbx": STACK, "rdx": 0x80, "rsp": STACK + 0x800}
    assert found.end is CourseEnd.UNKNOWN
    if not code.startswith("ed"):
        pages = {RIP: bytes.fromhex(code).ljust(4096, b"\xcc"), STACK: bytes(4096)}
        assert run_at(RIP, pages, known).end is not CourseEnd.UNKNOWN


def test_a_return_to_what_is_not_known_is_not_known():
    pages = {RIP: b"\xc3".ljust(4096, b"\xcc"), STACK: None}
    assert run_at(RIP, pages, {"rsp": STACK + 0x800}).end is CourseEnd.UNKNOWN
    pages[STACK] = bytes(0x800) + (RIP + 8).to_bytes(8, "little") + bytes(0x7F8)
    pages[RIP] = b"\xc3".ljust(8, b"\xcc") + HALT.ljust(4088, b"\xcc")
    found = run_at(RIP, pages, {"rsp": STACK + 0x800})
    assert (found.end, found.rip) == (CourseEnd.WAITS, RIP + 8)
