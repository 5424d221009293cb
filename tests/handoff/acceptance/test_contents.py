"""What is in the image: its record's version, its compressor, zero pages."""

from __future__ import annotations

import pytest

from hibercheck.handoff.acceptance import contents
from hibercheck.handoff.acceptance.refusal import EFAULT, EOPNOTSUPP, EPERM, NAMES, Question, failed, judge_acceptance
from tests.support.made_inputs import Kernel, made_dumped, made_image, made_plan, made_resumee, made_space

ASKS = Kernel(hib_comp_algo=1)
"""A kernel since a06c6f5d3cc9 ("PM: hibernate: Move to crypto APIs for LZO compression", in v6.9)."""
OLD, NEW = (made_resumee(made_space(kernel)) for kernel in (Kernel(), ASKS))


def asked(test, **given):
    """Return the refusal of one test, or None, and what it does not know."""
    question = Question(made_plan(**given))
    return getattr(contents, test)(question), question.unknown


@pytest.mark.parametrize("kernel", [OLD, NEW])
@pytest.mark.parametrize(("name", "known", "refuses", "open_"), [
    ("none", (), False, False), ("lzo", ("lzo:builtin",), False, False), ("lz4", ("lzo:builtin",), True, False),
    ("lz4", ("lzo:builtin", "lz4:builtin"), False, False), ("lz4", None, False, True), ("lzo", (), True, False),
])  # fmt: skip
def test_the_compressor_is_asked_for_once_early_or_late(kernel, name, known, refuses, open_):
    given = {"resumee": kernel, "image": made_image(name), "traits": {"compressors": known}}
    first, last = (asked(test, **given) for test in ("compressor_first", "compressor_last"))
    here, other = (first, last) if kernel is NEW else (last, first)
    assert other == (None, [])
    found, unknown = here
    assert (found is not None, bool(unknown)) == (refuses, open_)
    if unknown:
        assert unknown == [(f"whether the resumer can decompress {name.upper()}", "a resumer vmlinux with symbols")]
    if found:
        own = "LZO" if known else "no compressor"
        assert (found.test, found.keeps_image) == ("compressor", False)
        assert found.reason == f"cannot decompress {name.upper()} (it has {own})"
        assert found.advice == "hibernate with hibernate.compressor=lzo"
        if kernel is NEW:
            assert (found.errno, found.log) == (
                EOPNOTSUPP, (f"PM: hibernation: {name} compression is not available",),
            )  # fmt: skip
        else:
            assert (found.errno, found.log) == (None, ("PM: LZO decompression failed",))


def test_a_module_that_is_not_loaded():
    given = {"resumee": NEW, "image": made_image("lz4"), "traits": {"compressors": ("lzo:builtin", "lz4:module?")}}
    assert asked("compressor_first", **given) == (None, [])
    found, _ = asked("compressor_first", **given, facts=(("lz4", "absent"),))
    assert found.reason == "has LZ4 as a module only, and that is not loaded when it resumes"
    assert found.advice.endswith("hibernate.compressor=lzo, or put the module lz4 into its initramfs")


@pytest.mark.parametrize(("wanted", "found", "refuses"), [(5, 5, False), (5, 6, True)])
def test_the_record_has_to_be_of_the_kernels_version(wanted, found, refuses):
    refusal, unknown = asked("magic", traits={"arch_record_magic": wanted}, image=made_image(magic=found))
    assert (refusal is not None, unknown) == (refuses, [])
    if refusal:
        assert (refusal.test, refusal.errno) == ("record-magic", EPERM)
        assert "magic number 0x5, and this one has 0x6" in refusal.reason
        assert refusal.log == (
            "PM: hibernation: Image mismatch: architecture specific data", "PM: hibernation: resume failed (-1)",
        )  # fmt: skip


@pytest.mark.parametrize(("flagged", "knows", "refuses", "open_"), [
    (False, None, False, False), (False, False, False, False), (True, True, False, False), (True, False, True, False),
    (True, None, False, True),
])  # fmt: skip
def test_zero_pages(flagged, knows, refuses, open_):
    refusal, unknown = asked("zero_pages", traits={"zero_pages": knows}, image=made_image(zero_flag=flagged))
    assert (refusal is not None, bool(unknown)) == (refuses, open_)
    if refusal:
        assert (refusal.test, refusal.errno, refusal.log) == ("zero-pages", EFAULT, failed(EFAULT))


def test_what_is_not_known_of_a_kernel_is_named():
    refusal, unknown = asked("magic")
    assert (refusal, unknown) == (None, [("which arch record the resumer accepts", "a resumer vmlinux with symbols")])


FINE = {"compressors": ("lzo:builtin",), "arch_record_magic": 5, "zero_pages": True}


def judged(line="", **given):
    given["traits"] = {**FINE, **given.get("traits", {})}
    return judge_acceptance(made_plan(**{"image": made_image(magic=5), "resumer_cmdline": line, **given}))


@pytest.mark.parametrize(("line", "image", "first"), [
    ("", {}, None), ("nohibernate noresume", {}, "hibernation-off"), ("noresume resume_offset=9", {}, "not-resumed"),
    ("resume_offset=9", {"hw_sig": 1, "magic": 6}, "resume-offset"),
    ("", {"magic": 6, "compressor": "lz4"}, "record-magic"),
    ("", {"compressor": "lz4"}, "compressor"),
])  # fmt: skip
def test_the_first_test_that_fails_decides(line, image, first):
    found = judged(line, image=made_image(**{"magic": 5, **image}))
    assert (found.refusal.test if found.refusal else None) == first


def test_what_no_test_could_tell_is_kept():
    found = judged(traits={"arch_record_magic": None})
    assert [fact for fact, _ in found.unknown] == ["which arch record the resumer accepts"]
    assert judged().unknown == ()


@pytest.mark.parametrize(("restores", "what_if", "refused"), [
    ((0x1000, 0x2000), False, False), ((0x1000, 0x3000), False, True), ((0x4000, 0x2000), False, True),
    (None, False, True), ((0x1000, 0x2000), True, True),
])  # fmt: skip
def test_a_resumer_that_has_this_image_loaded_has_passed_all_tests(restores, what_if, refused):
    image = made_image(magic=6, jump_address=0x1000, cr3=0x2000)
    found = judged(image=image, dumped=made_dumped(restores=restores), what_if=what_if)
    assert (found.refusal is not None) is refused


def test_errors_are_named_as_the_kernel_names_them():
    assert NAMES == {1: "EPERM", 12: "ENOMEM", 14: "EFAULT", 22: "EINVAL", 95: "EOPNOTSUPP"}
    assert failed(12, "so") == ("so", "PM: hibernation: resume failed (-12)")
