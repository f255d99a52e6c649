"""The documents say what is there: every path, test, item number, fault and command that they name exists."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import REPOSITORY

from tracekit.analyzers.invariants import INVARIANTS
from tracekit.cli import COMMANDS
from tracekit.host.config import DIRECTIVES, HostConfig
from tracekit.hypervisor.attributes import OPERATIONS
from tracekit.hypervisor.profile import PROFILES
from tracekit.hypervisor.pvtime import PUBLICATIONS
from tracekit.recorder.faults import catalogue, load_fault

PVTIME = REPOSITORY / "docs" / "pvtime.md"
TEXT = PVTIME.read_text()
DOCUMENTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md")), REPOSITORY / "samples" / "README.md"]
ROOMS = ("tracekit", "formats", "replay", "analyzers", "samples", "tests", "docs", "_build")
SUFFIXES = {".py", ".c", ".h", ".S", ".md", ".toml"}

_NUMBER = r"\d+(?:\.\d+[a-f]?)?"
CITATION = re.compile(rf"pvtime\.md`?,? (?:sections? )?({_NUMBER}(?:(?:, | and | to )(?:sections? )?{_NUMBER})*)")
BUGS = re.compile(r"\b[Bb]ugs? (\d+(?:(?:, | and | to )\d+)*)")

# The statistics of the v7 cover letter: every file that the series touches.
SERIES = """
Documentation/admin-guide/kernel-parameters.txt Documentation/virt/kvm/arm/pvtime.rst Documentation/virt/kvm/devices/vcpu.txt
arch/arm/include/asm/kvm_host.h arch/arm/kvm/Makefile arch/arm/kvm/handle_exit.c arch/arm/mm/proc-v7-bugs.c
arch/arm64/include/asm/kvm_host.h arch/arm64/include/asm/paravirt.h arch/arm64/include/asm/pvclock-abi.h
arch/arm64/include/uapi/asm/kvm.h arch/arm64/kernel/cpu_errata.c arch/arm64/kernel/paravirt.c arch/arm64/kernel/time.c
arch/arm64/kvm/Kconfig arch/arm64/kvm/Makefile arch/arm64/kvm/guest.c arch/arm64/kvm/handle_exit.c include/Kbuild
include/kvm/arm_hypercalls.h include/kvm/arm_psci.h include/linux/arm-smccc.h include/linux/cpuhotplug.h
include/linux/kvm_host.h include/linux/kvm_types.h include/uapi/linux/kvm.h virt/kvm/arm/arm.c virt/kvm/arm/hypercalls.c
virt/kvm/arm/psci.c virt/kvm/arm/pvtime.c virt/kvm/kvm_main.c
""".split()


def items(text: str) -> set[str]:
    """Numbers that may be cited: sections, items, hazards."""
    found = re.findall(r"^## (\d+)\. ", text, re.MULTILINE) + re.findall(r"^\*\*(\d+\.\d+)\b", text, re.MULTILINE)
    return {*found, *re.findall(r"^\| (8\.1[a-f]) \|", text, re.MULTILINE)}


def cited(text: str, pattern: re.Pattern[str] = CITATION) -> list[str]:
    """Numbers that a file cites; a citation may go on in the next line of a comment."""
    flat = re.sub(r"\s*\n\s*(?:#|//|\*)?\s*", " ", text)
    return [number for match in pattern.findall(flat) for number in re.findall(_NUMBER, match)]


def table(heading: str) -> list[list[str]]:
    """The rows of the first table behind a text, without its head."""
    lines = TEXT[TEXT.index(heading) :].splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith("|---"))
    rows = []
    for line in lines[first + 1 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line[1:-1].split("|")])
    return rows


def ticked(text: str) -> set[str]:
    """What stands between backticks."""
    return set(re.findall(r"`([^`]+)`", text))


def sources() -> Iterator[Path]:
    """Every source of the project but docs/pvtime.md itself."""
    for room in ROOMS:
        for path in sorted((REPOSITORY / room).rglob("*")):
            if path.suffix in SUFFIXES and path.is_file() and path != PVTIME:
                yield path


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("as docs/pvtime.md 1.12 says", ["1.12"]),
        ("(pvtime.md 3.4).", ["3.4"]),
        ("docs/pvtime.md 1.12 and section 3.", ["1.12", "3"]),
        ("# docs/pvtime.md\n    # sections 1 to 3", ["1", "3"]),
        ("docs/pvtime.md 8.1c, 5.10; more", ["8.1c", "5.10"]),
        ("docs/pvtime.md holds 300 facts", []),
    ],
)
def test_citations_are_understood(text: str, numbers: list[str]) -> None:
    """The pattern finds what authors write."""
    assert cited(text) == numbers


def test_citations_have_their_item() -> None:
    """Whoever cites docs/pvtime.md by number finds the item there."""
    have = items(TEXT)
    citations = [(path.relative_to(REPOSITORY), number) for path in sources() for number in cited(path.read_text())]
    assert len(citations) >= 20
    assert [(str(path), number) for path, number in citations if number not in have] == []


def test_items_have_no_gaps() -> None:
    """Each section's items run from 1 in order."""
    order = re.findall(r"^\*\*(\d+)\.(\d+)\b", TEXT, re.MULTILINE)
    last = {"1": 14, "2": 11, "3": 16, "4": 13, "5": 10, "8": 2}
    assert [f"{a}.{b}" for a, b in order] == [f"{section}.{n}" for section, count in last.items() for n in range(1, count + 1)]
    assert [row[0] for row in table("## 8. Real bugs")] == [str(n) for n in range(1, 48)]


