"""Runs one batch of messages of one function type: twice, once to be fast and once to be read.

``run_plain`` is the specification. ``compile_runner`` gives what does the same faster: for plain function types generated code, with
the fields written out, since saving, comparing and restoring a slot costs 10 ns instead of 50; for full ones ``run_full``. A property
test shows that both agree, and the simulator runs both. The generated source is kept in ``linecache``, so that a traceback shows it.

What an invocation promises here:

- its effects (sends, emits, state changes) happen together when it returns, or not at all when it raises;
- a state field only ever holds a value of its declared type;
- a changed record is on the dirty list of the epoch, exactly once.
"""

from __future__ import annotations

import linecache
from collections.abc import Callable, Iterator
from itertools import repeat
from typing import TYPE_CHECKING, Any

from shardfun.core.absence import learn_deletion
from shardfun.core.function import CompiledFunction
from shardfun.model.columns import Batch
from shardfun.model.payload import END, Encoded

if TYPE_CHECKING:
    from shardfun.core.dispatch import Dispatcher
    from shardfun.core.function_type import FunctionType

Runner = Callable[["FunctionType", Batch, "Dispatcher"], None]


def senders_of(batch: Batch) -> Iterator[Any] | Any:
    """The senders to iterate over; without any, ``None`` again and again."""
    return repeat(None) if batch.senders is None else batch.senders


def run_plain(target: FunctionType, batch: Batch, dispatcher: Dispatcher) -> None:
    """Run a batch, one message after the other, as the specification says."""
    dispatcher.progress = ids = iter(batch.ids)
    for id, sender, value in zip(ids, senders_of(batch), batch.values, strict=False):
        record = target.records.young.get(id)
        if record is None:
            record = dispatcher.load(target, id, sender, batch.sender_type, value)
        if record is None:
            continue
        attempt(target, record, sender, batch.sender_type, value, dispatcher)


def attempt(
    target: FunctionType, record: Any, sender: Any, sender_type: str | None, value: Any, dispatcher: Dispatcher
) -> None:
    """The first attempt at one message, and what follows if it fails."""
    try:
        invoke(target, record, sender, sender_type, value, dispatcher)
    except BaseException as error:  # noqa: BLE001 - user code may raise SystemExit too; it must not take the shard down
        dispatcher.failed(target, record, sender, sender_type, value, error)


def invoke(target: FunctionType, record: Any, sender: Any, sender_type: str | None, value: Any, dispatcher: Dispatcher) -> None:
    """One attempt at one message. When it raises, record and effects are as before.

    Raises:
        BaseException: what the function raised, or ``PayloadTypeError`` for a field with a wrong value.
    """
    table, context, function = dispatcher.table, dispatcher.context, target.function
    context._sender = sender  # noqa: SLF001
    context._sender_type = sender_type  # noqa: SLF001
    context._address = record._address  # noqa: SLF001
    if target.copies is not None:
        _invoke_full(target, record, value, dispatcher)
        return
    if record._epoch is not table.epoch:  # noqa: SLF001
        table.touch(record)
    before = function.values_of(record)
    mark = len(dispatcher.effects)
    deleted = False
    context.state = record
    try:
        call(function, context, value)
        for field in function.spec.fields:
            if not field.immutable:
                setattr(record, "_encoded_" + field.name, field.encode(getattr(record, field.name)))
            else:
                field.check(getattr(record, field.name))
    except BaseException:
        deleted = learn_deletion(function, record)
        function.restore(record, before)
        del dispatcher.effects[mark:]
        if not deleted:
            raise
    if deleted:  # no attempt of its own: the function has not failed
        invoke(target, record, sender, sender_type, value, dispatcher)
        return
    after = function.values_of(record)
    if any(
        new is not old and (field.immutable or new != old)
        for field, new, old in zip(function.spec.fields, after, before, strict=True)
    ):
        table.mark_dirty(record)


def call(function: CompiledFunction, context: Any, value: Any) -> Any:
    """Call the function's code for one message."""
    if value is END:
        return function.spec.on_end(context)  # type: ignore[misc]  # END is only sent to types that declare it
    return function.spec.handler(context, value.type.decode(value.data) if type(value) is Encoded else value)


def _invoke_full(target: FunctionType, record: Any, value: Any, dispatcher: Dispatcher) -> None:
    """The same on a working copy: until it is written back there is nothing to undo but effects. ``run_full`` is the fast one."""
    assert target.copies is not None
    mark = len(dispatcher.effects)
    try:
        dispatcher.context.state = copy = target.copies.begin(record, dispatcher.table.cells, dispatcher.now_ms)
        call(target.function, dispatcher.context, value)
        target.copies.commit(copy, dispatcher.table)
    except BaseException:
        del dispatcher.effects[mark:]
        raise


