"""A program that builds canvases and prints what they are, as JSON; its argument is the library.

It runs in a process of its own, once with ``celery`` and once with ``pgcelery.compat``.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
import warnings
from typing import Any

library = sys.argv[1]
if library != "celery":
    sys.path[:0] = sys.argv[2:]
Celery = importlib.import_module(f"{library}.app.base").Celery
canvas = importlib.import_module(f"{library}.canvas")
result = importlib.import_module(f"{library}.result")
chain, chord, chunks, group = canvas.chain, canvas.chord, canvas.chunks, canvas.group
Signature, signature, maybe_signature = canvas.Signature, canvas.signature, canvas.maybe_signature
_chain = canvas._chain

warnings.simplefilter("ignore")
app = Celery("shapes", set_as_current=True)
app.conf.update(broker_url="memory://", result_backend="cache+memory://")
SENT: list[Any] = []
OWN = (
    "producer", "chord_parents", "chord_immutable", "chord_member", "chord_after", "chord_end",
    "chord_errbacks", "chain_link"
)  # fmt: skip


class Recorder(app.Task):  # type: ignore[misc, name-defined]
    """Notes calls instead of sending them."""

    abstract = True

    def apply_async(self, args=None, kwargs=None, **options):
        waits = "chord_parents" in options
        for key in OWN:
            options.pop(key, None)
        if not waits:
            SENT.append([self.name, args, kwargs, options])
        return app.AsyncResult(options.get("task_id") or "no-id")


@app.task(name="t.add", base=Recorder)
def add(x, y=0):
    return x + y


@app.task(name="t.tsum", base=Recorder)
def tsum(numbers):
    return sum(numbers)


@app.task(name="u.mul", base=Recorder)
def mul(x, y=1):
    return x * y


@app.task(name="t.err", base=Recorder)
def err(task_id):
    return task_id


class Visitor(canvas.StampingVisitor):
    def on_signature(self, sig, **headers):
        return {"sig": sig.task}

    def on_group_start(self, sig, **headers):
        return {"grp": 1, "other": 2, "stamped_headers": ["grp"]}

    def on_chain_start(self, sig, **headers):
        return {"chn": 1}

    def on_chord_body(self, sig, **headers):
        return {"body": "b"}

    def on_callback(self, sig, **headers):
        return {"link": True}

    def on_errback(self, sig, **headers):
        return {"error": True}


def a(*args: Any) -> Any:
    return add.s(*args)


def g(n: int = 2, start: int = 1) -> Any:
    return group(add.s(i) for i in range(start, start + n))


def gl(n: int = 2, start: int = 1) -> Any:
    return group([add.s(i) for i in range(start, start + n)])


def linked(sig: Any) -> Any:
    sig.link(mul.s(9))
    sig.link_error(err.s())
    return sig


def frozen(sig: Any) -> Any:
    res = sig.freeze()
    return {"sig": sig, "result": res.as_tuple() if res is not None else None}


def sent(sig: Any, *args: Any, **options: Any) -> Any:
    """What is sent before anything runs in Celery; here what comes after that waits already."""
    SENT.clear()
    res = sig.apply_async(args, **options)
    return {"sent": list(SENT), "result": None if res is None else res.as_tuple()}


def header_sent(sig: Any, *args: Any, **options: Any) -> Any:
    """Only what is sent before anything runs in Celery, too."""
    out = sent(sig, *args, **options)
    out["sent"] = [
        [name, args, kwargs, {k: v for k, v in options.items() if k != "ignore_result"}]
        for name, args, kwargs, options in out["sent"]
        if "chord" in options
    ]
    return out


def stamped(sig: Any, *args: Any, **kwargs: Any) -> Any:
    sig.stamp(*args, **kwargs)
    return sig


def cloned_is_independent() -> Any:
    one = add.s(1, y={"k": 1}).set(queue="q", headers={"h": [1]})
    two = one.clone((0,), {"z": 3}, priority=3)
    two.options["headers"]["h"].append(2)
    two.kwargs["w"] = 1
    return [one, two]


def raises(call: Any) -> Any:
    try:
        return call()
    except Exception as exc:
        return [type(exc).__name__, str(exc)]


SHAPES: dict[str, Any] = {
    # signatures
    "s": lambda: a(1, 2),
    "si": lambda: add.si(1, 2),
    "kwargs": lambda: add.s(1, y=2),
    "subtask": lambda: add.subtask((1,), {"y": 2}, countdown=3),
    "by name": lambda: signature("not.here", args=(1,), kwargs={"k": 1}, options={"queue": "q"}),
    "by dict": lambda: signature(dict(a(1))),
    "ex options": lambda: Signature("x", queue="q", options={"queue": "p", "a": 1}),
    "set": lambda: a(1).set(countdown=1, immutable=True),
    "clone": cloned_is_independent,
    "clone immutable": lambda: add.si(1).clone((2,), {"y": 3}, queue="q"),
    "clone keeps group": lambda: a(1).set(group_id="g").clone(group_id="h", task_id="t"),
    "replace": lambda: a(1).set(queue="q").replace(args=(9,), kwargs={"k": 1}, options={}),
    "link": lambda: linked(a(1)),
    "link twice": lambda: linked(linked(a(1))),
    "link given scalar": lambda: linked(a(1).set(link=mul.s(1))),
    "on_error": lambda: a(1).on_error(err.s()),
    "flatten_links": lambda: linked(a(1)).flatten_links(),
    "reprcall": lambda: a(1).reprcall(7, y=2),
    "freeze": lambda: frozen(a(1)),
    "freeze with": lambda: [
        (s := a(1))
        .freeze("id", group_id="g", chord=tsum.s(), root_id="r", parent_id="p", group_index=3)
        .id,
        s,
    ],
    "extend list option": lambda: [(s := a(1)).extend_list_option("link", [mul.s(1), mul.s(1)]), s],
    "maybe_signature": lambda: [maybe_signature(None), maybe_signature(dict(a(1)), app)],
    "json round trip": lambda: signature(json.loads(json.dumps(a(1, 2) | gl() | tsum.s()))),
    # chains
    "t|t": lambda: a(1, 2) | a(3),
    "t|t|t": lambda: a(1, 2) | a(3) | mul.s(4),
    "chain()": lambda: chain(),
    "chain(t)": lambda: chain(a(1)),
    "chain(t,t)": lambda: chain(a(1), a(2)),
    "chain(list)": lambda: chain([a(1), a(2), a(3)]),
    "chain(generator)": lambda: chain(a(i) for i in range(3)),
    "chain(generator of one)": lambda: chain(a(i) for i in range(1)),
    "chain options": lambda: chain(a(1), a(2), queue="q"),
    "chain of dicts": lambda: _chain([dict(a(1)), dict(a(2))]),
    "chain of chains": lambda: chain(chain(a(1), a(2)), chain(a(3), a(4))),
    "t|chain": lambda: a(1) | chain(a(2), a(3)),
    "t|chain of one": lambda: a(1) | _chain(a(2)),
    "chain|chain": lambda: chain(a(1), a(2)) | chain(a(3), a(4)),
    "chain linked": lambda: linked(chain(a(1), a(2))),
    "linked chain | t": lambda: linked(chain(a(1), a(2))) | a(3),
    "linked chain | group": lambda: linked(chain(a(1), a(2))) | gl(),
    "t|linked chain": lambda: a(1) | linked(chain(a(2), a(3))),
    "chain(linked chain, t)": lambda: chain(linked(chain(a(1), a(2))), a(3)),
    "ior": lambda: _ior(),
    "chain freeze": lambda: frozen(chain(a(1), a(2), a(3))),
    "chain clone": lambda: chain(a(1), a(2)).clone((9,)),
    "chain | int": lambda: raises(lambda: chain(a(1), a(2)) | 3),
    "t | int": lambda: raises(lambda: a(1) | 3),
    # groups
    "group": lambda: group(a(1), a(2)),
    "group of generator": lambda: len(g(3).tasks),
    "group of one": lambda: group(a(1)),
    "group of list": lambda: gl(3),
    "group of group": lambda: group(group(a(1), a(2))),
    "group nested": lambda: group(a(1), group(a(2), a(3)), a(4)),
    "group empty": lambda: group([]),
    "group options": lambda: group(a(1), a(2), queue="q"),
    "group of dicts": lambda: group.from_dict(json.loads(json.dumps(gl()))),
    "group link": lambda: linked(gl()),
    "group link returns": lambda: [gl().link(mul.s(1)), gl().link_error(err.s())],
    "group freeze": lambda: frozen(gl(3)),
    "group nested freeze": lambda: frozen(group([a(1), gl(2, 10), a(4), gl(2, 20)])),
    "group with chains freeze": lambda: frozen(group([a(1) | a(2), a(3) | gl(), _chain()])),
    "group immutable": lambda: [(x := gl()).set_immutable(True), x],
    "group skew": lambda: gl(3).skew(start=1, stop=10),
    "group iter": lambda: [len(gl(3)), list(gl(2).tasks)],
    # upgrades
    "g|t": lambda: gl() | tsum.s(),
    "g|t|t": lambda: gl() | tsum.s() | a(3),
    "g|g": lambda: gl() | gl(2, 5),
    "g|g|t": lambda: gl() | gl(2, 5) | tsum.s(),
    "g|g|g": lambda: gl() | gl(2, 5) | gl(2, 9),
    "t|g": lambda: a(1) | gl(),
    "t|g|t": lambda: a(1) | gl() | tsum.s(),
    "t|g|t|t": lambda: a(1) | gl() | tsum.s() | a(1),
    "t|g|t|g": lambda: a(1) | gl() | tsum.s() | gl(),
    "t|g|t|g|t": lambda: a(1) | gl() | tsum.s() | gl() | tsum.s(),
    "t|g|g": lambda: a(1) | gl() | gl(2, 5),
    "t|g|g|t": lambda: a(1) | gl() | gl(2, 5) | tsum.s(),
    "t|group of one": lambda: a(1) | group(a(2)),
    "group of one|t": lambda: group(a(2)) | a(1),
    "chain(group of one, t)": lambda: chain(group([a(2)]), a(1)),
    "chain(g,t)": lambda: chain(gl(), tsum.s()),
    "chain(g,t,t)": lambda: chain(gl(), tsum.s(), a(1)),
    "chain(g,g,t)": lambda: chain(gl(), gl(2, 5), tsum.s()),
    "chain(g)": lambda: chain(gl()),
    "chain([g])": lambda: chain([gl()]),
    "chain(t,g,t,g,t)": lambda: chain(a(1), gl(), tsum.s(), gl(), tsum.s()),
    "chain with empty groups": lambda: chain(group([]), a(1), group([]), a(2), group([])),
    "t|empty group": lambda: a(1) | group([]),
    "g|empty group": lambda: gl() | group([]),
    "chain(empty group)": lambda: chain([group([])]),
    "chain|group of one": lambda: chain(a(1), a(2)) | group([a(3)]),
    "g|chain": lambda: gl() | chain(tsum.s(), a(2)),
    "t|chord": lambda: a(1) | chord(gl(), tsum.s()),
    "chord|t": lambda: chord(gl(), tsum.s()) | a(1),
    "chord|t|t": lambda: chord(gl(), tsum.s()) | a(1) | a(2),
    "chord|g": lambda: chord(gl(), tsum.s()) | gl(),
    "chord|group of one": lambda: chord(gl(), tsum.s()) | group([a(1)]),
    "chord|chord": lambda: chord(gl(), tsum.s()) | chord(gl(), tsum.s()),
    "chord|chain": lambda: chord(gl(), tsum.s()) | chain(a(1), a(2)),
    "chain(chord,chord)": lambda: chain(chord(gl(), tsum.s()), chord(gl(), tsum.s())),
    "chain(chord,t,chord)": lambda: chain(chord(gl(), tsum.s()), a(1), chord(gl(), tsum.s())),
    "t|chord|t": lambda: a(1) | chord(gl(), tsum.s()) | a(2),
    "t|chord|g": lambda: a(1) | chord(gl(), tsum.s()) | gl(),
    "t|chord|chain": lambda: a(1) | chord(gl(), tsum.s()) | chain(a(2), gl()),
    # chords
    "chord": lambda: chord([a(1), a(2)], tsum.s()),
    "chord of group": lambda: chord(gl(), tsum.s()),
    "chord of chain": lambda: chord(chain(a(1), a(2)), tsum.s()),
    "chord of task": lambda: chord(a(1), tsum.s()),
    "chord of generator": lambda: list(chord((a(i) for i in range(2)), tsum.s()).tasks),
    "chord of dicts": lambda: chord([dict(a(1))], dict(tsum.s())),
    "chord without body": lambda: chord([a(1)]),
    "chord options": lambda: chord([a(1)], tsum.s(), task_id="x", queue="q"),
    "chord from_dict": lambda: signature(json.loads(json.dumps(chord(gl(), tsum.s())))),
    "chord nested dict": lambda: signature(
        json.loads(json.dumps(chord([chord([a(1)], tsum.s()), a(1) | gl()], tsum.s() | gl())))
    ),
    "chord link": lambda: linked(chord(gl(), tsum.s())),
    "chord nested link": lambda: linked(chord([chord([a(1)], tsum.s()), a(1)], tsum.s() | a(2))),
    "chord group body link": lambda: linked(chord([a(1)], gl())),
    "chord immutable": lambda: [(x := chord([a(1), a(2)], tsum.s())).set_immutable(True), x],
    "chord clone": lambda: chord([a(1)], tsum.s()).clone((5,), queue="q"),
    "chord freeze": lambda: frozen(chord(gl(), tsum.s())),
    "chord freeze chain body": lambda: frozen(chord(gl(), tsum.s() | a(2) | a(3))),
    "chord freeze group body": lambda: frozen(chord(gl(), gl(2, 7))),
    "chord freeze nested": lambda: frozen(chord([chord(gl(), tsum.s()), a(1) | gl()], tsum.s())),
    "chord in chain freeze": lambda: frozen(chain(a(1), gl(), tsum.s(), gl(), tsum.s(), a(2))),
    "chord length": lambda: [
        chord([a(1), gl(3), a(1) | gl(2), chord(gl(), gl(4)), _chain()], tsum.s()).__length_hint__()
    ],
    # maps
    "map": lambda: add.map([1, 2, 3]),
    "starmap": lambda: add.starmap([(1, 2), (3, 4)]),
    "chunks": lambda: add.chunks([(i, i) for i in range(5)], 2),
    "chunks group": lambda: list(add.chunks([(i, i) for i in range(5)], 2).group().tasks),
    "map dict": lambda: signature(json.loads(json.dumps(add.map([1, 2])))),
    "map | t": lambda: add.map([1, 2]) | tsum.s(),
    # stamps
    "stamp": lambda: stamped(a(1), header="v"),
    "stamp twice": lambda: stamped(stamped(a(1), x=1), x=2, y=[1]),
    "stamp append": lambda: stamped(stamped(a(1), x=1), append_stamps=True, x=2),
    "stamp visitor": lambda: stamped(linked(a(1)), Visitor()),
    "stamp chain": lambda: stamped(linked(chain(a(1), a(2))), Visitor(), k="v"),
    "stamp group": lambda: stamped(gl(), Visitor()),
    "stamp chord": lambda: stamped(linked(chord(gl(), tsum.s())), Visitor()),
    "stamp deep": lambda: stamped(a(1) | gl() | tsum.s() | a(2), Visitor(), k="v"),
    "stamp clone": lambda: stamped(a(1), x=1).clone(x=5, stamped_headers=["z"]),
    "stamp tuple group": lambda: stamped(group(a(1), dict(a(2))), Visitor()),
    "stamp generator": lambda: list(stamped(g(), Visitor()).tasks),
    "stamp nested chord": lambda: stamped(chord([chord([a(1)], tsum.s())], gl()), Visitor()),
    "stamp append visitor": lambda: stamped(
        stamped(a(1), mark="x"), Visitor(), append_stamps=True, mark="z"
    ),
    "stamp dict link": lambda: stamped(a(1).set(link=[dict(mul.s(1))]), Visitor(), k=[1]),
    "stamped then merged": lambda: sent(stamped(a(1), x=1), x=9, y=3),
    # sent
    "send t": lambda: sent(a(1), 5, queue="q", priority=None),
    "send immutable": lambda: sent(add.si(1), 5, queue="q"),
    "send chain": lambda: sent(chain(a(1), a(2), a(3)), 7, queue="q", link=mul.s(1)),
    "send chain task_id": lambda: sent(chain(a(1), a(2)), task_id="last"),
    "send chain link_error": lambda: sent(chain(a(1), a(2)), link_error=err.s()),
    "send chain with options": lambda: sent(linked(chain(a(1), a(2))).set(queue="q")),
    "send chain with group": lambda: sent(a(1) | gl() | tsum.s() | gl() | tsum.s() | a(5)),
    "send chain ending in group": lambda: sent(a(1) | a(2) | gl()),
    "send chain of one": lambda: sent(_chain(a(1)), 5),
    "send empty chain": lambda: sent(_chain()),
    "send frozen chain": lambda: sent(_frozen(chain(a(1), a(2)))),
    "send chain empty head": lambda: sent(_chain(group([]), _chain(), a(1), a(2)), 5),
    "send group": lambda: sent(gl(3), 5, queue="q"),
    "send group nested": lambda: sent(group([a(1), gl(2, 10), a(4)]), 5),
    "send group of chains": lambda: sent(group([a(1) | a(2), a(3)]), 5),
    "send group of one chain": lambda: sent(group([a(1) | gl()])),
    "send group task_id": lambda: sent(gl(), task_id="gid"),
    "send empty group": lambda: sent(group([])),
    "send group link": lambda: raises(lambda: sent(gl(), link=a(1))),
    "send group link_error": lambda: raises(lambda: sent(gl(), link_error=a(1))),
    "send chord": lambda: header_sent(chord([a(1), a(2)], tsum.s()), 5, queue="q"),
    "send chord eta": lambda: header_sent(chord([a(1)], tsum.s()), countdown=10),
    "send chord set eta": lambda: header_sent(chord([a(1)], tsum.s()).set(countdown=10)),
    "send chord links": lambda: header_sent(
        chord([a(1)], tsum.s()), link=mul.s(1), link_error=err.s()
    ),
    "send chord group body links": lambda: header_sent(
        chord([a(1)], gl()), link=mul.s(1), link_error=err.s()
    ),
    "send chord chain body": lambda: header_sent(
        chord(gl(), tsum.s() | a(1) | gl() | tsum.s() | a(2))
    ),
    "send chord task_id": lambda: header_sent(chord([a(1)], tsum.s()), task_id="body-id"),
    "send chord other body": lambda: _other_body(),
    "send chord nested groups": lambda: header_sent(chord([a(1), gl(2, 10), a(4)], tsum.s())),
    "send g|t|t": lambda: header_sent(gl() | tsum.s() | a(3)),
    "send chunks": lambda: len(add.chunks([(i, i) for i in range(5)], 2).group().tasks),
}


def _ior() -> Any:
    sig = a(1)
    sig |= a(2)
    sig |= gl()
    return sig


def _frozen(sig: Any) -> Any:
    sig.freeze()
    return sig


def _other_body() -> Any:
    SENT.clear()
    res = chord([a(1)])(tsum.s(), queue="q")
    SENT[0][3].pop("ignore_result", None)
    return {"sent": SENT[:1], "result": res.as_tuple()}


UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")


def plain(value: Any) -> Any:
    if isinstance(value, Signature):
        named = {k: plain(v) for k, v in sorted(dict(value).items())}
        options = named["options"]
        if isinstance(options, dict) and "stamped_headers" in options:
            options["stamped_headers"] = sorted(options["stamped_headers"])
        return {"class": type(value).__name__, "repr": repr(value), **named}
    if isinstance(value, dict):
        named = {str(k): plain(v) for k, v in sorted(value.items())}
        if isinstance(named.get("stamped_headers"), list):
            named["stamped_headers"] = sorted(named["stamped_headers"])
        return named
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def named_ids(text: str) -> str:
    names: dict[str, str] = {app.thread_oid: "THREAD"}
    return UUID.sub(lambda m: names.setdefault(m[0], f"id{len(names)}"), text)


def main() -> None:
    out = {}
    for name, build in SHAPES.items():
        try:
            text = json.dumps(plain(build()), sort_keys=True, default=repr)
        except Exception as exc:
            text = json.dumps(f"{type(exc).__name__}: {exc}")
        text = re.sub(r"@0x[0-9a-f]+", "@0x", text)
        out[name] = json.loads(named_ids(text))
    json.dump(out, sys.stdout)


if __name__ == "__main__":
    main()
