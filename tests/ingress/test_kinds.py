"""Kinds, ours and those found by entry point: what a broken third-party package gets to hear."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

import msgspec
import pytest

from shardfun.config.kinds import OURS, Group, kind_names, load_kind
from shardfun.egress import registry as egress_registry
from shardfun.errors import ConfigurationError


class Options(msgspec.Struct):
    """Of a kind."""


class NoSink:
    """A kind whose class lacks what an egress needs."""

    options = Options


def install(monkeypatch: pytest.MonkeyPatch, *points: tuple[str, str]) -> None:
    def find(*, group: str) -> list[EntryPoint]:
        return [EntryPoint(name, value, group) for name, value in points]

    monkeypatch.setattr("importlib.metadata.entry_points", find)


def message(call: Any, *arguments: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        call(*arguments)
    return str(caught.value)


@pytest.mark.parametrize("group", ["ingress", "egress"])
def test_ours_need_no_package_and_none_can_take_their_names(monkeypatch: pytest.MonkeyPatch, group: Group) -> None:
    install(monkeypatch, ("file", "a:B"))
    assert {"file", "http"} <= set(kind_names(group))
    for name, place in OURS[group].items():
        found = load_kind(group, name)
        assert f"{found.__module__}:{found.__qualname__}" == place
        assert issubclass(found.options, msgspec.Struct)


def test_an_unknown_kind_names_the_nearest_or_all(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, ("kafka", "a:B"), ("nats", "a:C"))
    assert message(load_kind, "ingress", "kafak") == "there is no ingress kind 'kafak'; did you mean 'kafka'?"
    assert (
        message(load_kind, "egress", "zzz")
        == "there is no egress kind 'zzz'; known kinds: file, http, kafka, nats, stdout, stream, webhook"
    )


@pytest.mark.parametrize("value", ["shardfun.no_such_module:Kind", "shardfun.errors:NoSuchClass"])
def test_a_kind_that_cannot_be_loaded_names_its_origin(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    install(monkeypatch, ("broken", value))
    text = message(load_kind, "ingress", "broken")
    assert "cannot be loaded" in text
    assert value in text


@pytest.mark.parametrize("value", ["shardfun.errors:ConfigurationError", "shardfun.config.kinds:load_kind", "msgspec:json"])
def test_a_kind_that_is_none(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    install(monkeypatch, ("odd", value))
    assert "is not a class with a msgspec.Struct class as its `options`" in message(load_kind, "ingress", "odd")


def test_two_packages_that_claim_one_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, ("twice", "a:B"), ("twice", "c:D"))
    assert "is claimed by" in message(load_kind, "egress", "twice")


def test_an_egress_that_lacks_a_method(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress_registry, "load_kind", lambda _group, _name: NoSink)
    assert "has no class method `check`" in message(egress_registry.find_kind, "mine")
