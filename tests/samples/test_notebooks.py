"""samples/notebooks: every notebook runs from top to bottom in an empty folder and says what is stored in it.

`python tests/samples/test_notebooks.py` runs them and stores what they say.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "samples" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
Document = dict[str, Any]


def code_cells(document: Document) -> list[Document]:
    """The cells that are run, in order."""
    return [cell for cell in document["cells"] if cell["cell_type"] == "code"]


def run_cell(source: str, namespace: dict[str, Any]) -> tuple[str, Any]:
    """What a cell prints, and the value of its last expression, as a notebook would show them."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "<cell>", "exec"), namespace)  # noqa: S102 - a notebook of this tree is code to run
        value = None if last is None else eval(compile(ast.Expression(last.value), "<cell>", "eval"), namespace)
    return printed.getvalue(), value


def run(document: Document, folder: Path) -> tuple[dict[str, Any], list[list[Document]]]:
    """All code cells in one namespace, with `folder` as the working directory: the names at the end, and each cell's outputs."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    outputs: list[list[Document]] = []
    with contextlib.chdir(folder):
        for number, cell in enumerate(code_cells(document), start=1):
            printed, value = run_cell("".join(cell["source"]), namespace)
            outputs.append(as_outputs(printed, value, number))
    return namespace, outputs


def as_outputs(printed: str, value: Any, number: int) -> list[Document]:
    """What a cell has said, in the notebook's format."""
    out: list[Document] = []
    if printed:
        out.append({"name": "stdout", "output_type": "stream", "text": printed.splitlines(keepends=True)})
    if value is not None:
        shown = {"text/plain": repr(value).splitlines(keepends=True)}
        out.append({"data": shown, "execution_count": number, "metadata": {}, "output_type": "execute_result"})
    return out


@dataclass(frozen=True, slots=True)
class Told:
    """A notebook that was run: in which folder, its names at the end, each cell's outputs."""

    document: Document
    folder: Path
    names: dict[str, Any]
    outputs: list[list[Document]]


@pytest.fixture(scope="module")
def steal_bug(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """The story, run once."""
    document, folder = json.loads((FOLDER / "steal_bug.ipynb").read_text()), tmp_path_factory.mktemp("notebook")
    return Told(document, folder, *run(document, folder))


def test_the_story_is_true(steal_bug: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both runs are replayed, the bug is found, its first wrong event has its cause, the verdict is worse."""
    monkeypatch.chdir(steal_bug.folder)
    names, outputs = steal_bug.names, steal_bug.outputs
    comparison, difference = names["comparison"], names["difference"]
    assert (comparison.mode, comparison.verdict, comparison.exit_code) == ("exact", "worse", 1)
    assert outputs[-1][-1]["data"]["text/plain"] == ["'worse'"]
    assert outputs[1][0]["data"]["text/plain"] == ["[True, True]"]
    assert names["clean"].invariants().is_empty() and names["faulty"].invariants()["invariant"].to_list() == ["S4"]
    assert names["clean"].steal()["error_ns"].to_list() == [0, 0] and min(names["faulty"].steal()["error_ns"]) > 0
    first = difference.first.event
    assert (first.table, first.row["kind"], first.row["position"]) == ("directives", "fault", 1_442_547)
    assert difference.cause.kind == "fault" and "lost-delta" in difference.cause.sentence
    (told,) = names["clean"].sql(names["question"]).rows()
    assert told[:3] == (1_442_547, 0, "publish") and names["faulty"].sql(names["question"]).is_empty()


def test_it_says_what_is_stored(steal_bug: Told) -> None:
    """A reader without Jupyter sees the outputs of these very runs; `python tests/samples/test_notebooks.py` stores them."""
    assert [cell["outputs"] for cell in code_cells(steal_bug.document)] == steal_bug.outputs


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_are_well_formed(path: Path) -> None:
    """Format 4.5: cells with distinct ids, numbered in order; no path of the machine that ran them."""
    text = path.read_text()
    document = json.loads(text)
    cells = document["cells"]
    assert (document["nbformat"], document["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in cells}) == len(cells)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", cell["id"]) for cell in cells)
    common = {"cell_type", "id", "metadata", "source"}
    for cell in cells:
        assert set(cell) == (common if cell["cell_type"] == "markdown" else common | {"execution_count", "outputs"})
    assert [cell["execution_count"] for cell in code_cells(document)] == list(range(1, len(code_cells(document)) + 1))
    assert not re.search(r"/(?:home|root|tmp|work|Users)/", text)


def main() -> None:
    """Run every notebook, write what it says into it."""
    for path in NOTEBOOKS:
        document = json.loads(path.read_text())
        with tempfile.TemporaryDirectory() as folder:
            _, outputs = run(document, Path(folder))
        for number, (cell, said) in enumerate(zip(code_cells(document), outputs, strict=True), start=1):
            cell["outputs"], cell["execution_count"] = said, number
        path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
