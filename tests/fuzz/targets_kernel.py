"""Targets that read kernels: vmlinux, its wrappers and packages, kallsyms, BTF, System.map, facts."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

from hibercheck.errors import MissingFact
from hibercheck.kernel import kallsyms
from hibercheck.kernel.btf import Btf
from hibercheck.kernel.code.facts import facts_of
from hibercheck.kernel.code.traits import read_traits
from hibercheck.kernel.kernel import open_kernel
from tests.fuzz.draw import Draw
from tests.fuzz.mutate import Region, mutate_bytes, mutate_json, mutate_text, patch_fields
from tests.fuzz.seeds import Copy, unpack
from tests.support import btf_writer, elf_writer, kallsyms_writer, wrappers

Target = Callable[[Draw], None]
BOMB = 3 << 30
"""Plain bytes of the decompression bomb, of which a reader must not take all."""
KERNEL = "kernels/small-hlt.vmlinux.xz"


def read_kernel(path: str, *, symbols: str | None = None, traits: bool = False) -> None:
    """Ask a kernel everything that a check asks."""
    with open_kernel(path, symbols=symbols) as kernel:
        for question in (
            lambda: kernel.banner,
            lambda: kernel.release,
            lambda: kernel.build_id,
            lambda: kernel.config,
            lambda: kernel.percpu_start,
            lambda: kernel.symbols(["idt_table", "native_play_dead", "swsusp_arch_resume", "a", "b", "c", "d", "e"]),
            lambda: kernel.variants("mwait_play_dead"),
            lambda: kernel.nearest(0xFFFFFFFF81032558),
            lambda: kernel.nearest((1 << 64) - 1),
            lambda: kernel.offset_of("task_struct", "thread_info.flags"),
            lambda: kernel.size_of("cpuinfo_x86"),
            lambda: kernel.require("restore_registers"),
            lambda: kernel.read(0xFFFFFFFF81000000, 4096),
        ):
            try:
                question()
            except MissingFact:
                continue
        if traits:
            read_traits(kernel)


def elf_regions(data: bytes) -> list[Region]:
    """Where the fields of an ELF file are, by its own headers."""
    header = struct.unpack_from("<16sHHIQQQIHHHHHH", data)
    found = [Region("identity", 0, 24, 1), Region("header", 24, 24), Region("counts", 48, 16, 2)]
    found += [Region("segments", header[5], 56 * header[10])] if header[10] else []
    found += [Region("sections", header[6], 64 * header[12])] if header[12] else []
    names = struct.unpack_from("<IIQQQQIIQQ", data, header[6] + 64 * header[13])[4]
    for number in range(header[12]):
        row = struct.unpack_from("<IIQQQQIIQQ", data, header[6] + 64 * number)
        name = data[names + row[0] :].split(b"\0", 1)[0].decode() if row[0] < 4096 else ""
        if row[1] not in {0, 8} and row[5] and not name.startswith(".debug"):
            unit = {".symtab": 8, ".BTF": 4, ".notes": 4, ".strtab": 1}.get(name, 1)
            found += [Region(name, row[4], row[5], unit)] * (3 if unit > 1 else 1)
    return found


def real_kernels(directory: Path) -> Target:
    """A kernel of the measured cases, damaged in place: headers, tables, types, code."""
    copy = Copy(unpack(KERNEL), directory)
    regions = elf_regions(copy.path.read_bytes())
    names = ("hibernate_resume_nonboot_cpu_disable", "native_play_dead", "cpuhp_smt_enable", "idt_table", "_text")
    code = []
    with open_kernel(str(copy.path)) as kernel:
        for symbol in kernel.symbols(names).values():
            place = kernel.elf.file_range(symbol.address, 256)
            code += [Region(symbol.name, place[0], place[1], 1)] if place and place[1] else []

    def run(draw: Draw) -> None:
        where = code if draw.chance(3) else regions
        with copy.damaged(patch_fields(draw, where, copy.read)) as path:
            read_kernel(str(path), traits=True)

    return run


def _btf() -> bytes:
    kind = btf_writer
    return kind.write_btf(
        [
            kind.Type(kind.INT, "int", 4),
            kind.Type(kind.STRUCT, "thread_info", 8, (("flags", 1, 0), ("status", 1, 32))),
            kind.Type(kind.CONST, "", 2),
            kind.Type(kind.TYPEDEF, "info_t", 3),
            kind.Type(kind.ARRAY, "", 0, (("", 4, 10),)),
            kind.Type(kind.UNION, "", 80, (("all", 5, 0), ("one", 4, 0))),
            kind.Type(kind.STRUCT, "task_struct", 96, (("thread_info", 4, 0), ("", 6, 64), ("next", 8, 704))),
            kind.Type(kind.PTR, "", 7),
        ]
    )


def types(directory: Path) -> Target:
    """The .BTF section by itself."""
    del directory
    data = _btf()
    regions = [Region("header", 0, 24, 4), Region("types", 24, len(data) - 24, 4)] * 2
    questions = (("task_struct", "thread_info.flags"), ("task_struct", "all.flags"), ("info_t", "status"), ("", ""))

    def run(draw: Draw) -> None:
        btf = Btf(mutate_bytes(draw, data, regions, most=8), "made")
        for struct_name, member in (*questions, ("task_struct", "next.next.next"), ("thread_info", "flags.x")):
            for ask in (btf.offset_of, btf.size_of, btf.has_member):
                try:
                    ask(struct_name, member)
                except MissingFact:
                    continue

    return run


def own_symbols(directory: Path) -> Target:
    """The kallsyms tables by themselves, in every layout."""
    del directory
    base = 0xFFFFFFFF81000000
    # Every digit, so that the token table has them.
    symbols = [(base + 64 * n, "T" if n % 3 else "t", f"cpu_hib{n}_init__st") for n in range(700)]
    seeds = {one.name: kallsyms_writer.write_kallsyms(symbols, one, base + 0x800000) for one in kallsyms_writer.LAYOUTS}

    def run(draw: Draw) -> None:
        data = seeds[draw.choice(sorted(seeds))]
        regions = [Region("end", len(data) - 8192, 8192, 2), Region("words", 0, len(data), 4)]
        data = mutate_bytes(draw, data, regions, most=6)
        if draw.chance(3):
            data = draw.choice((b"\0", b"\1\0\0\0", b"\0\2\0\0", draw.bytes(4) or b"\0")) * 20000 + data
        found = kallsyms.find(data, base + 0x800000)
        if found is not None:
            found.lookup(["cpu_hib1_init__st"])
            list(found)

    return run


def _small_kernel() -> bytes:
    symbols = [*elf_writer.SYMBOLS, *(elf_writer.Sym(f"f{n}", elf_writer.TEXT + n, 1, 2, 0, 1) for n in range(40))]
    extra = [elf_writer.Section(".BTF", elf_writer.RODATA + 0x2000000, _btf(), elf_writer.ALLOC)]
    return elf_writer.write_kernel(symbols, extra=extra)


def small_kernels(directory: Path) -> Target:
    """A made vmlinux of a few kilobytes: as many rounds as possible."""
    data, path = _small_kernel(), directory / "vmlinux"
    regions = elf_regions(data)

    def run(draw: Draw) -> None:
        path.write_bytes(mutate_bytes(draw, data, regions, most=6))
        read_kernel(str(path), traits=draw.chance(4))

    return run


def wrapped_kernels(directory: Path) -> Target:
    """vmlinuz in every compression, UKI, zboot, packages: damaged outside, inside, and bombs."""
    kernel, path = _small_kernel(), directory / "vmlinuz"
    big = kernel.ljust(5 << 20, b"\0")  # packages are searched for files of a kernel's size

    compressor = wrappers.zstd.ZstdCompressor()
    packed_bomb = b"".join(compressor.compress(bytes(16 << 20)) for _ in range(BOMB >> 24)) + compressor.flush()
    bomb = wrappers.bzimage(packed_bomb, size=0)

    def wrap(draw: Draw, data: bytes) -> tuple[bytes, list[Region]]:
        form = draw.choice(sorted(wrappers.COMPRESS))
        kind = draw.below(8)
        if kind < 4:
            packed = wrappers.COMPRESS[form](data)
            whole = wrappers.bzimage(packed, size=len(data))
            start = 512 * 5 + 777
            return whole, [Region("setup", 0x1F0, 0x80, 4), Region("payload", start, min(len(packed), 64), 1)]
        if kind == 4:
            whole = wrappers.uki({".osrel": b"ID=x", ".linux": wrappers.bzimage(wrappers.COMPRESS[form](data))})
            return whole, [Region("pe", 0x80, 0x200, 4)]
        if kind == 5:
            return wrappers.zboot(wrappers.COMPRESS["gzip"](data), "gzip"), [Region("head", 0, 64, 4)]
        name = draw.choice(("boot/vmlinuz-6.1", "usr/lib/debug/boot/vmlinux-6.1", "boot/x"))
        if kind == 6:
            form = draw.choice(("xz", "zstd", "gzip", None))
            whole = wrappers.deb({name: big}, form)
            return whole, [Region("ar", 8, 200, 1), Region("data", max(0, len(whole) - 1500), 1000, 1)]
        whole = wrappers.rpm({name: big})
        return whole, [Region("lead", 0, 200, 4), Region("payload", 200, max(8, len(whole) - 200), 1)]

    def run(draw: Draw) -> None:
        inner = mutate_bytes(draw, kernel) if draw.chance(3) else kernel
        if draw.chance(12):
            inner = bytes(32 << 20)
        data, regions = wrap(draw, inner)
        if draw.chance(100):
            data, regions = bomb, [Region("start", 0xA00, 0x400, 1)]
        path.write_bytes(mutate_bytes(draw, data, regions))
        read_kernel(str(path))

    return run


def real_bzimages(directory: Path) -> Target:
    """A bzImage of the measured cases, damaged in place."""
    copy = Copy(unpack("kernels/small-hlt.bzImage"), directory)
    regions = [Region("setup", 0x1F0, 0x80, 4), Region("start", 0, 0x8000, 4), Region("all", 0, copy.size, 1)]

    def run(draw: Draw) -> None:
        with copy.damaged(patch_fields(draw, regions, copy.read)) as path:
            read_kernel(str(path))

    return run


def symbol_files(directory: Path) -> Target:
    """System.map and /proc/kallsyms beside a kernel."""
    kernel, path = directory / "vmlinux", directory / "System.map"
    kernel.write_bytes(_small_kernel())
    text = "".join(f"{one.value:016x} T {one.name}\n" for one in sorted(elf_writer.SYMBOLS, key=lambda one: one.value))
    text += "ffffffffc0000000 t module_function\t[module]\n"

    def run(draw: Draw) -> None:
        content = mutate_text(draw, text * draw.choice((1, 1, 50)), ("ffffffff81000000", "T", "_text", "[ext4]"))
        data = content.encode("utf-8", "surrogatepass")
        path.write_bytes(mutate_bytes(draw, data) if draw.chance(4) else data)
        read_kernel(str(kernel), symbols=str(path))

    return run


def kernel_facts(directory: Path) -> Target:
    """Facts files in place of a kernel."""
    path = directory / "facts.json"
    with open_kernel(str(unpack(KERNEL))) as kernel:
        document = facts_of(kernel)
    document["memory"] = document["memory"][:8]

    def run(draw: Draw) -> None:
        data = json.dumps(mutate_json(draw, document)).encode("utf-8", "surrogatepass")
        path.write_bytes(mutate_bytes(draw, data) if draw.chance(4) else data)
        with open_kernel(str(path)) as kernel:
            read_traits(kernel)
            for name in ("idt_table", "restore_registers", "no such"):
                kernel.symbol(name)
            for ask in (
                lambda: kernel.read(0xFFFFFFFF81032558, 64),
                lambda: kernel.nearest(0xFFFFFFFF81032558),
                lambda: kernel.offset_of("task_struct", "stack"),
                lambda: kernel.size_of("cpuinfo_x86"),
                lambda: (kernel.banner, kernel.release, kernel.build_id, kernel.percpu_start),
            ):
                try:
                    ask()
                except MissingFact:
                    continue

    return run
