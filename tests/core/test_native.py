from __future__ import annotations

import ast
import gc
from pathlib import Path
from time import monotonic
from types import FunctionType, ModuleType

import dnsproxy.core
from dnsproxy.core.engine import Forward
from dnsproxy.core.native import mypyc_attr
from tests.fakes.forwarding import at, respond, world
from tests.fakes.upstream import FakeUpstream, silence, until
from tests.messages import CLIENT, query

CORE = Path(dnsproxy.core.__file__).parent


def acyclic() -> set[str]:
    """Return the names of the classes that the compiler is told of as acyclic."""
    return {
        node.name
        for path in CORE.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        for decorator in node.decorator_list
        if ast.unparse(decorator).startswith("mypyc_attr(acyclic=True")
    }


def reaches_itself(start: object) -> bool:
    """Tell whether one gets from ``start`` to itself by what objects refer to."""
    seen: set[int] = set()
    pending = gc.get_referents(start)
    while pending:
        held = pending.pop()
        if held is start:
            return True
        if id(held) not in seen and not isinstance(held, type | FunctionType | ModuleType):
            seen.add(id(held))
            pending += gc.get_referents(held)
    return False


def test_without_the_compiler_a_class_stays_as_it_is() -> None:
    class Kind:
        pass

    assert mypyc_attr(acyclic=True, free_list_len=1)(Kind) is Kind


async def test_what_is_called_acyclic_is() -> None:
    async with FakeUpstream(silence) as fake, world(at(fake)) as made:
        data = query("www.example.")
        step = made.engine.receive(data, CLIENT, monotonic())
        assert type(step) is Forward
        exchange = step.exchange
        made.forwarder.submit(step, made._respond, None, monotonic())
        made.forwarder.flush()
        attempt = exchange.next_attempt(monotonic())
        await until(lambda: fake.asked)
        fake.send(respond(fake.asked[0]), fake.asked[0].peer)
        await until(lambda: made.responses)
        made.engine.receive(data, CLIENT, monotonic())
        (key,) = made.engine.cache.keys()
        (prepared,) = made.engine.prepared.entries.values()
        found = [step, step.query, attempt, exchange.response, made.engine.cache.peek(key), prepared]
        assert {type(one).__name__ for one in found} == acyclic()
        assert [one for one in found if reaches_itself(one)] == []


def test_a_cycle_would_be_found() -> None:
    cycle: list[object] = []
    cycle.append({"back": (cycle,)})
    assert reaches_itself(cycle)
