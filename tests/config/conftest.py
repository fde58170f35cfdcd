"""Fixtures of the configuration tests."""

from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import probe_kinds as probes
import pytest


@pytest.fixture
def probe_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(*, group: str) -> EntryPoints:
        name = {"shardfun.ingress": "ProbeIngress", "shardfun.egress": "ProbeEgress"}[group]
        return EntryPoints([_Here("probe", f"{probes.__name__}:{name}", group)])

    monkeypatch.setattr("importlib.metadata.entry_points", find)


class _Here(EntryPoint):
    def load(self) -> Any:
        return getattr(probes, self.value.rpartition(":")[2])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "conf").mkdir()
    return tmp_path / "conf"
