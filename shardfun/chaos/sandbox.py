"""A private copy of a node: the user's configuration, with everything that it writes or listens on redirected to a folder of its own.

What cannot be redirected is refused, with what to do instead. Everything that was changed is told, one sentence each.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from shardfun.chaos.inputs import bounded, count_records, is_paced, paced, with_input
from shardfun.chaos.plan import HEARTBEAT_TIMEOUT_S
from shardfun.config.schema import Config, EgressConfig, IngressConfig, SupervisionConfig
from shardfun.egress.file import FileEgressOptions
from shardfun.errors import ConfigurationError, nearest
from shardfun.sdk.app import App

CHECKPOINT_INTERVAL_S: Final = 0.2
"""At most: nothing is shown by a fault before which nothing is complete."""
HEARTBEAT_INTERVAL_S: Final = 0.05
RESTARTS_MIN: Final = 100
POISON_DEATHS_MIN: Final = 10
"""Limits for deaths in a row: those that a plan brings are neither a node that cannot go on nor a message that kills."""
DATA: Final = "data"
PUBLISHED: Final = "published"
"""Folders of a run."""
SAFE_EGRESSES: Final = ("file", "stdout", "stream", "http")
"""Kinds whose records can go to a private file without asking: nobody outside is told of them."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What a private copy is made from.

    Args:
        config: bounded and redirected, as far as that is the same for all runs.
        records: of each ingress that can be counted.
        unreadable: names of ingresses that only the node can read.
        notes: what was changed, for people.
    """

    config: Config
    records: Mapping[str, int]
    unreadable: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def total(self) -> int:
        """Records of all ingresses that can be counted."""
        return sum(self.records.values())

    def at(self, place: Path, *, reading_s: float | None = None) -> Config:
        """The configuration of one run.

        Args:
            place: gets ``data`` and ``published``.
            reading_s: how long reading shall take; ``None``: as fast as it goes.
        """
        config = self.config
        ingress = {}
        for name, entry in config.ingress.items():
            count = self.records.get(name)
            rate = None if reading_s is None or not count else count / reading_s
            ingress[name] = entry if count is None else paced(entry, rate)
        egress = {
            name: EgressConfig(kind="file", options=FileEgressOptions(path=place / PUBLISHED / f"{name}-{{partition}}.jsonl"))
            for name in config.egress
        }
        return msgspec.structs.replace(config, data_dir=place / DATA, ingress=ingress, egress=egress)


def make_sandbox(
    config: Config,
    app: App,
    folder: Path,
    *,
    shards: int | None = None,
    records: int | None = None,
    inputs: Mapping[str, Any] | None = None,
    replace: Collection[str] = (),
    order: Collection[str] = (),
) -> Sandbox:
    """Redirect a configuration.

    Args:
        folder: for copies of inputs.
        shards: other than in the configuration.
        records: take at most so many of each ingress.
        inputs: what to read instead, by the name of the ingress: an ``Input`` or its records.
        replace: egresses that reach outside, and whose records go to a file instead.
        order: egresses whose order counts.

    Raises:
        ConfigurationError: all that cannot be redirected.
    """
    problems: list[str] = []
    notes = ["data_dir: a new, private folder"]
    ingress = _ingresses(config, app, folder, records, inputs or {}, problems, notes)
    _check_egresses(config, replace, order, problems, notes)
    if problems:
        raise ConfigurationError(*problems)
    changes: dict[str, Any] = {"ingress": ingress}
    if config.http is not None:
        changes["http"] = None
        notes.append("[http]: left out, so nothing listens")
    if config.endless:
        changes["endless"] = False
        notes.append("endless: false, so that the run comes to an end")
    if shards is not None and shards != config.shards:
        changes["shards"] = shards
        notes.append(f"shards: {shards} instead of {config.shards}")
    if config.checkpoint.interval_s > CHECKPOINT_INTERVAL_S:
        changes["checkpoint"] = msgspec.structs.replace(config.checkpoint, interval_s=CHECKPOINT_INTERVAL_S)
        notes.append(f"checkpoint.interval: {CHECKPOINT_INTERVAL_S * 1000:.0f} ms, so that there is something to go back to")
    restarts = max(config.supervision.restarts_without_checkpoint, RESTARTS_MIN)
    deaths = max(config.failure.poison_deaths, POISON_DEATHS_MIN)
    supervision: SupervisionConfig = msgspec.structs.replace(
        config.supervision,
        heartbeat_interval_s=HEARTBEAT_INTERVAL_S,
        heartbeat_timeout_s=HEARTBEAT_TIMEOUT_S,
        restarts_without_checkpoint=restarts,
    )
    changes["supervision"] = supervision
    changes["failure"] = msgspec.structs.replace(config.failure, poison_deaths=deaths)
    notes.append(f"supervision.heartbeat_timeout: {HEARTBEAT_TIMEOUT_S:g} s, so that nobody waits long for a stopped process")
    notes.append(
        f"supervision.restarts_without_checkpoint: {restarts}, failure.poison_deaths: {deaths}, since it is not the messages that kill"
    )
    changes["log"] = msgspec.structs.replace(config.log, level="info", file=None, format="json")
    counted = {name: count_records(name, entry) for name, entry in ingress.items() if is_paced(entry)}
    own = [name for name in app.ingresses if name not in ingress]
    unreadable = (*(name for name in ingress if name not in counted), *own)
    return Sandbox(msgspec.structs.replace(config, **changes), counted, unreadable, tuple(notes))


def _ingresses(
    config: Config,
    app: App,
    folder: Path,
    records: int | None,
    inputs: Mapping[str, Any],
    problems: list[str],
    notes: list[str],
) -> dict[str, IngressConfig]:
    known = dict.fromkeys([*config.ingress, *app.ingresses, *app.routed_ingresses])
    found = dict(config.ingress)
    for name, given in inputs.items():
        wanted_target = getattr(given, "target", None)
        if name not in known and wanted_target is None:
            problems.append(f"input {name!r}: the application and its configuration have no such ingress{nearest(name, known)}")
            continue
        try:
            found[name] = with_input(name, given, config.ingress.get(name), folder)
            notes.append(f"ingress.{name}: reads {found[name].options.path}")
        except ConfigurationError as error:
            problems += error.problems
    for name, entry in found.items():
        try:
            found[name] = _bounded(name, entry, records, folder, notes)
        except ConfigurationError as error:
            problems += error.problems
    own = [name for name in app.ingresses if name not in found]
    notes += [f"ingress {name!r}: the application's own source, read as it is; it has to end by itself" for name in own]
    if not found and not app.ingresses:
        problems.append("there is no ingress: nothing would happen; add one to the configuration, or give records as an input")
    return found


def _bounded(name: str, entry: IngressConfig, records: int | None, folder: Path, notes: list[str]) -> IngressConfig:
    if entry.kind == "http":
        raise ConfigurationError(f"ingress.{name}: its records come over HTTP; give a file of records with --input {name}=FILE")
    if not is_paced(entry):
        notes.append(f"ingress.{name}: a source of your own, read as it is; it has to end by itself")
        return entry
    cut = bounded(name, entry, records, folder)
    if cut.options != entry.options:
        notes.append(f"ingress.{name}: the first {records} records")
    return cut


def _check_egresses(
    config: Config, replace: Collection[str], order: Collection[str], problems: list[str], notes: list[str]
) -> None:
    for option, names in (("--replace", replace), ("--order", order)):
        unknown = [name for name in names if name not in config.egress]
        problems += [f"{option} {name}: there is no such egress{nearest(name, config.egress)}" for name in unknown]
    for name, entry in config.egress.items():
        if entry.kind in SAFE_EGRESSES:
            what = "" if entry.kind == "file" else f" (kind 'file' instead of {entry.kind!r})"
            notes.append(f"egress.{name}: private files{what}")
        elif name in replace:
            notes.append(f"egress.{name}: private files instead of kind {entry.kind!r}")
        else:
            problems.append(
                f"egress.{name}: kind {entry.kind!r} writes outside of the private copy, and every fault would be seen there; "
                f"let its records go to a private file with --replace {name}"
            )
