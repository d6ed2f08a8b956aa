"""Joining the result files of one ablation that ran in several places, or at several times."""

from collections.abc import Sequence

from mixreorg.ablate.results import AblationResults, RunResult
from mixreorg.ablate.spec import AblationSpec
from mixreorg.config import differences
from mixreorg.errors import MixreorgError

_COMPARED = ("recipe", "world", "settings")
"""Of a row: what makes its runs comparable. Labels and sections may have changed."""


def join_results(parts: Sequence[AblationResults], names: Sequence[str]) -> AblationResults:
    """One result of all runs. Title, notes, rows and labels are those of the last part, which describes them all.

    The last part may have been measured on further splits; runs of the others then lack these.

    A run that two parts hold is taken from the one that has finished it.

    Args:
        parts: results of the same ablation, for example with other seeds each.
        names: of the parts, for messages.

    Raises:
        MixreorgError: another ablation; a row, a world or the measure changed; or two parts finished the same run.
    """
    whole = parts[-1]
    for part, name in zip(parts, names, strict=True):
        _check_same(part, name, whole, names[-1])
    runs: dict[tuple[str, int], tuple[RunResult, str]] = {}
    for part, name in zip(parts, names, strict=True):
        for run in part.runs:
            known = runs.get((run.row, run.seed))
            if known is not None and known[0].state == run.state == "finished":
                raise MixreorgError(
                    f"{run.row}, seed {run.seed}: both {known[1]} and {name} hold it finished; leave one of them out"
                )
            if known is None or known[0].state == "unfinished":
                runs[run.row, run.seed] = (run, name)
    _check_same_pairs(whole, list(runs.values()))
    order = {row.name: number for number, row in enumerate(whole.rows)}
    joined = sorted((run for run, _ in runs.values()), key=lambda run: (order[run.row], run.seed))
    return whole.updated(runs=tuple(joined))


def _check_same_pairs(whole: AblationResults, runs: Sequence[tuple[RunResult, str]]) -> None:
    """Data that exist are the same in all parts, as far as their number tells."""
    worlds = {row.name: row.world for row in whole.rows}
    first: dict[str, tuple[RunResult, str]] = {}
    for run, name in runs:
        other, other_name = first.setdefault(worlds[run.row], (run, name))
        if other.num_pairs != run.num_pairs:
            raise MixreorgError(
                f"{run.row}, seed {run.seed}, of {name} was trained on {run.num_pairs:,} pairs, {other.row}, seed "
                f"{other.seed}, of {other_name} on {other.num_pairs:,}: the world {worlds[run.row]} is not the same"
            )


def _read(results: AblationResults, name: str) -> AblationSpec:
    """The ablation as it is understood now: a file of an earlier version lacks the newest fields."""
    return AblationSpec.from_dict(results.spec, source=f"the ablation in {name}")


def _check_same(part: AblationResults, name: str, whole: AblationResults, last: str) -> None:
    if part.title != whole.title:
        raise MixreorgError(
            f"{name} is about {part.title!r}, {last} about {whole.title!r}: only one ablation can be joined"
        )
    spec, other_spec = _read(part, name), _read(whole, last)
    measure, other_measure = spec.measure.to_dict(), other_spec.measure.to_dict()
    # Runs of an earlier part may lack splits that were added since: tables then show none of these for them.
    other_measure["splits"] = [split for split in other_measure["splits"] if split in measure["splits"]]
    if changed := ", ".join(differences(measure, other_measure)):
        raise MixreorgError(f"{name} was measured with another {changed} than {last}; measure its runs anew")
    measured = {split.world for split in part.splits if split.world is not None}
    rows = {row.name: row for row in whole.rows}
    begun = {run.row for run in part.runs}
    for row in part.rows:
        if row.name not in begun:
            continue
        if row.name not in rows:
            raise MixreorgError(f"{name} has runs of {row.name}, which {last} does not know; give the newest file last")
        other = rows[row.name]
        changed = ", ".join(field for field in _COMPARED if getattr(row, field) != getattr(other, field))
        if changed:
            raise MixreorgError(f"{row.name} has another {changed} in {name} than in {last}")
        measured.add(row.world)
    for world in sorted(measured):
        if spec.worlds[world] != other_spec.worlds.get(world):
            raise MixreorgError(f"the world {world} of {name} is another one than in {last}")
