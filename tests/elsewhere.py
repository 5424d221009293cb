"""Modules without a test of their own name: what holds each, and why; and tests that are about no one module."""

from __future__ import annotations

ELSEWHERE: tuple[tuple[str, str, str], ...] = (
    (
        "test_architecture.py",
        "addresses.py errors.py kernel/code/commits.py",
        "They declare constants, names or types and decide nothing; what may import them is held here.",
    ),
    ("packaging/test_manual.py", "cli/parameters.py", "It is written from the options of `check`, as the manual is."),
    ("cli/test_values.py", "cpulist.py", "It reads what users type, and is held with the other values that they type."),
    # the command line
    (
        "cli/test_process.py",
        "cli/main.py cli/group.py cli/commands.py cli/run.py cli/waiting.py cli/progress.py cli/terminal.py",
        "They are what each command is run through: it is tried as a process.",
    ),
    ("fuzz/test_endings.py", "cli/signals.py", "Signals are sent to the whole command, at many moments."),
    ("cli/test_help.py", "cli/options.py cli/explain.py cli/rules.py cli/schema.py", "They print what is declared."),
    ("cli/test_outputs.py", "cli/output.py", "Every command that writes goes through it, and all are tried."),
    (
        "cli/test_designs_matrix_diff.py",
        "cli/matrix.py cli/diff.py cli/shared.py",
        "Three commands that share their options; each checks them and hands them on.",
    ),
    ("cli/test_image.py", "cli/export.py", "It opens an image as `hibercheck image` does, and refuses the same."),
    ("host/test_log.py", "cli/log.py", "The command prints what the reader of logs finds."),
    ("real/test_kernel_facts.py", "cli/saved_cpu.py", "Saved registers are those of a machine that ran."),
    ("cli/test_check.py", "cli/job.py", "What the command does once its parameters are known."),
    (
        "cli/test_pager.py",
        "cli/notes.py",
        "What a command notes is seen in what it calls: the pager, the limits of the process.",
    ),
    ("cli/test_cache.py", "cli/stored.py", "Where a command keeps facts, and how that is shown."),
    # files
    (
        "dump/test_dump.py",
        "dump/elf.py dump/kdump.py dump/notes.py dump/registers.py dump/source.py dump/listing.py",
        "Each form of dump is read through `open_dump`, which chooses among them: the same machine in every form.",
    ),
    (
        "files/test_source.py",
        "files/binary.py files/compression.py files/inputs.py files/spool.py files/text.py",
        "One door opens what a user names; what is behind it is tried through the door, for each kind of file.",
    ),
    ("files/test_container.py", "files/qcow2.py", "The one container that is read, beside those that are refused."),
    ("files/test_outputs.py", "files/devices.py files/places.py", "What may be written to, whatever it is called."),
    ("kernel/test_cache.py", "files/trust.py", "Whose files are believed: the cache is what asks."),
    # images
    (
        "swsusp/test_image.py",
        "swsusp/header.py swsusp/swapmap.py",
        "Reading is tried as the inverse of writing, for whole images of every kind.",
    ),
    (
        "swsusp/test_bulk.py",
        "swsusp/stream.py swsusp/verify.py swsusp/codec.py",
        "A stream is gone through by threads; verifying is one use of that.",
    ),
    ("swsusp/test_locate.py", "swsusp/search.py swsusp/which.py swsusp/foreign.py", "Steps of finding an image."),
    ("swsusp/test_pfns.py", "swsusp/runs.py", "The list of frames is made of runs."),
    ("swsusp/test_export.py", "swsusp/reserve.py swsusp/vmcore.py", "What an export writes, and how."),
    # kernels
    ("kernel/test_kernel.py", "kernel/view.py kernel/symbols.py kernel/ikconfig.py", "What a kernel is asked for."),
    ("kernel/test_sources.py", "kernel/package.py", "A package is one of the things in which a kernel is found."),
    (
        "kernel/code/test_traits.py",
        "kernel/code/declared.py kernel/code/model.py kernel/code/readers.py",
        "How traits are declared, what is asked for to read them, and what they are made of.",
    ),
    ("kernel/code/test_recovered.py", "kernel/code/dataless.py", "Which kernels need their data read from their code."),
    ("kernel/code/test_startup.py", "kernel/code/flaws.py kernel/code/layout.py", "Traits of how a kernel starts."),
    # the handoff
    ("report/test_formats_real.py", "handoff/api.py", "The interface for programs, on the committed cases."),
    (
        "real/test_designs.py",
        "handoff/designs/catalogue.py handoff/designs/compare.py handoff/designs/occupy.py handoff/designs/place.py "
        "handoff/designs/replay.py",
        "A design is a whole handoff with CPUs parked otherwise: it is tried on real images.",
    ),
    (
        "handoff/facts/test_cmdline.py",
        "handoff/facts/arguments.py handoff/facts/e820.py",
        "Parameters of a command line, and the memory map that some of them change.",
    ),
    ("handoff/scenario/test_known.py", "handoff/facts/given.py handoff/facts/standing.py", "How well a fact is known."),
    (
        "handoff/facts/test_embedded.py",
        "handoff/facts/identity.py handoff/facts/resumee.py",
        "The resumee's kernel and what it says, out of a real image.",
    ),
    ("handoff/scenario/test_idle_outlook.py", "handoff/facts/idle.py", "What a driver that was seen leads to."),
    ("handoff/memory/test_exact.py", "handoff/facts/running.py", "What only a dump tells."),
    (
        "handoff/matrix/test_pair.py",
        "handoff/matrix/memory.py handoff/matrix/summary.py",
        "What is certain of two kernels is made to be judged as a pair.",
    ),
    ("handoff/matrix/test_table.py", "handoff/matrix/run.py", "All pairs of a table, by several processes."),
    ("handoff/facts/test_collecting.py", "handoff/memory/collected.py", "What was collected, laid over the kernel."),
    (
        "handoff/replay/test_trace.py",
        "handoff/memory/composite.py handoff/memory/context.py handoff/replay/touch.py handoff/replay/compare.py",
        "A trace is made of accesses to a memory at a moment, each compared; made states show each.",
    ),
    (
        "handoff/test_one_engine.py",
        "handoff/replay/judgement.py",
        "Every way in must come to the same: from the judgement of a CPU to the sentence about it.",
    ),
    (
        "handoff/verdict/test_rules.py",
        "handoff/verdict/explain.py handoff/verdict/naming.py",
        "Findings, and the names in them, by the rule that each belongs to.",
    ),
    (
        "handoff/verdict/test_reporting.py",
        "handoff/verdict/findings.py handoff/verdict/headline.py handoff/verdict/summary.py",
        "The parts of a report, which is put together there.",
    ),
    ("handoff/facts/test_used_since.py", "handoff/verdict/stale.py", "What was used since, and what is said of it."),
    ("host/test_entries.py", "host/swap.py", "Boot entries and swap areas of one made system."),
    (
        "handoff/preflight/test_preflight.py",
        "handoff/preflight/answers.py handoff/preflight/expected.py handoff/preflight/find.py "
        "handoff/preflight/run.py handoff/preflight/survive.py "
        "cli/preflight.py host/devices.py host/initramfs.py "
        "host/location.py host/tree.py report/preflight.py report/preflight_text.py",
        "One question about one system: made systems are asked it whole.",
    ),
    (
        "handoff/scenario/test_place.py",
        "handoff/designs/own.py",
        "A resumer that parks its CPUs outside itself: from its code to where they wait.",
    ),
    ("real/test_fred.py", "kernel/code/fred.py handoff/memory/fred.py", "FRED of kernels that were built with it."),
    (
        "handoff/preflight/test_preflight.py",
        "handoff/preflight/live.py handoff/matrix/expected.py host/madt.py",
        "What a running system tells, and an image that is not written yet.",
    ),
    # reports
    (
        "report/test_formats.py",
        "report/json.py report/sarif.py report/junit.py report/ktap.py report/github.py report/gitlab.py "
        "report/markdown.py report/cases.py report/fingerprint.py report/gate.py",
        "Every format says the same of the same reports, and keeps to its schema.",
    ),
    (
        "report/test_text.py",
        "report/text_cpus.py report/text_findings.py report/text_inputs.py report/text_parts.py "
        "report/text_short.py report/prose.py report/lines.py report/settle.py",
        "The text report is compared whole with committed ones.",
    ),
    (
        "report/test_parts.py",
        "report/picture.py report/sanitise.py report/walks.py report/words.py",
        "Small parts that several formats use.",
    ),
    (
        "cli/test_gate.py",
        "report/baseline.py report/suppressions.py",
        "Files that a user writes, as commands read them.",
    ),
    ("cli/test_designs_matrix_diff.py", "report/designs.py", "The table is shown by the command."),
    ("handoff/test_diff.py", "report/diff.py", "The differences, as they are told."),
    ("report/test_page.py", "report/drawing.py", "What is drawn is looked at on the page."),
    ("report/test_matrix.py", "report/spared.py", "Suppressions, cell by cell."),
    ("report/test_matrix.py", "report/matrix_html.py report/matrix_text.py", "One table in three forms."),
    ("cli/test_image.py", "report/image.py report/image_text.py", "What is shown of an image."),
    ("cli/test_kernel.py", "report/kernel.py report/kernel_text.py", "What is shown of a kernel."),
    # the machine
    ("x86/test_exceptions.py", "x86/flat.py", "Delivery without paging, beside delivery with it."),
    ("x86/test_paging.py", "x86/memory.py", "What a walk reads."),
    ("real/test_dumps.py", "x86/emulator.py", "A second opinion, on dumps of real machines."),
)
"""(tests, modules, reason)."""

