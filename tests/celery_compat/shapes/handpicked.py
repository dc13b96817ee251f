"""Shapes that applications use most, and those that are known to be traps."""

from __future__ import annotations

from typing import Any

from tests.celery_compat.shapes.strategy import Shape, tagged


def t(do: str = "ok", *args: Any, **fields: Any) -> Shape:
    """A task."""
    found: Shape = {"kind": "task", "do": do if "." in do else f"do.{do}"}
    return found | ({"args": list(args)} if args else {}) | fields


def si(do: str = "ok", *args: Any, **fields: Any) -> Shape:
    """An immutable task."""
    return t(do, *args, immutable=True, **fields)


def chain(*of: Shape, **fields: Any) -> Shape:
    return {"kind": "chain", "of": list(of), **fields}


def group(*of: Shape, **fields: Any) -> Shape:
    return {"kind": "group", "of": list(of), **fields}


def chord(of: list[Shape], body: Shape, **fields: Any) -> Shape:
    return {"kind": "chord", "of": of, "body": body, **fields}


def items(kind: str, *values: Any, **fields: Any) -> Shape:
    return {"kind": kind, "items": [["", value] for value in values], **fields}


def chunks(size: int, *values: Any, **fields: Any) -> Shape:
    return items("chunks", *values, size=size, **fields)


OLD, NEW, BOUND = t("err.old"), t("err.new"), t("ok")

#: What applications send (and by how many of those looked at: chains 6, groups 9, chords 3 of 39).
USUAL: dict[str, Shape] = {
    "a task": {"canvas": t("ok", 1, kwargs={"k": 2})},
    "a chain of three": {"canvas": chain(t("ok", 1), t("ok", 2), t("ok", 3))},
    "a pipe of immutable steps": {"canvas": chain(si("ok", 1), si("ok", 2), si("ok"), pipe=True)},
    "a group": {"canvas": group(t("ok", 1), t("ok", 2), t("ok", 3))},
    "a group drawn from a generator": {"canvas": group(t("ok", 1), t("ok", 2), drawn=True)},
    "a chord": {"canvas": chord([t("ok", 1), t("ok", 2)], t("ok"))},
    "a group, then a task": {"canvas": chain(group(t("ok", 1), t("ok", 2)), t("ok"), pipe=True)},
    "a chain around a group": {"canvas": chain(t("ok", 1), group(t("ok"), t("ok")), t("ok"))},
    "a group of chains": {"canvas": group(chain(t("ok", 1), t("ok")), chain(t("ok", 2), t("ok")))},
    "a chord of chains": {
        "canvas": chord([chain(t("ok", 1), t("ok")), chain(t("ok", 2), t("ok"))], t("ok"))
    },
    "a chord with an immutable body": {"canvas": chord([si("ok", 1), si("ok", 2)], si("ok"))},
    "a chain that ends in a group": {"canvas": chain(t("ok", 1), group(t("ok", 2), t("ok", 3)))},
    "a link": {"canvas": t("ok", 1, link=[t("ok", 2)])},
    "an error link on a task": {"canvas": t("fail", link_error=[OLD])},
    "on_error on a chain": {"canvas": chain(t("ok"), t("fail"), t("ok"), link_error=[NEW])},
    "link and link_error of apply_async": {
        "canvas": t("ok", 1),
        "link": [t("ok")],
        "link_error": [OLD],
    },
    "a chain that fails in the middle": {"canvas": chain(t("ok"), t("fail"), t("ok"), t("ok"))},
    "a chain with a retry": {"canvas": chain(t("ok"), t("retry"), t("ok"))},
    "a chord whose header fails": {
        "canvas": chord([t("ok"), t("fail")], t("ok")),
        "link_error": [OLD],
    },
    "a chord that a task sends": {"canvas": chord([t("ok"), t("ok")], t("ok")), "inside": True},
    "a chain that a task sends": {"canvas": chain(t("ok"), t("ok"), t("ok")), "inside": True},
    "a task that sends a task": {"canvas": t("spawn", into=t("ok", 1))},
    "a signature that was stored": {"canvas": chain(t("ok"), t("ok", 2)), "json": True},
    "chunks": {"canvas": chunks(2, 1, 2, 3)},
    "tasks without results": {"canvas": chain(si("quiet"), si("quiet"), si("quiet"))},
}

