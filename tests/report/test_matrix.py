"""The matrix in every form; the HTML page as Chromium shows it."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from rich.console import Console

from hibercheck.errors import InputProblem
from hibercheck.handoff.matrix.pair import Cell
from hibercheck.handoff.matrix.table import Matrix, Member
from hibercheck.handoff.verdict.findings import Condition, Outcome, Verdict
from hibercheck.handoff.verdict.rules import RULES
from hibercheck.report import matrix_text
from hibercheck.report.matrix import csv_parts, groups, json_parts, read_json, scenario_parts, told
from hibercheck.report.matrix_html import escape, html_parts
from tests.support.browser import CHROMIUM, axe_core, violations

NAMES = ("6.1.0-50-cloud-amd64", "6.12.94+deb13", '<b>"evil" & co</b>', "7.3.4")
CELLS = [
    Cell(Outcome.RESUMES, Verdict.SAFE, "nothing"),
    Cell(Outcome.RESETS, Verdict.FATAL, 'a "loop" <overwritten> & gone', rules=("HC201", "HC301", "<HC9>")),
    Cell(Outcome.RESUMES, Verdict.RISK, "chance", 0.4),
    Cell(Outcome.REFUSED, Verdict.REFUSED, "no"),
    Cell(Outcome.UNDETERMINED, Verdict.UNDETERMINED, "who knows"),
    Cell(Outcome.RESUMES, Verdict.LATENT, "later", exact=True),
    Cell(Outcome.RESUMES, Verdict.BENIGN, "luck"),
]
IDLE = Condition(
    "idle-driver", "how <it> idles", "by MWAIT", "no sign", Outcome.MAY_RESET, Verdict.RISK,
    (("--resumer-idle", "mwait"),), "look",
)  # fmt: skip
CELLS[0] = replace(CELLS[0], conditions=(IDLE,))
WARNING = "7 alternatives were not judged"
CELLS[1] = replace(CELLS[1], warnings=(WARNING,))
CELLS[6] = replace(CELLS[6], conditions=(replace(IDLE, verdict=Verdict.FATAL),), spared=frozenset({"idle-driver"}))


def _alone(cell):
    found = Matrix((Member("k", None, "k"),), ("default",))
    found.add(0, [cell], [[0]])
    return found


@pytest.fixture
def matrix():
    members = tuple(Member(name, None, f"/boot/{number}") for number, name in enumerate(NAMES))
    made = Matrix(members, ("default", "nosmt & more"), (("machine", "<4> CPUs"),))
    for resumer in range(4):
        rows = [[(resumer * scenario + resumee + resumer) % 7 for resumee in range(4)] for scenario in (1, 2)]
        made.add(resumer, CELLS, rows)
    return made


def verdicts(matrix):
    return {
        name: [[matrix.cell(scenario, resumer, resumee).verdict.value for resumee in range(4)] for resumer in range(4)]
        for scenario, name in enumerate(matrix.scenarios)
    }


def test_json_is_read_back(matrix, tmp_path):
    path = tmp_path / "matrix.json"
    path.write_text("".join(json_parts(matrix)))
    again = read_json(str(path))
    assert (again.members, again.scenarios, again.assumptions) == (
        matrix.members, matrix.scenarios, matrix.assumptions,
    )  # fmt: skip
    assert list(again.pairs()) == list(matrix.pairs())


def _broken(document, path, value):
    *way, last = path
    inner = document
    for step in way:
        inner = inner[step]
    inner[last] = value
    return document


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("kind",), "else"), (("rows", 0, "resumer"), 4), (("rows", 0, "resumer"), "0"),
        (("rows", 0, "cells", 0, 0), 7), (("kernels", 0, "release"), []), (("cells", 0, "reason"), None),
        (("rows", 0, "cells", 0, 0), -1), (("rows", 0, "cells", 0), [0]), (("rows", 0, "cells"), []),
        (("cells", 0, "verdict"), "good"), (("cells", 0), None), (("kernels", 0), {}), (("scenarios",), None),
        (("cells", 1), json.loads("".join(json_parts(_alone(CELLS[0]))))["cells"][0]),
        (("cells", 0, "conditions"), None), (("cells", 0, "conditions"), [{}]),
        (("cells", 0, "conditions", 0, "settle"), [["--a"]]), (("cells", 0, "conditions", 0, "suppressed"), 1),
        (("schema_version",), 1), (("schema_version",), True), (("rows", 0, "resumer"), True),
        (("rows", 0, "resumer"), 1),
        (("cells", 0, "exact"), "no"), (("cells", 0, "share"), float("nan")), (("cells", 0, "share"), 2),
        (("cells", 0, "share"), True), (("shards",), ["3/2"]), (("shards",), ["1_0/20"]), (("shards",), "x"),
        (("tool",), None), (("rows", 0), []), (("assumptions",), 3),
    ],
)  # fmt: skip
def test_what_is_no_matrix_is_refused(matrix, tmp_path, path, value):
    document = _broken(json.loads("".join(json_parts(matrix))), path, value)
    file = tmp_path / "matrix.json"
    file.write_text(json.dumps(document))
    with pytest.raises(InputProblem, match="is not a matrix"):
        read_json(str(file))


@pytest.mark.parametrize("content", [b"", b"[", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_refused(content, tmp_path):
    file = tmp_path / "matrix.json"
    file.write_bytes(content)
    with pytest.raises(InputProblem):
        read_json(str(file))


def test_csv_has_every_pair(matrix):
    rows = list(csv.DictReader(io.StringIO("".join(csv_parts(matrix)))))
    assert len(rows) == 2 * 4 * 4
    found = {(row["scenario"], row["resumer"], row["resumee"]): row for row in rows}
    for scenario, resumer, resumee, cell in matrix.pairs():
        row = found[matrix.scenarios[scenario], NAMES[resumer], NAMES[resumee]]
        assert (row["verdict"], row["outcome"], row["reason"]) == (cell.verdict, cell.outcome, cell.reason)
        assert row["share"] == ("" if cell.share is None else "0.40")
        assert row["conditions"] == {0: "idle-driver: risk", 6: "idle-driver: fatal (suppressed)"}.get(
            CELLS.index(cell), ""
        )
        assert row["exact"] == ("yes" if cell.exact else "no")


class Tables(HTMLParser):
    """Reads the tables of class ``matrix`` back: heading, row headings, and each cell's verdict and mark."""

    def __init__(self):
        super().__init__()
        self.tables, self.inside, self.texts, self.others = {}, None, [], []
        self.anchors, self.ids = [], []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.others += [value for name, value in attributes if name in {"src", "href"} and not value.startswith("#")]
        self.anchors += [value[1:] for name, value in attributes if name == "href" and value.startswith("#")]
        self.ids += [value for name, value in attributes if name == "id"]
        self.others += [tag] if tag in {"script", "link", "img", "iframe"} else []
        if tag == "table" and given.get("class") == "matrix":
            self.inside = self.tables.setdefault(given["data-scenario"], {"head": [], "rows": []})
        elif self.inside is not None and tag == "tr":
            self.inside["rows"].append([])
        elif self.inside is not None and tag in {"th", "td"}:
            self.texts.clear()
            self.classes = given.get("class", "")

    def handle_data(self, data):
        self.texts.append(data)

    def handle_endtag(self, tag):
        if self.inside is None:
            return
        if tag == "table":
            self.inside = None
        elif tag in {"th", "td"}:
            text = "".join(self.texts)
            self.inside["rows"][-1].append(text if tag == "th" else (self.classes.split()[0], text))


