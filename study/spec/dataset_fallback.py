"""`first_there`: the first data set of a list whose files are there, with its settings. Decided when a file is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vistudy.study.spec.messages import KeyPath, SourceMap, error_message
from vistudy.study.spec.schema import StudySpec
from vistudy.trainables.data import DATASETS, DataError

KEY = "first_there"

Picks = Mapping[KeyPath, int]
"""Place of a block, or () for the top level -> which entry of its `first_there` is taken."""


def lists(content: Mapping[str, Any], spec: StudySpec, source: SourceMap) -> dict[KeyPath, list[dict[str, Any]]]:
    """Place -> the entries of every `first_there` of a file whose shape is right.

    Raises:
        StudyError: a list is empty, or `data` stands beside it.
    """
    places: dict[KeyPath, Mapping[str, Any]] = {(): content}
    places |= {("blocks", i): block for i, block in enumerate(content["blocks"] or ())} if spec.blocks else {}
    found: dict[KeyPath, list[dict[str, Any]]] = {}
    for place, part in places.items():
        if part.get(KEY) is None:
            continue
        if not part[KEY]:
            hint = "list data sets, the one that is wanted most first"
            raise source.error((*place, KEY), error_message("no data set", got=[], hint=hint))
        if part.get("data") is not None:
            hint = "keep one of them"
            raise source.error((*place, "data"), error_message(f"'{KEY}' says it, too", got=part["data"], hint=hint))
        found[place] = part[KEY]
    return found


def written_out(content: Mapping[str, Any], source: SourceMap, picks: Picks) -> tuple[dict[str, Any], SourceMap]:
    """The file as if each entry that is taken had been written instead of its list, every value with its own line."""
    lines = dict(source.lines)

    def part(values: Mapping[str, Any], place: KeyPath) -> dict[str, Any]:
        if place not in picks:
            return dict(values)
        at = (*place, KEY, picks[place])
        lines.update({(*place, *path[len(at) :]): line for path, line in source.lines.items() if path[: len(at)] == at})
        taken: dict[str, Any] = values[KEY][picks[place]]
        return {key: value for key, value in values.items() if key != KEY} | taken

    out = part(content, ())
    if isinstance(out.get("blocks"), list):
        out["blocks"] = [part(block, ("blocks", i)) for i, block in enumerate(out["blocks"])]
    return out, SourceMap(name=source.name, lines=lines)


def alternatives(entries: Mapping[KeyPath, list[dict[str, Any]]]) -> Iterator[Picks]:
    """Choices in which every entry is taken at least once: a mistake is found also in what is not there."""
    first = dict.fromkeys(entries, 0)
    for place, listed in entries.items():
        yield from (first | {place: i} for i in range(len(listed)))


def choose(entries: Mapping[KeyPath, list[dict[str, Any]]], source: SourceMap) -> tuple[Picks, tuple[str, ...]]:
    """The first entry of each list whose data are there, and a sentence on every one that was passed over.

    Raises:
        StudyError: none is there; or one is, and is damaged, which is no reason to take another silently.
    """
    picks: dict[KeyPath, int] = {}
    notes: list[str] = []
    for place, listed in entries.items():
        passed: list[str] = []
        for i, entry in enumerate(listed):
            try:
                reason = DATASETS[entry["data"]].absent()
            except DataError as error:
                raise source.error((*place, KEY, i, "data"), f"{entry['data']}: {error}") from None
            if reason is None:
                picks[place] = i
                notes += [f"data {entry['data']} is used: {text}" for text in passed]
                break
            passed.append(_in_one_line(reason))
        else:
            hint = "list one last that needs no files, such as digits"
            raise source.error((*place, KEY), error_message(f"no data set is there: {'; '.join(passed)}", hint=hint))
    return picks, tuple(dict.fromkeys(notes))


def _in_one_line(reason: str) -> str:
    """What was looked for, the places (a line each), and how to mend it."""
    first, *places = (line.strip() for line in reason.splitlines())
    return f"{first} {', '.join(places[:-1])}; {places[-1]}" if places else first
