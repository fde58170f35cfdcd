"""One trial: an undisturbed run, the same under faults, and what differs between them; or what the application's own check says."""

from __future__ import annotations

import inspect
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from shardfun.chaos.armory import Armory
from shardfun.chaos.disk import FillableDisk, InjectedDisk, MemoryDisk, bytes_in, size_for
from shardfun.chaos.folder import AGAIN, CALM, CHAOS, trial_folder
from shardfun.chaos.inputs import Records
from shardfun.chaos.node import Node, NodeFailedError
from shardfun.chaos.plan import Counts, Kind, Plan, make_plan
from shardfun.chaos.published import compare_published
from shardfun.chaos.report import Report
from shardfun.chaos.run import END_S, Chaos, Show
from shardfun.chaos.sandbox import DATA, PUBLISHED, Sandbox, make_sandbox
from shardfun.chaos.stored import StoredWorld, compare_worlds, read_world
from shardfun.chaos.subject import Subject, find_subject
from shardfun.config.writing import config_toml
from shardfun.errors import ApplicationImportError, ConfigurationError, InconclusiveError, ShardfunError
from shardfun.failpoints import ENVIRONMENT
from shardfun.sdk.importing import failure_of

CALM_S: Final = 600.0
"""An undisturbed run may take as long."""
MARGIN_S: Final = 1.5
"""Reading goes on for so much longer than the plan lasts."""
ATTEMPTS_MAX: Final = 3
"""With reading twice as slow each time: how long recoveries take is not known before."""

Check = Callable[..., Iterable[str] | None]
"""``check(published)`` or ``check(published, records)``: what is wrong, one sentence each."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a run is judged.

    Args:
        check: of the application; ``None``: by comparison with an undisturbed run.
        order: for an egress, the field whose equal values have to keep their order.
        state: whether what is stored in the end is compared, too.
        strict: of a job of shardfun's own: whatever it leaves in its temporary folder is a mistake, and it ends soon after reading.
    """

    check: Check | None = None
    order: Mapping[str, str] = field(default_factory=dict)
    state: bool = True
    strict: bool = False