def test_bugs_have_their_row() -> None:
    """A bug's number that code or text names stands in the table."""
    have = {row[0] for row in table("## 8. Real bugs")}
    named = [(str(path.relative_to(REPOSITORY)), n) for path in [*sources(), PVTIME] for n in cited(path.read_text(), BUGS)]
    assert len(named) >= 20
    assert [(path, number) for path, number in named if number not in have] == []


def symbols(path: Path) -> set[str]:
    """What `path::name` may name: definitions of a Python file by qualified name, functions of a C file."""
    if path.suffix != ".py":
        return set(re.findall(r"^[\w *]*?\b(\w+)\([^;]*\) \{", path.read_text(), re.MULTILINE))
    found: set[str] = set()

    def walk(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef):
                found.add(prefix + node.name)
                walk(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.FunctionDef):
                found.add(prefix + node.name)
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found.update(prefix + target.id for target in targets if isinstance(target, ast.Name))

    walk(ast.parse(path.read_text()).body, "")
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_paths_and_names_exist(document: Path) -> None:
    """Every `path` and `path::name` of this tree that a document cites is there; so is every relative link."""
    text = document.read_text()
    missing = []
    for one in ticked(text):
        match = re.fullmatch(r"((?:" + "|".join(ROOMS) + r")/[\w./-]*)(?:::([\w.]+))?", one)
        if match is None:
            continue
        path, name = REPOSITORY / match[1], match[2]
        if not path.exists() or (name is not None and name not in symbols(path)):
            missing.append(one)
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        if not (document.parent / link).exists():
            missing.append(link)
    assert missing == []