ACROSS: dict[str, str] = {
    "handoff/verdict/test_undetermined.py": "What is left open, in every command that can leave it.",
    "handoff/preflight/test_measured.py": "The measured cases, as they were before they hibernated.",
    "handoff/scenario/test_place.py": "A place outside the kernel, from its code to the CPUs in it.",
    "handoff/test_committed.py": "Every committed measured case.",
    "kernel/code/test_fixmap_line.py": "A monitored line in the fixmap, through every reader that it takes.",
    "kernel/test_config_beside.py": "Files that lie beside a kernel.",
    "cli/test_confined.py": "What the whole process may write, once it is told its outputs.",
    "cli/test_gate.py": "Suppressions and baselines, as a user meets them.",
    "cli/test_help.py": "Every command's help.",
    "cli/test_inputs.py": "Every input that is named, by every command.",
    "cli/test_outputs.py": "Every command that writes.",
    "cli/test_process.py": "The command as a process.",
    "cli/test_words.py": "What every command says.",
    "handoff/test_one_engine.py": "One state, however it is come by.",
    "handoff/preflight/test_preflight.py": "A made system, asked whole.",
    "kernel/code/test_bare.py": "Kernels that list only their code.",
    "kernel/code/test_compilers.py": "Kernels from other compilers.",
    "kernel/code/test_each_instruction.py": "What each of some instructions is for, in every reader of code.",
    "handoff/test_told.py": "All that is said of the committed cases under many options.",
    "kernel/code/test_types.py": "What types say of a kernel, in every reader that asks for members.",
    "kernel/code/test_told.py": "All that is read of kernels, whole.",
    "kernel/code/test_hostile.py": "Kernels that are damaged or made to waste time.",
    "report/test_parts.py": "Small parts that several formats use.",
}
"""Tests of no one module: what each is about."""
