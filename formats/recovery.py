"""Saving what is whole: of a recording that was never closed, and of a trace that was damaged later.

Spec: formats/SPEC.md "Recovery". One position holds for all tables: what comes before it is complete.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracekit.formats import arrow
from tracekit.formats import manifest as manifests
from tracekit.formats.arrow import Row
from tracekit.formats.checkpoint_writer import Listed
from tracekit.formats.checkpoints import Entry, copy_checkpoints
from tracekit.formats.errors import NotATraceError, TraceDamaged, TraceError, TraceExistsError
from tracekit.formats.manifest import canonical
from tracekit.formats.reader import FolderStore, Store, Trace, open_store
from tracekit.formats.storage import IMAGES, JOURNAL, remove_path
from tracekit.formats.table_writer import REST_SUFFIX
from tracekit.formats.tables import TABLES
from tracekit.formats.writer import PARTIAL_SUFFIX, TraceWriter, partial_path

JOURNAL_LINE_MAX = 64 << 20
_SETTLED = ("position", "sequence", "vtime_ns")


@dataclass(frozen=True, slots=True)
class Recovery:
    """What was saved: everything before (position, sequence). missing: what is not there, in words."""

    path: Path
    position: int
    sequence: int
    vtime_ns: int
    rows: int
    missing: tuple[str, ...]


def recover(path: Path, output: Path | None = None, *, force: bool = False) -> Recovery:
    """Recover `path` (a trace's name, its .partial folder, or a damaged trace) into a new, complete trace.

    output: default NAME.tkt for an unfinished recording, NAME.recovered.tkt for a damaged trace.
    Errors: TraceError when nothing is usable; TraceExistsError when the output is taken.
    """
    if path.name.endswith(PARTIAL_SUFFIX) and path.is_dir():
        return _recover_partial(path, output or path.with_name(path.name.removesuffix(PARTIAL_SUFFIX)), force)
    if not path.exists() and partial_path(path).is_dir():
        return _recover_partial(partial_path(path), output or path, force)
    if not path.exists():
        raise NotATraceError(f"{path}: no such trace, and no unfinished recording of that name")
    store = open_store(path)
    size = store.size(manifests.NAME)
    if size is None or size > manifests.MANIFEST_BYTES_MAX:
        raise TraceDamaged(f"{path}: no usable {manifests.NAME}; nothing can be told apart without it")
    manifest = manifests.decode(store.read(manifests.NAME, 0, size), f"{path}/{manifests.NAME}")
    manifests.check(manifest, f"{path}/{manifests.NAME}")
    target = output or path.with_name(path.name.removesuffix(".tkt") + ".recovered.tkt")
    return _recover_damaged(Trace(path, store, manifest), target, force)


# --- a recording that was never closed ------------------------------------------------------------------------------------------


def _recover_partial(folder: Path, output: Path, force: bool) -> Recovery:
    name = folder / manifests.NAME
    if not name.is_file():
        raise TraceDamaged(f"{folder}: the recording was stopped before anything was written")
    manifest = manifests.decode(name.read_bytes(), str(name))
    store = FolderStore(folder)
    commits, entries, complaint = _whole_commits(folder, store)
    if not commits:
        raise TraceDamaged(
            f"{folder}: no commit is whole ({complaint or 'the recording stopped before the first one'}); nothing is usable"
        )
    if output == folder.with_name(folder.name.removesuffix(PARTIAL_SUFFIX)):
        if output.exists() and not force:
            raise TraceExistsError(f"{output} exists; name another place with -o, or --force")
    last = commits[-1]
    missing = [f"what was recorded after position {last['position']} (vtime {last['vtime_ns']} ns), and how the run ended"]
    if complaint:
        missing.append(complaint)
    batches: dict[str, list[tuple[str, dict[str, Any]]]] = {table: [] for table in TABLES}  # with their files
    rests: dict[str, list[tuple[str, dict[str, Any]]]] = {table: [] for table in TABLES}
    preludes: dict[str, dict[str, Any]] = {}
    for commit in commits:
        for table, entry in commit["tables"].items():
            file = TABLES[table].file
            if entry["batches"]:  # they hold what was the rest
                batches[table] += [(file, batch) for batch in entry["batches"]]
                rests[table] = []
            rests[table] += [(file + REST_SUFFIX, batch) for batch in entry.get("rest", [])]
            preludes[table] = entry["prelude"]
    trace = Trace(folder, store, {**manifest, "images": _images(manifest), "checkpoints": [one.describe() for one in entries]})
    checkpoints, complaint = _whole_checkpoints(trace, (last["position"], last["sequence"]))
    if complaint:
        missing.append(complaint)
    temporary = output.with_name(output.name + ".recovering")
    writer = TraceWriter(temporary, {**_carried(manifest), **_recovered_note(missing)}, force=True)
    try:
        _copy_images(writer, trace)
        writer.set()
        copy_checkpoints(trace, writer, checkpoints)
        rows = 0
        for table in TABLES:
            prelude = store.read(TABLES[table].file, 0, int(preludes[table]["length"]))
            for file, batch in batches[table] + rests[table]:
                raw = store.read(file, batch["offset"], batch["length"])
                for row in arrow.rows_of(arrow.decode_batch(table, prelude, raw)):
                    writer.append(table, row)
                    rows += 1
            for row in last["open"].get(table, []):
                writer.append(table, _restored(row))
                rows += 1
        writer.close({**{key: last[key] for key in _SETTLED}, "reason": "recovered", "detail": None})
    except BaseException:
        writer.abandon()
        raise
    if output.exists():
        remove_path(output)
    temporary.rename(output)
    return Recovery(output, last["position"], last["sequence"], last["vtime_ns"], rows, tuple(missing))


def _whole_commits(folder: Path, store: Store) -> tuple[list[dict[str, Any]], list[Entry], str | None]:
    """Journal lines whose chain and batches hold, the checkpoints that they list, and why the next line does not hold."""
    commits: list[dict[str, Any]] = []
    entries = Listed()
    chain = "0" * 64
    journal = folder / JOURNAL
    if not journal.is_file():
        return [], [], "the journal is missing"
    with journal.open("rb") as file:
        while line := file.readline(JOURNAL_LINE_MAX):
            try:
                commit = json.loads(line)
                claimed = commit.pop("chain")
            except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
                return commits, entries.all(), f"journal line {len(commits) + 1} is cut or garbled"
            chain = hashlib.sha256(chain.encode() + canonical(commit)).hexdigest()
            if claimed != chain or not line.endswith(b"\n"):
                return commits, entries.all(), f"journal line {len(commits) + 1} was altered"
            for table, entry in commit["tables"].items():
                if table not in TABLES or not _holds(store, table, entry):
                    return commits, entries.all(), f"{table}.arrow does not hold what commit {len(commits) + 1} says"
            try:
                entries.add(commit)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                return commits, entries.all(), f"journal line {len(commits) + 1} lists what can be no checkpoint ({error})"
            commits.append(commit)
    return commits, entries.all(), None


def _holds(store: Store, table: str, entry: dict[str, Any]) -> bool:
    file = TABLES[table].file
    ranges = [(file, 0, entry["prelude"]["length"], entry["prelude"]["sha256"])]
    for name, batches in ((file, entry["batches"]), (file + REST_SUFFIX, entry.get("rest", []))):
        ranges += [(name, batch["offset"], batch["length"], batch["sha256"]) for batch in batches]
    try:
        return all(hashlib.sha256(store.read(name, at, length)).hexdigest() == sha256 for name, at, length, sha256 in ranges)
    except OSError:
        return False


def _restored(row: list[Any]) -> Row:
    return tuple(bytes.fromhex(value["hex"]) if isinstance(value, dict) else value for value in row)


# --- a finished trace that was damaged ---------------------------------------------------------------------------------------------


def _recover_damaged(trace: Trace, output: Path, force: bool) -> Recovery:
    end = trace.manifest["end"]
    cut = (int(end["position"]) + 1, 0)
    missing: list[str] = []
    for table in TABLES:
        lost, complaint = _first_lost(trace, table)
        if lost is not None:
            cut = min(cut, lost)
            missing.append(complaint)
    if not missing:
        try:
            trace.check_all()
            trace.check_files()
        except TraceDamaged as damage:
            missing.append(str(damage))
    checkpoints, why = _whole_checkpoints(trace, cut)
    if why:
        missing = [*(text for text in missing if not why.startswith(text)), why]
    temporary = output.with_name(output.name + ".recovering")
    if output.exists() and not force:
        raise TraceExistsError(f"{output} exists; name another place with -o, or --force")
    is_whole = cut[0] > int(end["position"])
    if not is_whole:
        missing.append(f"everything from position {cut[0]} on ({end['position']} was the end)")
        if cut == (0, 0):
            raise TraceDamaged(f"{trace.path}: a table is damaged from its first row on; nothing is usable")
    writer = TraceWriter(temporary, {**_carried(trace.manifest), **_recovered_note(missing)}, force=True)
    rows, vtime = 0, 0
    try:
        _copy_images(writer, trace)
        writer.set()
        copy_checkpoints(trace, writer, checkpoints)
        for table in TABLES:
            for row in _rows_before(trace, table, cut):
                writer.append(table, row)
                rows, vtime = rows + 1, max(vtime, row[2])
        settled: dict[str, Any] = (
            dict(end)
            if is_whole
            else {"position": cut[0], "sequence": cut[1], "vtime_ns": vtime, "reason": "recovered", "detail": None}
        )
        writer.close(settled)
    except BaseException:
        writer.abandon()
        raise
    if output.exists():
        remove_path(output)
    temporary.rename(output)
    return Recovery(output, settled["position"], settled["sequence"], settled["vtime_ns"], rows, tuple(missing))


def _first_lost(trace: Trace, table: str) -> tuple[tuple[int, int] | None, str]:
    """(position, sequence) of the first row of a table that cannot be had, and why."""
    for index, entry in enumerate(trace.manifest["tables"][table]["batches"]):
        try:
            trace.batch(table, index)
        except (TraceError, OSError, KeyError) as error:
            return (entry["position"][0], entry["sequence"][0]), str(error)
    return None, ""


def _rows_before(trace: Trace, table: str, cut: tuple[int, int]) -> Iterator[Row]:
    for index, entry in enumerate(trace.manifest["tables"][table]["batches"]):
        if (entry["position"][0], entry["sequence"][0]) >= cut:
            return
        for row in arrow.rows_of(trace.batch(table, index)):
            if (row[0], row[1]) >= cut:
                return
            yield row


# --- both ---------------------------------------------------------------------------------------------------------------------------------


def _carried(manifest: dict[str, Any]) -> dict[str, Any]:
    dropped = ("format", "digest", "complete", "tables", "end", "images", "checkpoints", "recovered")
    return {key: value for key, value in manifest.items() if key not in dropped}


def _recovered_note(missing: list[str]) -> dict[str, Any]:
    return {"recovered": {"missing": [text.split(": ", 1)[-1] for text in missing]}}


def _images(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    images = manifest.get("images")
    return images if isinstance(images, list) else []


def _copy_images(writer: TraceWriter, trace: Trace) -> None:
    """Without its guest a trace can still be asked, not replayed: an image that is lost makes it unusable for that."""
    for image in trace.manifest["images"]:
        name = f"{IMAGES}/{image['sha256']}.zst"
        if trace.store.size(name) is None:
            raise TraceDamaged(f"{trace.path}: {name} is missing; without the guest's image the trace cannot be replayed")
        writer.add_image(image["role"], image["name"], trace.image(image["sha256"]))


def _whole_checkpoints(trace: Trace, cut: tuple[int, int]) -> tuple[int, str | None]:
    """How many checkpoints before the cut can be kept, and why the next one cannot: one that is lost takes those behind it along,
    as they tell what changed since."""
    checkpoints = trace.checkpoints()
    before = -1
    for k, entry in enumerate(checkpoints.entries):
        if (entry.position, entry.sequence) > cut:
            return k, None
        try:
            checkpoints.check(k)
            if entry.position <= before:
                raise TraceDamaged(f"{trace.path}: checkpoint {k} at position {entry.position} is out of order")
        except TraceDamaged as damage:
            return k, f"{damage}; it and the {len(checkpoints.entries) - k - 1} checkpoints behind it are left out"
        before = entry.position
    return len(checkpoints.entries), None
