"""A case: one run, exactly, as a file. What a finding is shrunk to, and what ``--case`` repeats.

It holds a seed, the options that are not as the seed decides them, and the names of the faults that may strike.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from shardfun.errors import ConfigurationError
from shardfun.simulation.application.subject import AppPlan
from shardfun.simulation.campaign import Plan, options_of
from shardfun.simulation.options import Options

FORMAT: Final = 1
BYTES_MAX: Final = 1 << 22


@dataclass(frozen=True, slots=True)
class Case:
    """See the module.

    Args:
        kind: of the violation that it is kept for; ``what``: in words.
    """

    plan: Plan
    options: Options
    kind: str = ""
    what: str = ""


def encode_case(case: Case, drawn: Options) -> dict[str, Any]:
    """A case as JSON knows it.

    Args:
        drawn: the options as the seed alone decides them.
    """
    changed = _changes(dataclasses.asdict(case.options), dataclasses.asdict(drawn))
    changed.pop("faults", None)
    return {
        "shardfun_case": FORMAT,
        "seed": case.options.seed,
        "workload": case.plan.workload,
        "mutation": case.plan.mutation,
        "app": None if case.plan.app is None else dataclasses.asdict(case.plan.app),
        "kind": case.kind,
        "what": case.what,
        "options": changed,
        "faults": None if case.options.faults is None else list(case.options.faults),
    }


def write_case(path: Path, case: Case, drawn: Options) -> None:
    """Write a case.

    Raises:
        OSError: it cannot be written.
    """
    path.write_text(json.dumps(encode_case(case, drawn), indent=2) + "\n", encoding="utf-8")


def read_plan(path: Path) -> tuple[Plan, dict[str, Any]]:
    """What a case file says: what to run, and the file as a whole, for ``case_of``.

    Raises:
        ConfigurationError: it cannot be read, or is none.
    """
    try:
        data = path.read_bytes()[:BYTES_MAX]
        found = json.loads(data)
    except OSError as error:
        raise ConfigurationError(f"--case {path}: expected a file that can be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigurationError(f"--case {path}: expected JSON, as this command writes it: {error}") from error
    if not isinstance(found, dict) or found.get("shardfun_case") != FORMAT:
        raise ConfigurationError(f"--case {path}: expected a case of format {FORMAT}, as this command writes it")
    try:
        app = None if found["app"] is None else msgspec.convert(found["app"], AppPlan)
        plan = Plan(*msgspec.convert([found["workload"], found["mutation"]], tuple[str | None, str | None]), app)
        msgspec.convert(found["seed"], int)
    except (KeyError, msgspec.ValidationError) as error:
        raise ConfigurationError(f"--case {path}: damaged: {error}") from error
    return plan, found


def case_of(plan: Plan, found: dict[str, Any]) -> Case:
    """The case of a file that ``read_plan`` has read. It imports the application, if there is one.

    Raises:
        ConfigurationError: it is damaged, or was written by a version whose options were others.
    """
    drawn = dataclasses.asdict(options_of(found["seed"], plan))
    try:
        options = msgspec.convert(_with_changes(drawn, found["options"]) | {"faults": found["faults"]}, Options, strict=False)
    except (KeyError, TypeError, AttributeError, msgspec.ValidationError) as error:
        raise ConfigurationError(f"--case: its options are none that this version of shardfun has: {error}") from error
    return Case(plan, options, str(found.get("kind", "")), str(found.get("what", "")))


def _changes(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in ours.items():
        if value == theirs.get(name):
            continue
        other = theirs.get(name)
        found[name] = _changes(value, other) if isinstance(value, dict) and isinstance(other, dict) else value
    return found


def _with_changes(drawn: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    unknown = [name for name in changes if name not in drawn]
    if unknown:
        raise KeyError(unknown[0])
    return {
        name: _with_changes(value, changes[name])
        if name in changes and isinstance(value, dict) and isinstance(changes[name], dict)
        else changes.get(name, value)
        for name, value in drawn.items()
    }