def run_chaos(
    app: object,
    *,
    counts: Counts | None = None,
    plan: Plan | None = None,
    seed: int = 0,
    shards: int | None = None,
    inputs: Mapping[str, Any] | None = None,
    records: int | None = None,
    egresses: Iterable[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    replace: Collection[str] = (),
    points: tuple[str, ...] = (),
    check: Check | None = None,
    order: Mapping[str, str] | None = None,
    state: bool = True,
    strict: bool = False,
    duration_s: float | None = None,
    folder: Path | None = None,
    keep: bool = False,
    show: Show | None = None,
) -> Report:
    """Run an application's node under faults, in a private copy that touches nothing of the user's.

    Args:
        app: an ``App`` that can be imported by name, a reference ``package.module:app``, or the path of a configuration.
        counts: faults by kind; ``plan``: all of them, instead of drawing them from ``seed``.
        shards: other than in the configuration.
        inputs: records for ingresses, instead of what the configuration names: by name, an ``Input``, a file, or records.
        records: take at most so many of each ingress.
        egresses: for an application without a configuration that does not declare them.
        settings: further settings, in the shape of the configuration; ``overrides``: ``section.key=value`` each.
        replace: egresses that reach outside; their records go to a file instead.
        points: failpoints to hit beside the drawn ones: ``POINT`` or ``POINT=ACTION``.
        check: judges instead of the comparison with an undisturbed run: ``check(published, records)`` gets the folder of
            ``EGRESS-PARTITION.jsonl`` and the records by ingress, and returns what is wrong.
        order: for an egress, the field of its records: those with the same value have to come in the same order.
        state: compare what is stored in the end, too.
        strict: nothing may be left in the node's temporary folder, and its end is waited for less long: for jobs of shardfun's own.
        duration_s: how long reading shall take at least.
        folder: for everything, without results of another trial; by default a temporary one.
        keep: do not delete it. What has differences is kept anyway.
        show: told how far it is.

    Raises:
        ConfigurationError: what cannot be put under chaos, and why.
        InconclusiveError: it shows nothing: faults fell outside the run or met nobody, or undisturbed runs differ already.
        ShardfunError: the application or its input cannot be read; the undisturbed run fails.
    """
    verdict = Verdict(check, order or {}, state, strict)
    _check_verdict(verdict)
    subject = find_subject(app, overrides=overrides, settings=settings, egresses=egresses)
    with trial_folder(folder, keep=keep) as place:
        sandbox = make_sandbox(
            subject.config,
            subject.app,
            place.path / "inputs",
            shards=shards,
            records=records,
            inputs=inputs,
            replace=replace,
            order=verdict.order,
        )
        if plan is None:
            plan = make_plan(
                seed,
                Counts.of() if counts is None else counts,
                shards=sandbox.config.shards,
                spares=sandbox.config.supervision.spares,
                publishes=bool(sandbox.config.egress),
                points=points,
            )
        trial = Trial(subject, sandbox, plan, verdict, place.path, show)
        report = trial.run(duration_s)
        place.settle(report)
        return report


class Trial:
    """See the module.

    Args:
        place: an empty folder, or one that is not there yet.
    """

    def __init__(
        self, subject: Subject, sandbox: Sandbox, plan: Plan, verdict: Verdict, place: Path, show: Show | None = None
    ) -> None:
        self._subject = subject
        self._sandbox = sandbox
        self._plan = plan
        self._verdict = verdict
        self._place = place
        self._show = show
        self._processing_s = END_S if verdict.strict else CALM_S
        """How long the node may take beside reading: a guess, until an undisturbed run has shown it."""

    def run(self, duration_s: float | None = None) -> Report:
        """The undisturbed run, if it is needed, and the one under faults; again, and slower, if it was over too soon.

        Raises:
            InconclusiveError: see ``run_chaos``.
            ShardfunError: the undisturbed run fails.
        """
        stored = 0
        notes = list(self._sandbox.notes)
        if self._verdict.check is None:
            notes += self._calm(CALM, None)
            stored = bytes_in(self._place / CALM)
        reading_s = max(self._plan.duration_s + MARGIN_S, duration_s or 0.0)
        for attempt in range(ATTEMPTS_MAX):
            try:
                report = self._disturbed(reading_s, stored)
                break
            except InconclusiveError:
                if attempt + 1 == ATTEMPTS_MAX or not self._sandbox.records:
                    raise
                reading_s *= 2
        report.notes = [*notes, *report.notes]
        if not report.differences:  # the node has done nothing wrong by itself
            self._judge(report, reading_s)
        if not report.differences:
            _require_faults(report)
        return report

    # ---- runs ------------------------------------------------------------------------------------------------------------
    def _calm(self, name: str, reading_s: float | None) -> list[str]:
        """An undisturbed run; returns what people should know of it.

        Raises:
            InconclusiveError: it fails by itself, or has no results.
        """
        place = self._place / name
        config = self._sandbox.at(place, reading_s=reading_s)
        node = Node(place, config_toml(config), config.data_dir, self._subject.environ)
        try:
            began = time.monotonic()
            node.start()
            code = node.wait(CALM_S + (reading_s or 0.0))
            self._processing_s = END_S + 2 * (time.monotonic() - began)
            if code:
                raise InconclusiveError(f"without any fault the node ends with exit code {code}:\n{node.log_tail()}")
        except NodeFailedError as error:
            raise InconclusiveError(f"without any fault: {error}; is its input bounded?") from error
        finally:
            node.close()
        summary = next(event for event in reversed(node.events()) if event.get("verdict") == "finished")
        world = read_world(config.data_dir, self._subject.app)
        letters = int(summary["dead_letters"])
        first = next(iter(world.reasons), "")
        if not summary["published"] and not world.addresses and not world.elements:
            why = f", and leaves {letters} dead letters: {first}" if letters else ""
            raise InconclusiveError(f"without any fault it publishes and stores nothing, so there is nothing to compare{why}")
        return [f"the undisturbed run leaves {letters} dead letters: {first}"] if letters else []

    def _disturbed(self, reading_s: float, stored_bytes: int) -> Report:
        """The run under faults. What the node did wrong by itself is a difference, whatever its results are."""
        place = self._place / CHAOS
        shutil.rmtree(place, ignore_errors=True)
        armory = Armory(place / "failpoints")
        with self._disk(place, armory, stored_bytes) as (disk, on):
            config = self._sandbox.at(on, reading_s=reading_s)
            report = Report(self._subject.name, config.shards, self._plan, disk=disk.name)
            environ = {**self._subject.environ, ENVIRONMENT: str(armory.folder)}
            node = Node(place, config_toml(config), config.data_dir, environ)
            try:
                end_s = reading_s + 2 * self._plan.duration_s + self._processing_s
                strict = self._verdict.strict
                Chaos(node, report, end_s=end_s, strict=strict, armory=armory, disk=disk, show=self._show).run()
            except NodeFailedError as error:
                report.differences = [str(error)]
            except InconclusiveError as error:
                error.add_note("\n".join(map(str, report.timeline)))
                raise
            finally:
                node.close()
                if on != place:
                    _keep(on, place)
        return report

    @contextmanager
    def _disk(self, place: Path, armory: Armory, stored_bytes: int) -> Iterator[tuple[FillableDisk, Path]]:
        """What can be filled, and where the node's files go."""
        expected = stored_bytes or sum(self._input_bytes())
        wanted = any(fault.kind is Kind.FULL_DISK for fault in self._plan.faults)
        mounted = MemoryDisk.mount(place / "disk", size_for(expected)) if wanted else None
        if mounted is None:
            yield InjectedDisk(armory), place
            return
        try:
            yield mounted, place / "disk"
        finally:
            mounted.unmount()

    def _input_bytes(self) -> Iterable[int]:
        for entry in self._sandbox.config.ingress.values():
            path = getattr(entry.options, "path", None)
            if isinstance(path, Path) and path.is_file():
                yield 8 * path.stat().st_size  # it may be compressed

    # ---- verdict ---------------------------------------------------------------------------------------------------------
    def _judge(self, report: Report, reading_s: float) -> None:
        """Add what is wrong with the results.

        Raises:
            InconclusiveError: undisturbed runs differ, too.
        """
        place, verdict = self._place / CHAOS, self._verdict
        if verdict.check is not None:
            report.differences = self._checked(verdict.check, place / PUBLISHED)
            return
        try:
            world = self._stored(place)
        except ShardfunError as error:
            report.differences = [f"what the node has stored cannot be read: {error}"]
            return
        report.differences = self._compared(place, world)
        if report.differences:
            self._refute(report, reading_s)

    def _compared(self, place: Path, world: StoredWorld) -> list[str]:
        """What differs between the undisturbed run and another one."""
        calm, verdict = self._place / CALM, self._verdict
        found = compare_published(calm / PUBLISHED, place / PUBLISHED, self._sandbox.config.egress, verdict.order)
        return found + compare_worlds(self._stored(calm), world)

    def _stored(self, place: Path) -> StoredWorld:
        return read_world(place / DATA, self._subject.app) if self._verdict.state else StoredWorld()

    def _checked(self, check: Check, published: Path) -> list[str]:
        published.mkdir(exist_ok=True)  # nothing may have been published
        records = Records(self._sandbox.at(self._place).ingress, self._sandbox.unreadable)
        try:
            given = (published, records)[: _accepted(check)]
            said = check(*given)
            if said is None:
                return []
            if isinstance(said, Iterable) and not isinstance(said, str | bytes):
                return [str(sentence) for sentence in said]
        except AssertionError as error:
            return [f"the check fails: {error or 'an assertion'}"]
        except Exception as error:
            raise ApplicationImportError(f"the check itself raises {failure_of(error)}") from error
        raise ApplicationImportError(f"the check returns {said!r:.80}: expected what is wrong, one sentence each, or None")

    def _refute(self, report: Report, reading_s: float) -> None:
        """Is it the faults? Two undisturbed runs that differ in the same way prove nothing about faults.

        Raises:
            InconclusiveError: they do.
        """
        self._calm(AGAIN, reading_s)
        again = self._place / AGAIN
        found = self._compared(again, self._stored(again))
        if found:
            raise InconclusiveError(
                "two undisturbed runs differ already, so nothing can be said about faults (its results depend on how messages "
                f"interleave, on the order of a set, on time or on chance); judge it with a check of your own (--check). They differ in: {found[0]}"
            )
        report.notes.append("a second undisturbed run, as slow as the one under faults, was equal to the first")


def _check_verdict(verdict: Verdict) -> None:
    if verdict.check is None:
        return
    if not callable(verdict.check):
        raise ConfigurationError(f"check: expected a function, got {verdict.check!r:.80}")
    if verdict.order or not verdict.state:
        raise ConfigurationError(
            "a check (--check) judges alone: order (--order) and state (--no-state) say how to compare with an undisturbed run"
        )


def _accepted(check: Check) -> int:
    """How many of its two arguments a check takes."""
    try:
        parameters = inspect.signature(check).parameters.values()
    except (TypeError, ValueError):
        return 2
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return 2
    return min(
        2, sum(parameter.kind in {parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD} for parameter in parameters)
    )


def _require_faults(report: Report) -> None:
    """That nothing differs says something only of faults that happened.

    Raises:
        InconclusiveError: none did, or one did not that somebody has asked for by its name.
    """
    if report.plan.faults and not report.timeline:
        missed = "; ".join(map(str, report.unreached))
        raise InconclusiveError(f"none of the {len(report.plan.faults)} faults met anybody: {missed}")
    named = [str(missed) for missed in report.unreached if missed.fault.named]
    if named:
        raise InconclusiveError(f"nothing differs, but a failpoint that was asked for was not reached: {'; '.join(named)}")


def _keep(mounted: Path, place: Path) -> None:
    """What is on a disk that goes away."""
    for name in (DATA, PUBLISHED):
        if (mounted / name).exists():
            shutil.copytree(mounted / name, place / name, symlinks=True)


def describe(report: Report) -> bytes:
    """The report as JSON."""
    return msgspec.json.encode(report.as_dict())