def test_contents_lead_somewhere() -> None:
    """Each line of the contents has its heading, and each heading its line."""
    heads = re.findall(r"^## (.+)$", TEXT, re.MULTILINE)
    links = re.findall(r"^- \[(.+)\]\(#(.+)\)$", TEXT, re.MULTILINE)
    assert links == [(head, re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-")) for head in heads]


def test_every_patch_and_file_is_mapped() -> None:
    """Ten patches, each with its files, its place, its test and its sample; together the files of the cover letter."""
    rows: dict[str, dict[str, str]] = {}
    patch = label = ""
    for cells in table("## The series, patch by patch"):
        patch, label = cells[0].strip("* ") or patch, cells[1] or label
        rows.setdefault(patch, {}).setdefault(label, "")
        rows[patch][label] += cells[2]
    assert list(rows) == [str(n) for n in range(1, 11)]
    for row in rows.values():
        assert set(row) == {"title", "does", "files", "in tracekit", "test", "sample"}
        assert "::test_" in row["test"] and row["does"].endswith(".") and ticked(row["in tracekit"])
    assert sorted({path for row in rows.values() for path in ticked(row["files"])}) == SERIES


def models(text: str) -> list[str]:
    """Numbers of bugs and hazards in front of a fault's description: "Bugs 15 and 16: ..." gives 15 and 16."""
    head = text.partition(":")[0]
    return re.findall(r"8\.1[a-f]|\b\d+\b", head) if re.match(r"(?:bug|hazard)", head, re.IGNORECASE) else []


FAULTS = {name: load_fault(name) for name in catalogue()}


def as_the_catalogue_says(text: str) -> str:
    """docs/pvtime.md with the fault columns of 8 and 8.1 and the rows of 8.2 made from the classes of samples/faults."""
    by_number: dict[str, list[str]] = {}
    for name, one in FAULTS.items():
        for number in models(one.models):
            by_number.setdefault(number, []).append(f"`{name}`")

    def column(match: re.Match[str]) -> str:
        faults = ", ".join(by_number.get(match["number"], []))
        profiles = match["profiles"] or ""
        return match["row"] + ("; ".join(filter(None, (faults, profiles))) or "-") + match["rest"]

    cell = r"(?:`[\w-]+`(?:, )?)*(?:; )?(?P<profiles>(?:profile|every)[^|]*?)?-?"
    text = re.sub(rf"(?m)^(?P<row>\| (?P<number>\d+) \|(?:[^|]*\|){{3}} ){cell}(?P<rest> \|[^|]*\|)$", column, text)
    text = re.sub(rf"(?m)^(?P<row>\| (?P<number>8\.1[a-f]) \|(?:[^|]*\|){{2}} ){cell}(?P<rest> \|[^|]*\|)$", column, text)
    rows = [f"| `{name}` | {', '.join(models(one.models)) or '-'} | {one.invariant} |\n" for name, one in FAULTS.items()]
    head = "| fault | models | invariant |\n|---|---|---|\n"
    return re.sub(re.escape(head) + r"(?:\|.*\n)*", lambda _: head + "".join(rows), text)


def test_the_fault_tables_are_the_catalogue() -> None:
    """Bugs and hazards name the faults that say that they model them, and 8.2 lists all; `python tests/test_docs.py` writes them."""
    assert as_the_catalogue_says(TEXT).splitlines() == TEXT.splitlines()
    have = {row[0] for row in [*table("## 8. Real bugs"), *table("**8.1 ")]}
    assert {number for one in FAULTS.values() for number in models(one.models)} <= have
    assert [row[0] for row in table("**8.2 ")] == [f"`{name}`" for name in FAULTS]


@pytest.mark.parametrize("name", FAULTS)
def test_the_fault_tables_would_be_corrected(name: str) -> None:
    """A wrong name in 8.2 and in the columns of bugs and hazards is put right."""
    before, bugs = TEXT[: TEXT.index("## 8. ")], TEXT[TEXT.index("## 8. ") :]
    spoilt = before + bugs.replace(f"`{name}`", "`no-such`")
    assert spoilt.count("`no-such`") >= 1 + len(models(FAULTS[name].models))
    assert as_the_catalogue_says(spoilt) == as_the_catalogue_says(TEXT)


def test_invariants_are_described() -> None:
    """Every invariant that a fault or a bug names has its row in 5.10."""
    have = {row[0] for row in table("**5.10 ") if row[0]}
    assert have == set("S1 S2 S3 S4 S5 M1 M2 M3 M4 M5 M6 H1 H2 H3 L1 L2 L3 L4 L5 P1 G1 G2 G3 U1".split())
    named = {part for one in FAULTS.values() for part in re.findall(r"[A-Z]\d", one.invariant)}
    named |= {part for row in table("## 8. Real bugs") for part in re.findall(r"[A-Z]\d", row[3])}
    assert named and named <= have
    undecided = {row[0] for row in table("**5.10 ") if row[2].startswith("not decided")}
    assert have - undecided == set(INVARIANTS)


def test_choices_are_named() -> None:
    """Profiles, publication policies and commands of the document are those of the program."""
    use = TEXT[TEXT.index("## Use") : TEXT.index("## The series")]
    row = {cells[0]: ticked(cells[1]) for cells in table("## Use")}
    assert {one.removeprefix("--profile ") for one in row["be another kernel's KVM"]} == set(PROFILES)
    policies = row["count something else as stolen (5.7)"]
    assert {one.removeprefix("--publication ") for one in policies} == set(PUBLICATIONS)
    commands = {one.split()[1] for one in ticked(use) if one.startswith("tracekit ")}
    assert "record" in commands and commands <= set(COMMANDS)


def test_situations_can_be_brought_about() -> None:
    """What 5.4 names in its last column is an option or a directive of the host."""
    rows = table("**5.4 ")
    assert len(rows) == 16 and {row[1].split()[0].strip(",") for row in rows} == {"RUN", "WAIT", "BLOCK"}
    options = {field.name.removesuffix("_ns") for field in dataclasses.fields(HostConfig)}
    named = {name for row in rows for name in ticked(row[3])}
    assert len(named) > 10 and named <= options | set(DIRECTIVES)


@pytest.mark.parametrize("name", ["matrix"])
def test_generated_tables_have_their_place(name: str) -> None:
    """One pair of markers for each generated table, in order."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    assert TEXT.count(begin) == TEXT.count(end) == 1 and TEXT.index(begin) < TEXT.index(end)


def test_lines_can_be_read() -> None:
    """No line is wider than 200 characters."""
    assert [line for line in TEXT.splitlines() if len(line) > 200] == []


def test_operations_cannot_be_changed() -> None:
    """Patch 6 of the series: a device's operations are a constant table."""
    with pytest.raises(TypeError):
        OPERATIONS["has"] = OPERATIONS["get"]  # type: ignore[index]
    with pytest.raises(TypeError):
        del OPERATIONS["set"]  # type: ignore[attr-defined]
    assert sorted(OPERATIONS) == ["get", "has", "set"]


if __name__ == "__main__":
    PVTIME.write_text(as_the_catalogue_says(TEXT))
