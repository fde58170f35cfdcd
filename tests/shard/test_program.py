"""Application and configuration: every way in which they do not fit gives one clear message before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shardfun import App, Context
from shardfun.config.schema import Config, EgressConfig, FailureConfig, FlowConfig, IngressConfig, MeshConfig, StateConfig
from shardfun.errors import ApplicationImportError, ConfigurationError, DefinitionError
from shardfun.sdk.importing import import_app
from shardfun.shard.program import Application, limits_of


def write(folder: Path, name: str, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / f"{name}.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(folder)


def test_an_application_is_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "from shardfun import App\nclass holder:\n    app = App('inner')\napp = App('outer')\n"
    write(tmp_path, "found_app", source, monkeypatch)
    assert import_app("found_app:app").name == "outer"
    assert import_app("found_app:holder.app").name == "inner"


@pytest.mark.parametrize(
    ("name", "source", "attribute", "reason"),
    [
        ("broken_one", "x = 1\ny = x / 0\n", "app", r"ZeroDivisionError: division by zero \(.*broken_one.py:2\)"),
        ("broken_two", "raise SystemExit(3)\n", "app", r"SystemExit: 3 \(.*broken_two.py:1\)"),
        ("broken_three", "x = 1\ndef f(:\n", "app", r"SyntaxError: .*broken_three.py:2"),
        ("broken_four", "import no_such_module_at_all\n", "app", "No module named 'no_such_module_at_all'"),
        ("broken_five", "apps = 1\n", "app", r"broken_five.py has no attribute 'app'; did you mean 'apps'\?"),
        ("broken_six", "app = 1\n", "app", "a shardfun.App, got int"),
    ],
)
def test_what_is_no_application(
    name: str, source: str, attribute: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, name, source, monkeypatch)
    with pytest.raises(ApplicationImportError, match=f"^application '{name}:{attribute}'.*{reason}"):
        import_app(f"{name}:{attribute}")


def test_a_module_that_does_not_exist() -> None:
    with pytest.raises(ApplicationImportError, match=r"^application 'no_such_app:app' cannot be imported: ModuleNotFoundError"):
        import_app("no_such_app:app")


def test_a_wrong_definition_keeps_its_own_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "from shardfun import App\napp = App('x')\n@app.function('a/b')\ndef f(ctx): ...\n"
    write(tmp_path, "broken_definition", source, monkeypatch)
    with pytest.raises(DefinitionError, match=r"^function 'a/b': .*broken_definition.py:"):
        import_app("broken_definition:app")


# ---- the configuration ---------------------------------------------------------------------------------------------------
def application() -> App:
    app = App("shop")

    @app.function("shop/cart")
    def cart(ctx: Context, message: Any) -> None: ...

    @app.function("shop/log")
    def log(ctx: Context, message: Any) -> None: ...

    @app.on_end("shop/log")
    def end(ctx: Context) -> None: ...

    @app.router("orders")
    def route(record: Any) -> Any:
        return ()

    return app


def config(**sections: Any) -> Config:
    return Config(app="some:app", name="test", data_dir=Path("/nowhere"), **sections)


def entry(**settings: Any) -> IngressConfig:
    return IngressConfig(kind="file", options=None, **settings)


def test_what_fits() -> None:
    ingress = {"orders": entry(), "clicks": entry(target="shop/cart", id_field="user")}
    made = Application(config(ingress=ingress), application())
    program = made.program({})
    assert [function.spec.typename for function in program.functions] == ["shop/cart", "shop/log", "shardfun/request"]
    assert len(program.routes["orders"].routers) == 1
    assert program.routes["orders"].target is None
    assert (program.routes["clicks"].target, program.routes["clicks"].id_field) == ("shop/cart", "user")
    assert program.routes["clicks"].routers == ()
    assert made.types_with_end == {"shop/log"}


def test_all_mismatches_are_told_at_once() -> None:
    ingress = {"order": entry(), "clicks": entry(target="shop/card"), "zoo": entry(target="zoo/bear")}
    with pytest.raises(ConfigurationError) as caught:
        Application(config(ingress=ingress), application())
    first, second, third = caught.value.problems
    assert first.startswith("ingress.order: expected a router in the application (@app.router('order'))")
    assert first.endswith("routers exist for: orders")
    assert second == "ingress.clicks.target: the application has no function 'shop/card'; did you mean 'shop/cart'?"
    assert third == "ingress.zoo.target: the application has no function 'zoo/bear'; known: shop/cart, shop/log"


def test_a_name_of_a_namespace_can_be_a_target_unless_nobody_declares_it() -> None:
    app = application()
    app.function("zoo/*")(lambda ctx, message: None)
    app.on_end("zoo/*")(lambda ctx: None)
    made = Application(config(ingress={"zoo": entry(target="zoo/bear")}), app)
    assert made.program({}).routes["zoo"].target == "zoo/bear"
    assert made.types_with_end == {"shop/log", "zoo/*"}
    with pytest.raises(ConfigurationError, match=r"no function 'zop/bear'; (did you mean|known)"):
        Application(config(ingress={"zoo": entry(target="zop/bear")}), app)


def test_declared_egresses_must_be_those_of_the_configuration() -> None:
    def made(*declared: str, configured: tuple[str, ...]) -> None:
        app = App("shop", egresses=declared)
        app.function("shop/cart")(lambda ctx, message: None)
        egress = {name: EgressConfig(kind="file", options=None) for name in configured}
        Application(config(egress=egress), app)

    made("late", "done", configured=("done", "late"))
    with pytest.raises(ConfigurationError) as caught:
        made("late", "done", configured=("lates", "done"))
    assert caught.value.problems == (
        "egress.late: expected it in the configuration, since the application declares it; did you mean 'lates'?",
        "egress.lates: the application declares no such egress; did you mean 'late'?",
    )
    with pytest.raises(ConfigurationError, match=r"declares it$"):
        made("late", configured=())
    with pytest.raises(ConfigurationError, match=r"egress.late: the application declares no such egress; known: none"):
        made(configured=("late",))


def test_settings_reach_the_core() -> None:
    limits = limits_of(
        config(
            mesh=MeshConfig(frame_messages=7, window_frames=3),
            state=StateConfig(cache_bytes=1 << 21, dirty_soft_bytes=1 << 17, dirty_hard_bytes=1 << 18),
            failure=FailureConfig(retries=9, validate_sends=True),
            flow=FlowConfig(backlog_limit=77_000),
        )
    )
    assert (limits.frame_messages, limits.window_frames, limits.mailbox_refill) == (7, 3, 28)
    assert (limits.cache_bytes, limits.dirty_soft_bytes, limits.dirty_hard_bytes) == (1 << 21, 1 << 17, 1 << 18)
    assert (limits.retries, limits.validate_sends, limits.backlog_limit) == (9, True, 77_000)
