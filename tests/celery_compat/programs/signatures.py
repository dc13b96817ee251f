"""Celery's user guide, "Canvas": signatures are data, and `|` follows its own rules."""

from __future__ import annotations

import json

from celery import Celery, chain, chord, chunks, group, maybe_signature, signature, xmap, xstarmap
from celery.canvas import Signature
from observed import attempt, run

app = Celery("signatures", broker="memory://", backend="cache+memory://", set_as_current=True)


@app.task(name="add")
def add(x, y=0):
    return x + y


@app.task(name="total")
def total(numbers):
    return sum(numbers)


a, b, c = add.s(1), add.s(2), add.s(3)


def shape(sig):
    """Types and structure, whatever the class is called in the dictionary."""
    kind = type(sig).__name__
    if hasattr(sig, "tasks") and kind != "_chord" and "chord" not in kind:
        return [kind, [shape(t) for t in sig.tasks]]
    if "chord" in kind:
        return [kind, [shape(t) for t in sig.tasks], shape(sig.body)]
    return [kind, sig.task, list(sig.args), dict(sig.kwargs), sig.immutable]


def case_signature():
    return [
        shape(add.s(1, y=2)),
        shape(add.si(1)),
        shape(add.signature((1,), {"y": 3}, countdown=5)),
        shape(add.subtask((1,))),
        shape(signature("other.task", args=(1,), kwargs={"k": 2})),
        [repr(add.s(1, y=2)), repr(add.si()), repr(signature("other.task", args=(1,)))],
        [add.s(1).name, add.s(1).type.name, add.s(1).options, add.s(1).subtask_type],
    ]


def case_partial():
    return [
        shape(add.s(1).clone((2,))),
        shape(add.s(1, y=1).clone(kwargs={"y": 5})),
        shape(add.si(1).clone((2,), {"y": 9})),
        add.s(1)(2),
        add.s(y=5)(2),
        add.s(1).set(countdown=3, queue="q").options,
        add.s(1).clone(queue="q").options,
        add.s(1).replace(args=(7,)).args,
    ]


def case_algebra():
    g = group(a, b)
    return {
        "task|task": shape(a | b),
        "task|task|task": shape(a | b | c),
        "chain|task": shape(chain(a, b) | c),
        "task|chain": shape(a | chain(b, c)),
        "group|task": shape(g | total.s()),
        "task|group": shape(a | g),
        "task|group|task": shape(a | g | total.s()),
        "group|group": shape(g | g),
        "group(one)|task": shape(group(a) | total.s()),
        "task|group(one)": shape(a | group(b)),
        "chain(group(one),task)": shape(chain(group(a), total.s())),
        "chord|task": shape(chord([a, b], total.s()) | c),
        "chain()": shape(chain(a)),
        "chain(a,b)": shape(chain(a, b)),
        "nested groups": shape(group(a, group(b, c))),
        "isinstance": isinstance(a | b, chain),
    }


def case_data():
    sigs = [
        add.s(1, y=2).set(queue="q"),
        chain(a, b),
        group(a, b),
        chord([a, b], total.s()),
        xmap(add.s(), [1]),
        xstarmap(add.s(), [(1, 2)]),
        chunks(add.s(), [(1, 2), (3, 4)], 1),
    ]
    copies = [signature(json.loads(json.dumps(sig)), app=app) for sig in sigs]
    return [
        [json.loads(json.dumps(sig)) for sig in sigs],
        [type(copy).__name__ for copy in copies],
        [repr(copy) for copy in copies],
        [dict(sig) == dict(copy) for sig, copy in zip(sigs, copies, strict=True)],
    ]


def case_repr():
    return list(
        map(
            repr,
            [
                chain(a, b, c),
                group(a, b),
                chord([a, b], total.s()),
                a | group(b, c) | total.s(),
                add.map([1, 2]),
                add.starmap([(1, 2)]),
                add.chunks([(1, 2)], 1),
            ],
        )
    )


def case_links():
    sig = add.s(1)
    linked = sig.link(add.s(5))
    again = sig.link(add.s(5))
    failed = sig.link_error(total.s())
    return [
        type(linked).__name__,
        linked == again,
        type(failed).__name__,
        sig.on_error(total.s()) is sig,
        len(sig.options["link"]),
        len(sig.options["link_error"]),
        [s.task for s in sig.flatten_links()],
        attempt(lambda: [s.args for s in group(a, b).link(c) or ()]),
    ]


def case_maybe():
    return [
        maybe_signature(None),
        type(maybe_signature(dict(add.s(1)), app=app)).__name__,
        type(Signature.from_dict(dict(chain(a, b)), app=app)).__name__,
    ]


def case_freeze():
    sig = add.s(1)
    result = sig.freeze("an-id")
    steps = chain(a.clone(), b.clone())
    frozen = steps.freeze("last")
    members = group(a.clone(), b.clone())
    frozen_group = members.freeze("group-id")
    return [
        result.id,
        sig.options["task_id"],
        sig.id,
        frozen.id,
        frozen.parent is not None,
        type(frozen_group).__name__,
        frozen_group.id,
        len(frozen_group.results),
        members.id,
    ]


def case_apply():
    return [
        (a | b | c).apply().get(),
        group(a, b).apply().get(),
        chord([a, b], total.s()).apply().get(),
        group([]).apply().get(),
        chain()(),
        a.apply((5,)).get(),
    ]


run(globals())