def run_full(target: FunctionType, batch: Batch, dispatcher: Dispatcher) -> None:
    """What ``run_plain`` does for types with working copies (see ``_invoke_full``), without the calls in between: they cost as much as a
    small function.
    """
    assert target.copies is not None
    begin, commit = target.copies.begin, target.copies.commit
    handler, context, effects, table = target.function.spec.handler, dispatcher.context, dispatcher.effects, dispatcher.table
    young, cells, now_ms, sender_type = target.records.young, table.cells, dispatcher.now_ms, batch.sender_type
    dispatcher.progress = ids = iter(batch.ids)
    for id, sender, value in zip(ids, senders_of(batch), batch.values, strict=False):
        record = young.get(id)
        if record is None:
            record = dispatcher.load(target, id, sender, sender_type, value)
            if record is None:
                continue
        context._sender = sender  # noqa: SLF001
        context._sender_type = sender_type  # noqa: SLF001
        context._address = record._address  # noqa: SLF001
        mark = len(effects)
        try:
            context.state = copy = begin(record, cells, now_ms)
            if value is END or type(value) is Encoded:
                call(target.function, context, value)
            else:
                handler(context, value)
            commit(copy, table)
        except BaseException as error:  # noqa: BLE001 - as in ``attempt``
            del effects[mark:]
            dispatcher.failed(target, record, sender, sender_type, value, error)


_HEAD = """\
def run(target, batch, dispatcher):
    records = target.records.young
    load = dispatcher.load
    touch = dispatcher.table.touch
    epoch = dispatcher.table.epoch
    dirty = dispatcher.table.dirty
    effects = dispatcher.effects
    context = dispatcher.context
    sender_type = context._sender_type = batch.sender_type
    dispatcher.progress = ids = iter(batch.ids)
    for id, sender, value in zip(ids, senders_of(batch), batch.values):
        try:
            record = records[id]
        except KeyError:
            record = load(target, id, sender, sender_type, value)
            if record is None:
                continue
        if record._epoch is not epoch:
            touch(record)
        mark = len(effects)
        context.state = record
        context._sender = sender
        context._address = record._address
{save}        try:
            {call}
{check}        except BaseException as error:
            deleted = learn_deletion(function, record)
{restore}            del effects[mark:]
            if deleted:
                attempt(target, record, sender, sender_type, value, dispatcher)
            else:
                dispatcher.failed(target, record, sender, sender_type, value, error)
            context._sender_type = sender_type
"""

_CHECK_IMMUTABLE = """\
            if record.{name} is not old_{name}:
                if type(record.{name}) {test}:
                    raise mismatch_{name}(record.{name})
{text}                changed = True
"""

_CHECK_TEXT = """\
                if type(record.{name}) is str and not record.{name}.isascii():
                    record.{name}.encode()
"""  # a lone surrogate could never be stored; ``isascii`` looks at a flag

_CHECK_MUTABLE = """\
            new = encode_{name}(record.{name})
            if new != old_{name}:
                record._encoded_{name} = new
                changed = True
"""


_MARK = """\
            if changed and record._dirty is not epoch:
                record._dirty = epoch
                dirty.append(record)
"""  # behind all checks: a field that is wrong undoes the change of the others


def compile_runner(function: CompiledFunction) -> Runner:
    """Generate the fast runner of one function type. Equivalent to ``run_plain``."""
    if function.full:
        return run_full
    spec = function.spec
    namespace: dict[str, Any] = {"senders_of": senders_of, "END": END, "Encoded": Encoded, "handler": spec.handler}
    namespace |= {"attempt": attempt, "learn_deletion": learn_deletion, "function": function}
    save = check = ""
    for field in spec.fields:
        name = field.name
        if not field.immutable:
            namespace["encode_" + name] = field.encode
            save += f"        old_{name} = record._encoded_{name}\n"
            check += _CHECK_MUTABLE.format(name=name)
            continue
        classes = field.classes
        namespace["mismatch_" + name] = field.mismatch
        if len(classes) == 1:
            (namespace["class_" + name],) = classes
            test = f"is not class_{name}"
        else:
            namespace["classes_" + name] = classes
            test = f"not in classes_{name}"
        save += f"        old_{name} = record.{name}\n"
        text = _CHECK_TEXT.format(name=name) if str in classes else ""
        check += _CHECK_IMMUTABLE.format(name=name, test=test, text=text)
    if spec.fields:
        check = f"            changed = False\n{check}{_MARK}"
    restore = "".join(f"            record.{f.name} = old_{f.name}\n" for f in spec.fields if f.immutable)
    if function.mutable_fields:
        namespace["restore_mutable"] = function.restore_mutable
        old = "".join(f"old_{field.name}, " for field in function.mutable_fields)
        restore += f"            restore_mutable(record, ({old}))\n"
    argument = "value"
    if any(not item.immutable for item in function.payloads.by_class.values()):
        argument = "value.type.decode(value.data) if type(value) is Encoded else value"
    call = f"handler(context, {argument})"
    if spec.on_end is not None:
        namespace["on_end"] = spec.on_end
        call = f"on_end(context) if value is END else {call}"
    source = _HEAD.format(save=save, call=call, check=check, restore=restore)
    file_name = f"<runner of {spec.typename}>"
    linecache.cache[file_name] = (len(source), None, source.splitlines(keepends=True), file_name)
    exec(compile(source, file_name, "exec"), namespace)  # noqa: S102
    return namespace["run"]  # type: ignore[no-any-return]
