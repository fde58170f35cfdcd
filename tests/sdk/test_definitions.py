"""Every mistake in a definition is found when it is made, and the message says where and what was expected."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
import pytest

import shardfun
from shardfun import App, Context, Message, State, Value, value
from shardfun.errors import DefinitionError


class Item(msgspec.Struct, frozen=True):
    number: int


class Open(msgspec.Struct):
    number: int


class Opaque:
    pass


class Cart(State):
    items: Value[int] = value(0)


class Basket(Cart):
    names: Value[list[str]] = value(default_factory=list)
    items: Value[int] = value(5)


def test_a_complete_application() -> None:
    app = App("shop")

    @app.function("shop/cart")
    def cart(ctx: Context[Basket], message: Item | int | None) -> None: ...

    @app.function("shop/log")
    def log(ctx: Context, message, extra: int = 0):  # an unannotated message is anything
        ...

    @app.on_end("shop/cart")
    def end(ctx: Context[Basket]) -> None: ...

    @app.router("orders")
    def route(record: Any) -> Any:
        yield Message("shop/cart", record["id"], 1)

    first, second = app.compile()
    assert [field.name for field in first.spec.fields] == ["items", "names"]
    assert [field.default for field in first.spec.fields] == [5, []]
    assert set(first.payloads.by_class) >= {Item, int, type(None)}
    assert first.spec.on_end is end
    assert (second.spec.fields, second.spec.accepts, second.spec.on_end) == ((), (), None)
    assert app.routers("orders") == (route,)
    assert app.routers("other") == ()
    assert app.routed_ingresses == ("orders",)
    assert cart.__name__ == "cart", "the decorator gives the function back"


def declare(function: Any, typename: str = "shop/cart") -> None:
    App("shop").function(typename)(function)


@pytest.mark.parametrize("typename", ["cart", "/cart", "shop/", "a/b/c", "a/b:c", "", "a/" + "b" * 300])
def test_bad_typenames(typename: str) -> None:
    with pytest.raises(DefinitionError, match="expected 'namespace/name'"):
        App("shop").function(typename)
    with pytest.raises(DefinitionError, match="expected 'namespace/name'"):
        App("shop").on_end(typename)


def test_two_functions_of_one_name() -> None:
    app = App("shop")

    @app.function("shop/cart")
    def one(ctx: Context, message: int) -> None: ...

    with pytest.raises(DefinitionError, match=r"'shop/cart' is declared twice: .*one \(.*test_definitions.py:\d+\) and .*two"):

        @app.function("shop/cart")
        def two(ctx: Context, message: int) -> None: ...


async def asynchronous(ctx: Context, message: int) -> None: ...


def generator(ctx: Context, message: int) -> Any:
    yield


async def both(ctx: Context, message: int) -> Any:
    yield


@pytest.mark.parametrize("function", [generator, both])
def test_generators_are_refused(function: Any) -> None:
    with pytest.raises(DefinitionError, match=r"'shop/cart': .*test_definitions.py.* must not be a generator"):
        declare(function)


def test_routers_may_be_generators_but_not_asynchronous() -> None:
    with pytest.raises(DefinitionError, match=r"router of ingress 'orders': .* must be a plain function or generator"):
        App("shop").router("orders")(asynchronous)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "function",
    [
        lambda: None,
        lambda ctx: None,
        lambda ctx, message, more: None,
        lambda ctx, message, *, more: None,
        lambda *arguments: None,
    ],
)
def test_wrong_signatures(function: Any) -> None:
    with pytest.raises(
        DefinitionError, match=r"expected the arguments \(ctx: Context\[MyState\], message: MyMessage\), got \("
    ):
        declare(function)


def test_wrong_signature_of_on_end() -> None:
    with pytest.raises(DefinitionError, match=r"expected the arguments \(ctx: Context\[MyState\]\), got \(ctx, message\)"):
        App("shop").on_end("shop/cart")(lambda ctx, message: None)


@pytest.mark.parametrize("context", [int, Cart, Context[int], "Context[Missing]"])
def test_a_first_argument_that_is_no_context(context: Any) -> None:
    def function(ctx: Any, message: int) -> None: ...

    function.__annotations__["ctx"] = context
    with pytest.raises(DefinitionError, match=r"function 'shop/cart'.*(expected 'Context'|cannot be resolved)"):
        declare(function)


@pytest.mark.parametrize("message", [Opaque, int | Opaque, list[Opaque], list[int] | list[str], "Missing"])
def test_a_message_type_that_cannot_be_encoded(message: Any) -> None:
    def function(ctx: Context, message: Any) -> None: ...

    function.__annotations__["message"] = message
    with pytest.raises(DefinitionError, match=r"^function 'shop/cart'"):
        declare(function)


def state_with(annotation: Any, declared: Any) -> Any:
    annotations = {} if annotation is None else {"field": annotation}
    state = type("Broken", (State,), {"__annotations__": annotations, "field": declared, "__module__": __name__})

    def function(ctx: Any, message: int) -> None: ...

    function.__annotations__["ctx"] = Context[state]  # type: ignore[valid-type]
    return function


@pytest.mark.parametrize(
    ("annotation", "declared", "reason"),
    [
        (None, value(0), "expected an annotation such as 'Value\\[int\\]'"),
        (int, value(0), "expected the annotation 'Value\\[...\\]', got <class 'int'>"),
        ("Value[Missing]", value(0), "cannot be resolved"),
        (Value[list[int]], value([]), "a mutable default would be shared; use value\\(default_factory=list\\)"),
        (Value[dict[str, int]], value({}), "use value\\(default_factory=dict\\)"),
        (Value[list[int]], value([1]), "use value\\(default_factory=lambda: \\[1\\]\\)"),
        (Value[Open], value(Open(1)), "a mutable default would be shared; use value\\(default_factory=lambda: Open"),
        (Value[int], value("text"), "the default does not fit: .*expected int, got str: 'text'"),
        (Value[int], value(True), "the default does not fit"),
        (Value[list[int]], value(default_factory=lambda: ["x"]), "the default does not fit"),
        (
            Value[Opaque],
            value(default_factory=Opaque),
            "Opaque is not a supported type; make it a msgspec.Struct or a dataclass",
        ),
        (Value[int | Opaque], value(0), "is not a supported type"),
        (Value[list[int] | list[str]], value(default_factory=list), "cannot be told apart"),
    ],
)
def test_broken_state_fields(annotation: Any, declared: Any, reason: str) -> None:
    with pytest.raises(DefinitionError, match=f"^function 'shop/cart': state .*{reason}"):
        declare(state_with(annotation, declared))


def test_a_plain_annotation_would_not_be_stored() -> None:
    class Plain(State):
        limit: ClassVar[int] = 3
        n: int = 0

    def function(ctx: Any, message: int) -> None: ...

    function.__annotations__["ctx"] = Context[Plain]
    with pytest.raises(
        DefinitionError, match=r"Plain.n: expected 'n: Value\[int\] = value\(...\)', got the plain annotation 'int'"
    ):
        declare(function)


def test_an_annotation_without_a_value() -> None:
    class Forgotten(State):
        n: Value[int]

    def function(ctx: Any, message: int) -> None: ...

    function.__annotations__["ctx"] = Context[Forgotten]
    with pytest.raises(DefinitionError, match=r"Forgotten.n: expected '= value\(...\)' after the annotation"):
        declare(function)


def test_a_field_may_not_begin_with_an_underscore() -> None:
    class Hidden(State):
        _n: Value[int] = value(0)

    app = App("shop")

    def function(ctx: Any, message: int) -> None: ...

    function.__annotations__["ctx"] = Context[Hidden]
    app.function("shop/cart")(function)
    with pytest.raises(DefinitionError, match="underscore"):
        app.compile()


@pytest.mark.parametrize("arguments", [{}, {"default": 1, "default_factory": int}])
def test_value_takes_one_of_two(arguments: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match="expected a default or a default_factory"):
        value(**arguments)


def test_on_end_without_a_function() -> None:
    app = App("shop")
    app.function("shop/cart")(lambda ctx, message: None)
    app.on_end("shop/card")(lambda ctx: None)
    with pytest.raises(DefinitionError, match="on_end of 'shop/card': there is no such function; did you mean 'shop/cart'"):
        app.compile()


def test_on_end_twice() -> None:
    app = App("shop")
    app.on_end("shop/cart")(lambda ctx: None)
    with pytest.raises(DefinitionError, match="on_end of 'shop/cart' is declared twice"):
        app.on_end("shop/cart")(lambda ctx: None)


def test_an_application_without_functions() -> None:
    with pytest.raises(DefinitionError, match="'shop' declares no function"):
        App("shop").compile()


def test_state_exists_only_inside_a_function() -> None:
    assert isinstance(Cart.items, Value)
    by_hand = Cart()
    with pytest.raises(DefinitionError, match="Cart was made by hand"):
        _ = by_hand.items
    with pytest.raises(DefinitionError, match="Cart was made by hand"):
        by_hand.items = 1
    with pytest.raises(AttributeError):
        by_hand.itmes = 1  # type: ignore[attr-defined]


def test_what_the_package_offers() -> None:
    assert all(hasattr(shardfun, name) for name in shardfun.__all__)