def check_page(page, matrix):
    reader = Tables()
    reader.feed(page)
    assert reader.others == []
    assert reader.anchors
    assert set(reader.anchors) <= set(reader.ids)
    assert len(set(reader.ids)) == len(reader.ids)
    assert set(RULES) <= set(reader.ids)
    marks = {verdict.value: mark for verdict, (mark, _) in matrix_text.MARKS.items()}
    for name, wanted in verdicts(matrix).items():
        head, *rows = reader.tables[name]["rows"]
        assert head == ["R \\ E", *NAMES]
        assert [row[0] for row in rows] == list(NAMES)
        assert [[cell[0] for cell in row[1:]] for row in rows] == wanted
        assert [[cell[1] for cell in row[1:]] for row in rows] == [[marks[one] for one in row] for row in wanted]


def test_the_page_holds_the_table_and_asks_for_nothing_else(matrix):
    page = "".join(html_parts(matrix))
    check_page(page, matrix)
    assert "url(" not in page
    assert "@import" not in page


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_chromium_shows_the_table(matrix, tmp_path):
    page = tmp_path / "matrix.html"
    page.write_text("".join(html_parts(matrix)), encoding="utf-8")
    result = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=2000", "--dump-dom", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    check_page(result.stdout, matrix)


def test_the_page_leads_from_each_reason_to_the_rules_that_are_broken(matrix):
    page = "".join(html_parts(matrix))
    links = set(re.findall(r'href="#(HC\d+)"', page))
    assert links == {"HC201", "HC301"}
    assert len(re.findall(r'id="HC\d+"', page)) == len(set(re.findall(r'id="(HC\d+)"', page))) == len(RULES)
    shown = page[page.index('<h2 id="rules">') : page.index("<details>")]
    assert set(re.findall(r'id="(HC\d+)"', shown)) == links  # what a link leads to is not folded away