#: What surprises: in Celery, or in other systems that run canvases.
TRAPS: dict[str, Shape] = {
    "partial arguments come first": {"canvas": t("ok", 1, 2), "args": [10, 11]},
    "partial arguments of a chain": {"canvas": chain(t("ok", 1), t("ok", 2)), "args": [10]},
    "partial arguments of a group": {"canvas": group(t("ok", 1), si("ok", 2)), "args": [10]},
    "partial arguments of a chord": {
        "canvas": chord([t("ok", 1), si("ok", 2)], t("ok", 3)),
        "args": [10],
    },
    "partial arguments of an immutable chain": {
        "canvas": chain(si("ok", 1), t("ok", 2)),
        "args": [10],
        "kwargs": {"k": 1},
    },
    "a chain of one": {"canvas": chain(t("ok", 1))},
    "a group of one": {"canvas": group(t("ok", 1))},
    "a group of one in a pipe": {"canvas": chain(group(t("ok", 1)), t("ok"), pipe=True)},
    "a group of one in a chain": {"canvas": chain(group(t("ok", 1)), t("ok"))},
    "a task and a group of one": {"canvas": chain(t("ok", 1), group(t("ok", 2)), t("ok"))},
    "a chord of one": {"canvas": chord([t("ok", 1)], t("ok"))},
    "an empty group in a chain": {"canvas": chain(t("ok", 1), group(), t("ok", 2))},
    "an empty group": {"canvas": group()},
    "an empty chain": {"canvas": chain()},
    "a chord without a header": {"canvas": chord([], t("ok"))},
    "groups in groups": {"canvas": group(t("ok", 1), group(t("ok", 2), group(t("ok", 3))))},
    "a group after a group": {
        "canvas": chain(group(t("ok", 1), t("ok", 2)), group(t("ok"), t("ok")))
    },
    "groups and tasks in turn": {
        "canvas": chain(group(t("ok"), t("ok")), t("ok"), group(t("ok"), t("ok")), t("ok"))
    },
    "a chord as a body": {"canvas": chord([t("ok"), t("ok")], chord([t("ok"), t("ok")], t("ok")))},
    "a group as a body": {"canvas": chord([t("ok"), t("ok")], group(t("ok"), t("ok")))},
    "a chain as a body": {"canvas": chord([t("ok"), t("ok")], chain(t("ok"), t("ok")))},
    "a chord in a header": {
        "canvas": chord([chord([t("ok"), t("ok")], t("ok")), t("ok")], t("ok"))
    },
    "a chain that ends in a group, in a header": {
        "canvas": chord([chain(t("ok"), group(t("ok"), t("ok"))), t("ok")], t("ok"))
    },
    "a chain that ends in a chord, in a header": {
        "canvas": chord([chain(t("ok"), chord([t("ok"), t("ok")], t("ok"))), t("ok")], t("ok"))
    },
    "four levels": {
        "canvas": chain(
            t("ok"),
            chord(
                [chain(t("ok"), chord([t("ok"), group(t("ok"), t("ok"))], t("ok"))), t("ok")],
                t("ok"),
            ),
            t("ok"),
        )
    },
    "a chain in the header of a chord in a header": {
        "canvas": chord([chord([t("ok"), chain(t("ok"), t("ok"))], t("ok"))], t("ok"))
    },
    "a body group of chords whose header fails": {
        "canvas": chord([t("fail")], group(chord([t("ok")], t("ok")), t("ok")))
    },
    "a chain that fails in a header": {
        "canvas": chord([chain(t("ok"), t("fail"), t("ok")), t("ok")], t("ok"), link_error=[OLD])
    },
    "a chord that fails in a header": {
        "canvas": chord([chord([t("fail"), t("ok")], t("ok")), t("ok")], t("ok"), link_error=[OLD])
    },
    "a body that fails": {"canvas": chord([t("ok"), t("ok")], t("fail")), "link_error": [NEW]},
    "a body chain whose header fails": {
        "canvas": chord([t("fail"), t("ok")], chain(t("ok"), t("ok")), link_error=[NEW])
    },
    "a body group whose header fails": {
        "canvas": chord([t("fail"), t("ok")], group(t("ok"), t("ok")), link_error=[OLD])
    },
    "a chain that goes on after a chord that fails": {
        "canvas": chain(t("ok"), chord([t("fail"), t("ok")], t("ok")), t("ok"), t("ok"))
    },
    "three groups of which the first fails": {
        "canvas": chain(
            group(t("fail"), t("ok")), group(t("ok"), t("ok")), group(t("ok"), t("ok"))
        ),
        "link_error": [OLD],
    },
    "a header with a chain that ends in a group, where a task fails": {
        "canvas": chord(
            [chain(t("ok"), group(t("ok"), t("ok"))), t("fail")], t("ok"), link_error=[NEW]
        )
    },
    "a chord after a step that fails": {
        "canvas": chain(t("fail"), chord([t("ok"), t("ok")], t("ok")), t("ok"))
    },
    "an unkept body whose header fails": {"canvas": chord([t("fail")], t("quiet"))},
    "an unkept step after one that fails": {"canvas": chain(t("fail"), si("quiet"), si("quiet"))},
    "error links of a body chain": {
        "canvas": chord([t("fail")], chain(t("ok"), t("ok"), link_error=[OLD]))
    },
    "an error link of a body chain's first step": {
        "canvas": chord([t("fail")], chain(t("ok", link_error=[OLD]), t("ok")))
    },
    "error links of the last step of a body chain": {
        "canvas": chord([t("fail")], chain(t("ok"), t("ok", link_error=[OLD])))
    },
    "error links in the middle of a body chain, and of the chord": {
        "canvas": chord([t("fail")], chain(t("ok"), t("ok", link_error=[OLD]), t("ok"))),
        "link_error": [NEW],
    },
    "a body chain with a chord in it, whose header fails": {
        "canvas": chord(
            [t("fail")], chain(t("ok"), chord([t("ok")], t("ok")), t("ok")), link_error=[OLD]
        )
    },
    "a body group of chains whose header fails": {
        "canvas": chord(
            [t("fail")],
            group(
                chain(t("ok"), t("ok"), link_error=[OLD]),
                chain(t("ok"), chord([t("ok")], t("ok"))),
                t("ok"),
            ),
            link_error=[NEW],
        )
    },
    "a body group of chords in chords whose header fails": {
        "canvas": chord(
            [t("fail")],
            group(chord([chord([t("ok")], t("ok")), t("ok")], t("ok")), t("ok")),
            link_error=[OLD],
        )
    },
    "a group that fails, then a chord": {
        "canvas": chain(group(t("ok"), t("fail")), chord([t("ok")], t("ok"))),
        "link_error": [NEW],
    },
    "a header of which all fail": {"canvas": chord([t("fail"), t("boom"), t("fail")], t("ok"))},
    "a group that fails": {"canvas": group(t("ok"), t("fail"), link_error=[OLD])},
    "a chain that is ignored in the middle": {"canvas": chain(t("ok"), t("ignore"), t("ok"))},
    "a header member that is ignored": {"canvas": chord([t("ok"), t("ignore")], t("ok"))},
    "a chain that is rejected": {"canvas": chain(t("ok"), t("reject"), t("ok"))},
    "a header member that is rejected": {"canvas": chord([t("ok"), t("reject")], t("ok"))},
    "a header member that retries": {"canvas": chord([t("retry"), t("ok")], t("retry"))},
    "a header member that gives up": {"canvas": chord([t("give_up"), t("ok")], t("ok"))},
    "autoretry, with links": {"canvas": t("auto", link=[t("ok")], link_error=[OLD, NEW])},
    "a result that cannot be said": {"canvas": chain(t("unsayable"), t("ok"), link_error=[NEW])},
    "results that are lists": {
        "canvas": chain(t("pair"), chord([t("pair"), t("pair")], t("pair")))
    },
    "results that are None": {"canvas": chain(t("nothing"), chord([t("nothing")], t("nothing")))},
    "a header without results": {"canvas": chord([t("quiet"), t("ok")], t("ok"))},
    "a body without a result": {"canvas": chord([t("ok"), t("ok")], t("quiet"))},
    "an immutable chain of kept and unkept results": {
        "canvas": chain(t("quiet"), t("ok"), t("quiet"))
    },
    "replaced by a task": {"canvas": chain(t("ok"), t("replace", into=t("ok", 5)), t("ok"))},
    "replaced by a chain": {
        "canvas": chain(t("replace", into=chain(t("ok"), t("ok"))), t("ok"), link=[t("ok")])
    },
    "replaced by a group": {"canvas": chain(t("replace", into=group(t("ok"), t("ok"))), t("ok"))},
    "replaced by a chord": {"canvas": chain(t("replace", into=chord([t("ok")], t("ok"))), t("ok"))},
    "replaced in a header": {
        "canvas": chord([t("replace", into=chain(t("ok"), t("ok"))), t("ok")], t("ok"))
    },
    "replaced in a header by what keeps no result": {
        "canvas": chord([t("replace", into=t("quiet")), t("ok")], t("ok"))
    },
    "replaced twice": {"canvas": chain(t("replace", into=t("replace", into=t("ok", 1))), t("ok"))},
    "replaced by what fails": {
        "canvas": chain(t("replace", into=t("fail")), t("ok"), link_error=[OLD])
    },
    "a body that is replaced": {
        "canvas": chord([t("ok"), t("ok")], t("replace", into=chain(t("ok"), t("ok"))))
    },
    "all kinds of error links": {"canvas": t("fail", 1, link_error=[OLD, NEW, BOUND])},
    "an error link that fails": {"canvas": t("fail", link_error=[t("fail"), OLD])},
    "error links of a chain, first step": {
        "canvas": chain(t("fail"), t("ok"), t("ok"), link_error=[OLD, NEW])
    },
    "several links": {"canvas": t("ok", 1, link=[t("ok", 2), si("ok", 3), t("fail")])},
    "a link that is a group": {"canvas": t("ok", 1, link=[group(t("ok", 2), t("ok", 3)), t("ok")])},
    "a link that is a chain": {"canvas": t("ok", 1, link=[chain(t("ok", 2), t("ok", 3))])},
    "a link that is a chord": {"canvas": t("ok", 1, link=[chord([t("ok"), t("ok")], t("ok"))])},
    "a link on a group": {"canvas": group(t("ok", 1), t("ok", 2), link=[t("ok", 3)])},
    "a link on a chord": {"canvas": chord([t("ok", 1)], t("ok"), link=[t("ok", 3)])},
    "a link on a chain in a chain": {
        "canvas": chain(t("ok"), chain(t("ok"), t("ok"), link=[t("ok")]), t("ok"))
    },
    "a link on a header member": {"canvas": chord([t("ok", link=[t("ok")]), t("ok")], t("ok"))},
    "link of apply_async on a group": {"canvas": group(t("ok")), "link": [t("ok")]},
    "link of apply_async on a chain": {
        "canvas": chain(t("ok"), t("fail")),
        "link": [t("ok")],
        "link_error": [OLD],
    },
    "map": {"canvas": items("map", 1, 2, 3)},
    "starmap in a chain": {"canvas": chain(items("starmap", 1, 2), t("ok"))},
    "a starmap that fails": {
        "canvas": chain(items("starmap", 1, "fail", 2), t("ok"), link_error=[OLD])
    },
    "chunks as a header": {"canvas": chain(chunks(2, 1, 2, 3, group=True), t("ok"))},
    "chunks as a step": {"canvas": chain(t("ok"), chunks(2, 1, 2, 3))},
    "a frozen chord": {"canvas": chord([t("ok"), t("ok")], t("ok")), "frozen": True},
    "a frozen chain around a group": {
        "canvas": chain(t("ok"), group(t("ok"), t("ok")), t("ok")),
        "frozen": True,
        "json": True,
    },
    "ignore_result for all of a chain": {
        "canvas": chain(t("ok"), t("ok")),
        "options": {"ignore_result": True},
    },
    "countdown of a chord": {
        "canvas": chord([t("ok"), t("ok")], t("ok")),
        "options": {"countdown": 0},
    },
    "a canvas that a task sends, with error links": {
        "canvas": chain(t("ok"), group(t("fail"), t("ok")), t("ok"), link_error=[OLD]),
        "inside": True,
    },
    "a spawned chord": {
        "canvas": chain(t("spawn", into=chord([t("ok"), t("ok")], t("ok"))), t("ok"))
    },
}

SHAPES: dict[str, Shape] = {name: tagged(shape) for name, shape in (USUAL | TRAPS).items()}