def test_text_and_csv_name_the_rules(matrix):
    console = Console(file=io.StringIO(), width=200)
    matrix_text.render(matrix, console)
    assert "(HC201, HC301, <HC9>)" in console.file.getvalue()
    assert "HC201 HC301 <HC9>" in "".join(csv_parts(matrix))


def test_the_page_names_every_kernel_and_says_why(matrix):
    page = "".join(html_parts(matrix))
    assert "title=" not in page
    assert page.count("<main>") == page.count("</main>") == 1
    for name in NAMES:
        assert escape(name) in page
    for cell in CELLS[1:]:
        assert escape(cell.reason) in page


def test_the_page_marks_commands_and_ends_its_sentences(matrix):
    page = "".join(html_parts(matrix))
    assert "`" not in page
    assert "Run <code>hibercheck collect</code> on the resumer" in page
    assert all(text.endswith(".") for text in re.findall(r'<dt id="HC[^>]*>[^<]*</dt><dd>(.*?)</dd>', page))


def test_the_page_has_the_day_that_is_asked_for(matrix, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1574812800")
    assert ", 2019-11-27." in "".join(html_parts(matrix))


@pytest.mark.skipif(CHROMIUM is None or axe_core() is None, reason="chromium or axe-core is not installed")
def test_axe_finds_nothing(matrix, tmp_path):
    for width in (390, 1200):
        assert not violations("".join(html_parts(matrix)), tmp_path, width=width)


def test_the_heat_map_has_every_mark(matrix):
    console = Console(file=io.StringIO(), width=100)
    matrix_text.render(matrix, console)
    lines = console.file.getvalue().splitlines()
    marks = {verdict.value: mark for verdict, (mark, _) in matrix_text.MARKS.items()}
    for scenario, (name, wanted) in enumerate(verdicts(matrix).items()):
        start = next(index for index, line in enumerate(lines) if line.startswith(f"{name}: "))
        assert lines[start + 1].split() == ["R", "\\", "E", "1", "2", "3", "4"]
        for resumer, row in enumerate(wanted):
            shown = [cell.rstrip("*+") for cell in lines[start + 2 + resumer].split()[1:]]
            assert shown == [marks[one] for one in row]
        assert f"{matrix.counts(scenario)['safe']} safe" in lines[start]


def test_a_narrow_terminal_gets_bands(matrix):
    console = Console(file=io.StringIO(), width=16)
    matrix_text.render(matrix, console)
    heads = [line.split()[3:] for line in console.file.getvalue().splitlines() if line.strip().startswith("R \\ E")]
    assert heads == [["1", "2"], ["3", "4"]] * 2


def test_kernels_with_the_same_verdicts_stand_together():
    members = tuple(Member(str(number), None, str(number)) for number in range(4))
    matrix = Matrix(members, ("one",))
    for resumer in range(4):
        matrix.add(resumer, CELLS, [[int((resumer % 2, resumee % 2) == (0, 1)) for resumee in range(4)]])
    assert groups(matrix) == [[0, 2], [1, 3]]
    assert "2 with" not in "".join(html_parts(matrix))
    assert "0 (+1)" in "".join(html_parts(matrix))


def test_a_shard_is_not_grouped():
    members = tuple(Member(str(number), None, str(number)) for number in range(2))
    matrix = Matrix(members, ("one",))
    matrix.add(1, [replace(CELLS[0], conditions=())], [[0, 0]])
    assert groups(matrix) == [[0], [1]]
    assert "".join(html_parts(matrix)).count('<td class="safe"') == 2


@pytest.mark.parametrize(
    ("settle", "scenario"),
    [
        ([("--resumer-idle", "mwait"), ("--fact", "tlb=cold")], ";idle=mwait;fact=tlb=cold"),
        ([("--resumer-cmdline", "nosmt hibernate=no")], "--scenario 'NAME=nosmt hibernate=no'"),
        ([("--resumer-cmdline", "quiet"), ("--resumer-idle", "mwait")], "--scenario 'NAME=quiet;idle=mwait'"),
        ([("--mwait-spins", "")], "--mwait-spins"),
        ([("--resumer-idle", "port"), ("--made", "two words")], ";idle=port and --made 'two words'"),
    ],
)
def test_what_judges_so_can_be_copied(settle, scenario):
    assert scenario_parts(replace(IDLE, settle=tuple(settle))) == scenario


def test_a_condition_stands_in_every_format_with_what_judges_so(matrix):
    console = Console(file=io.StringIO(), width=200)
    matrix_text.render(matrix, console)
    text, page = console.file.getvalue(), "".join(html_parts(matrix))
    how = "add ';idle=mwait' to the scenario [idle-driver]"
    assert f"condition: how <it> idles: by MWAIT -> risk; to judge that case: {how}" in text
    assert "S+" in text
    assert "to judge that case: add &#x27;;idle=mwait&#x27; to the scenario [idle-driver]" in page
    cells = json.loads("".join(json_parts(matrix)))["cells"]
    assert {(one["id"], one["scenario"], one["suppressed"]) for cell in cells for one in cell["conditions"]} == {
        ("idle-driver", ";idle=mwait", False), ("idle-driver", ";idle=mwait", True),
    }  # fmt: skip


def test_a_warning_of_how_a_pair_was_judged_stands_in_every_format_that_says_why(matrix):
    console = Console(file=io.StringIO(), width=200)
    matrix_text.render(matrix, console)
    assert f"warning: {WARNING}" in console.file.getvalue()
    assert f"warning: {WARNING}" in "".join(html_parts(matrix))
    cells = json.loads("".join(json_parts(matrix)))["cells"]
    assert [cell["reason"] for cell in cells if cell["warnings"] == [WARNING]] == [CELLS[1].reason]
    rows = csv.DictReader(io.StringIO("".join(csv_parts(matrix))))
    assert {(row["reason"] == CELLS[1].reason, row["warnings"]) for row in rows} == {(True, WARNING), (False, "")}
    pairs = [(matrix.scenarios[scenario], cell) for scenario, _, _, cell in matrix.pairs()]
    number = sum(1 for scenario, cell in pairs if scenario == "default" and cell == CELLS[1])
    assert f"default: {WARNING} ({number} pairs)" in told(pairs)


def test_a_pair_that_is_safe_but_for_what_was_not_judged_has_its_reason_said():
    console = Console(file=io.StringIO(), width=200)
    matrix_text.render(_alone(replace(CELLS[0], conditions=(), warnings=(WARNING,))), console)
    assert f"warning: {WARNING}" in console.file.getvalue()


def test_strict_counts_the_worst_condition_that_is_not_suppressed(matrix):
    assert (CELLS[0].strict, CELLS[6].strict) == (Verdict.RISK, Verdict.BENIGN)
    assert Verdict.SAFE in matrix.verdicts()
    assert Verdict.SAFE not in matrix.verdicts(strict=True)
