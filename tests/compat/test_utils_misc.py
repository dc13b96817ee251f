from __future__ import annotations

import functools
import inspect
import io
import logging
import os
import pickle
import sys
import threading
import time
from collections import defaultdict
from decimal import Decimal
from fractions import Fraction

import pytest
from kombu.exceptions import EncodeError
from kombu.utils import json

from pgcelery.compat.utils import (
    abstract,
    collections,
    deprecated,
    functional,
    gen_unique_id,
    graph,
    imports,
    log,
    nodenames,
    objects,
    saferepr,
    sysinfo,
    term,
    text,
    threads,
    uuid,
)


def celery(module):
    """Give the real Celery's module, to compare with."""
    return pytest.importorskip(f"celery.utils.{module}")


# -- ids


def test_ids_are_unique_and_grow_with_time():
    first = uuid()
    later = time.time_ns() // 10**6 + 1
    while time.time_ns() // 10**6 < later:
        pass
    assert first < uuid()
    assert len({gen_unique_id() for _ in range(1000)}) == 1000
    assert (len(first), first[14], first[19] in "89ab") == (36, "7", True)


# -- functional


def test_first_gives_what_is_wanted_and_calls_promises_only_until_then():
    assert functional.first(None, [None, 0, 1]) == 0
    assert functional.first(lambda item: item > 1, [1, 2, 3]) == 2
    assert functional.first(None, []) is None


def test_firstmethod_asks_one_after_the_other():
    class Silent:
        def speak(self, word):
            return None

    class Echo:
        def speak(self, word):
            return word * 2

    ask = functional.firstmethod("speak")
    assert ask([object(), Silent(), functional.mlazy(Echo)], "a") == "aa"


def test_a_lazy_value_is_made_once():
    made = []
    value = functional.mlazy(lambda: made.append(1) or len(made))
    assert (value(), value(), made) == (1, 1, [1])


def test_sequences_are_cut_padded_and_made_unique():
    assert list(functional.chunks(iter(range(7)), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert functional.padlist(["a"], 3, "-") == ["a", "-", "-"]
    assert list(functional.uniq([1, 2, 1, 3])) == [1, 2, 3]
    assert list(functional.lookahead([1, 2])) == [(1, 2), (2, None)]
    assert functional.seq_concat_seq((1, 2), [3]) == (1, 2, 3)
    assert functional.seq_concat_item((1,), 2) == (1, 2)
    assert functional.mattrgetter("real", "no")(1) == {"real": 1, "no": None}


def test_an_iterator_can_be_gone_through_twice_and_is_not_drawn_too_early():
    drawn = []

    def source():
        for item in range(4):
            drawn.append(item)
            yield item

    items = functional.regen(source())
    assert drawn == []
    assert items[0] == 0
    assert max(drawn) <= 1
    assert repr(items).endswith("...]>")
    assert list(items) == list(items) == [0, 1, 2, 3]
    assert (len(items), items[-1], items[1:3], bool(items)) == (4, 3, [1, 2], True)
    assert json.loads(json.dumps(items)) == [0, 1, 2, 3]
    assert pickle.loads(pickle.dumps(items)) == [0, 1, 2, 3]
    plain = [1]
    assert functional.regen(plain) is plain
    assert not functional.regen(iter(()))


def test_the_last_item_of_a_regen_is_known_to_be_the_last():
    items = functional.regen(iter("ab"))
    for item in items:
        last = item == "b"
        assert items._done is last


@pytest.mark.parametrize(
    "fun",
    [
        lambda a, b: 0,
        lambda a, b=2, *args, c, d=4, **kwargs: 0,
        lambda *, a: 0,
        lambda a, /, b: 0,
        lambda: 0,
        functools.wraps(len)(lambda *args: 0),
    ],
)
def test_a_head_takes_what_its_function_takes(fun):
    head = functional.head_from_fun(fun)
    for args in ((), (1,), (1, 2), (1, 2, 3)):
        for kwargs in ({}, {"a": 1}, {"b": 2}, {"c": 3}, {"a": 1, "b": 2}):
            assert error_of(head, args, kwargs) == error_of(fun, args, kwargs)


def error_of(fun, args, kwargs):
    try:
        fun(*args, **kwargs)
    except TypeError as exc:
        return str(exc).partition("()")[2]
    return None


def test_a_head_leaves_out_what_its_caller_fills_in():
    def bound(self, x):
        pass

    class Called:
        def __call__(self, x):
            pass

    functional.head_from_fun(bound, bound=True)(1)
    functional.head_from_fun(Called())(1)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        functional.head_from_fun(Called())()


def test_a_head_does_not_evaluate_annotations_or_defaults():
    def fun(x: NoSuchName = os, y: OtherName = None):  # noqa: F821
        pass

    functional.head_from_fun(fun)(1)


def test_what_a_function_takes_is_told():
    def fun(a, b, **kwargs):
        pass

    assert functional.fun_accepts_kwargs(fun)
    assert not functional.fun_accepts_kwargs(lambda a: a)
    assert functional.arity_greater(fun, 1)
    assert not functional.arity_greater(fun, 2)
    assert functional.fun_takes_argument("a", lambda a: a)
    assert not functional.fun_takes_argument("b", lambda a: a)


# -- modules and symbols


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("celery.app.routes:Router", "pgcelery.compat.app.routes"),
        ("celery.app.routes.Router", "pgcelery.compat.app.routes"),
        ("collections:OrderedDict", "collections"),
    ],
)
def test_names_of_celery_mean_ours_with_or_without_the_alias(name, module):
    assert imports.symbol_by_name(name).__module__ == module


def test_a_symbol_may_have_an_alias_or_be_itself():
    assert imports.symbol_by_name("od", {"od": "collections:OrderedDict"}).__name__ == "OrderedDict"
    assert imports.symbol_by_name(len) is len
    assert imports.instantiate("builtins:dict", a=1) == {"a": 1}
    assert imports.own_name("celery.bin.worker") == "pgcelery.cli.worker"
    assert imports.own_name("celeryconfig") == "celeryconfig"


def test_names_of_classes_and_functions_are_qualified():
    assert imports.qualname(io.StringIO()) == "_io.StringIO"
    assert imports.qualname(test_names_of_classes_and_functions_are_qualified).startswith(__name__)


def test_the_current_directory_is_searched_and_then_forgotten(tmp_path, monkeypatch):
    (tmp_path / "found_here_only.py").write_text("value = 1\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert imports.import_from_cwd("found_here_only").value == 1
    assert sys.path == before
    with pytest.raises(imports.NotAPackage, match="found_here_only"):
        imports.find_module("found_here_only.inner")
    with pytest.raises(ModuleNotFoundError):
        imports.find_module("not_found.inner")


# -- names of nodes


def test_nodes_are_named_and_their_names_are_formatted():
    assert nodenames.nodename("w1", "host") == "w1@host"
    assert nodenames.nodesplit("w1@host") == ["w1", "host"]
    assert nodenames.nodesplit("host") == (None, "host")
    assert nodenames.default_nodename(None).startswith("celery@")
    assert nodenames.node_format("%n.log", "w1@host.example.com") == "w1.log"
    assert nodenames.host_format("%h|%n|%d|%%", "host.example.com") == (
        "host.example.com|host|example.com|%"
    )
    assert nodenames.anon_nodename("h") == f"gen{os.getpid()}@h"
    with pytest.raises(ValueError, match="Unknown format %z"):
        nodenames.host_format("%z", "h")


def test_the_place_in_the_pool_is_part_of_names():
    assert nodenames.host_format("%i%I", "h") == "0"
    log.set_process_index(2)
    try:
        assert nodenames.host_format("%i%I", "h") == "3-3"
    finally:
        log.set_process_index(None)


# -- repr


class Broken:
    def __repr__(self):
        raise EncodeError("no")


NESTED: list[object] = [1]
NESTED.append(NESTED)

VALUES = [
    None,
    1,
    1.5,
    Decimal("1.10"),
    Fraction(1, 3),
    "text",
    "it's",
    "x" * 200,
    b"bytes",
    b"\xff\xfe",
    [],
    [1, 2, 3],
    (),
    (1,),
    (1, 2),
    {},
    {"a": 1, "b": [1, 2, {"c": 3}]},
    {1: {2: {3: {4: 5}}}},
    [[[[1]]]],
    set(),
    frozenset(),
    {1},
    frozenset({1}),
    range(3),
    defaultdict(list, {"a": [1]}),
    ["long " * 30, "second", "third"],
    {"k" * 30: "v" * 100, "z": [1] * 50},
    object,
]


@pytest.mark.parametrize("maxlen", [None, 10, 30, 1024])
@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:30])
def test_a_safe_repr_is_celerys(value, maxlen):
    assert saferepr.saferepr(value, maxlen) == celery("saferepr").saferepr(value, maxlen)


def test_a_safe_repr_ends_and_never_raises():
    assert "Recursion on list" in saferepr.saferepr(NESTED, maxlevels=9)
    assert "Unrepresentable" in saferepr.saferepr([Broken()])
    assert len(saferepr.saferepr(["x" * 100] * 10**6, 100)) < 250
    assert "".join(saferepr.reprstream([1, (2,)])) == "[1, (2,)]"


# -- text


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("truncate", ("hello world and more", 12)),
        ("abbr", ("abcdefghij", 8)),
        ("abbr", ("abcdefghij", 8, False)),
        ("abbrtask", ("feeds.tasks.refresh", 15)),
        ("pluralize", (2, "task")),
        ("pretty", ({"a": 1},)),
        ("pretty", ((1, 2),)),
        ("indent", ("a\nb", 2)),
        ("ensure_newlines", ("a\n",)),
        ("dedent", ("    a\n    b",)),
        ("fill_paragraphs", ("one two three\nfour", 8)),
        ("remove_repeating_from_task", ("x.t.add", "x.t.add(2) | x.t.add(4) | ax.t.mul(8)")),
        ("remove_repeating", ("a.", "a.b(a.c, a.a.d)")),
    ],
)
def test_text_is_formatted_as_celery_does(name, args):
    assert getattr(text, name)(*args) == getattr(celery("text"), name)(*args)


def test_a_buffer_takes_bytes_and_text():
    buffer = text.WhateverIO(b"a")
    buffer.seek(0, 2)
    buffer.write(b"b")
    buffer.write("c")
    assert buffer.getvalue() == "abc"


def test_colours_are_those_of_celery_and_can_be_switched_off():
    for enabled in (True, False):
        mine, theirs = (module.colored(enabled=enabled) for module in (term, celery("term")))
        for colour in (mine, theirs):
            assert str(colour.red("a ", colour.bold("b"))) == str(
                theirs.red("a ", theirs.bold("b"))
            )
    assert repr(term.colored().ired("a", term.colored().blink("b"))) == "'ab'"


# -- collections


def test_attributes_are_items_and_items_attributes():
    both = collections.AttributeDict(a=1)
    both.b = 2
    assert (both.a, both["b"]) == (1, 2)
    with pytest.raises(AttributeError, match="'AttributeDict' object has no attribute 'c'"):
        _ = both.c

    class Config:
        x = 1

    view = collections.DictAttribute(Config)
    assert (view["x"], view.get("y", 2), "x" in view) == (1, 2, True)
    view["y"] = 3
    assert Config.y == 3
    assert collections.force_mapping(Config)["x"] == 1
    plain = {}
    assert collections.force_mapping(plain) is plain
    assert collections.lpmerge({"a": 1, "b": 2}, {"a": None, "b": 3}) == {"a": 1, "b": 3}


def test_a_limited_set_forgets_the_oldest_and_the_expired():
    limited = collections.LimitedSet(maxlen=2)
    for item in "abca":
        limited.add(item)
    assert list(limited) == ["c", "a"]
    expiring = collections.LimitedSet(expires=10, minlen=0)
    expiring.add("old", now=time.monotonic() - 20)
    expiring.add("new")
    assert list(expiring) == ["new"]
    keeping = collections.LimitedSet(maxlen=9, expires=10, minlen=1, data=["x"])
    keeping.purge(now=time.monotonic() + 99)
    assert "x" in keeping
    assert pickle.loads(pickle.dumps(keeping)) == keeping
    assert keeping.pop() == "x"
    assert keeping.pop("none") == "none"
    with pytest.raises(ValueError, match="minlen"):
        collections.LimitedSet(maxlen=1, minlen=2)


def test_a_limited_set_merges_another_by_time():
    one, two = collections.LimitedSet(), collections.LimitedSet()
    one.add("late", now=20.0)
    two.add("early", now=10.0)
    one.update(two)
    assert list(one.as_dict().items()) == [("early", 10.0), ("late", 20.0)]


# -- objects, threads, abstract classes


def test_the_class_that_defines_an_attribute_is_found():
    class Base:
        def method(self):
            pass

    class Child(Base):
        def method(self):
            pass

    class Grandchild(Child):
        pass

    assert objects.mro_lookup(Grandchild, "method") is Child
    assert objects.mro_lookup(Grandchild, "method", stop={Child}, monkey_patched=[__name__]) is None
    assert objects.mro_lookup(Grandchild, "method", stop={Child}, monkey_patched=["x"]) is Child


def test_a_context_that_is_given_is_left_open():
    closed = []

    class Resource:
        def __enter__(self):
            return self

        def __exit__(self, *exc):
            closed.append(self)

    given = Resource()
    with objects.FallbackContext(given, Resource) as same:
        assert same is given
    with objects.FallbackContext(None, Resource) as made:
        pass
    assert closed == [made]


def test_items_are_attributes():
    class Me(dict):
        x = objects.getitem_property("x")
        deep = objects.getitem_property("options.deep")

    me = Me(x=1, options={})
    me.deep = 2
    assert (me.x, me.deep, me["options"]) == (1, 2, {"deep": 2})
    assert Me().x is None


def test_a_stack_belongs_to_its_thread():
    stack = threads.LocalStack()
    stack.push("mine")
    seen = []
    thread = threading.Thread(target=lambda: seen.append((stack.top, len(stack), stack.pop())))
    thread.start()
    thread.join()
    assert seen == [(None, 0, None)]
    assert (stack.top, stack.stack) == ("mine", ["mine"])
    assert (stack.pop(), len(stack)) == ("mine", 0)


def test_what_looks_like_a_task_is_one():
    class Duck:
        def delay(self): ...
        def apply_async(self): ...
        def apply(self): ...
        def __call__(self): ...

    class Registered:
        pass

    assert isinstance(Duck(), abstract.CallableTask)
    assert not isinstance(Duck(), abstract.CallableSignature)
    assert not isinstance(len, abstract.CallableTask)
    assert abstract.CallableTask.register(Registered) is Registered
    assert issubclass(Registered, abstract.CallableTask)


def test_deprecated_things_warn_where_they_are_used():
    @deprecated.Callable(removal="6.0", alternative="Use y")
    def old():
        return 1

    with pytest.warns(Warning, match="old is deprecated and scheduled for removal") as caught:
        assert old() == 1
    assert caught[0].filename == __file__

    class Thing:
        @deprecated.Property(deprecation="5.0", removal="6.0")
        def attribute(self):
            return 2

    with pytest.warns(Warning, match="attribute is scheduled for deprecation in version 5.0"):
        assert Thing().attribute == 2


# -- graphs


def test_what_depends_on_something_comes_after_it():
    dependencies = graph.DependencyGraph([("c", ["b"]), ("b", ["a"]), ("a", [])])
    order = dependencies.topsort()
    assert order.index("a") < order.index("b") < order.index("c")
    assert dependencies.valency_of("c") == 2
    dependencies.add_edge("a", "c")
    with pytest.raises(graph.CycleError):
        dependencies.topsort()


def test_a_graph_is_drawn_as_celery_draws_it():
    drawn = []
    for module in (graph, celery("graph")):
        fh = text.WhateverIO()
        module.DependencyGraph([("b", ["a"]), ("a", [])]).to_dot(fh)
        drawn.append({line for line in fh.getvalue().splitlines() if "bgcolor" not in line})
    assert drawn[0] == drawn[1]


# -- logging


def test_loggers_hang_below_celery():
    assert log.get_task_logger("proj.tasks").parent is logging.getLogger("celery.task")
    assert log.get_logger("celery.anything").parent.name == "celery"
    with pytest.raises(RuntimeError, match="'celery' is reserved"):
        log.get_task_logger("celery")
    assert log.mlevel("debug") == logging.DEBUG
    assert log.mlevel(10) == 10


def test_what_is_written_to_a_proxy_is_logged(caplog):
    caplog.set_level("WARNING")
    logger = logging.getLogger("proxied")
    proxy = log.LoggingProxy(logger, "WARNING")
    assert proxy.write("hello\n") == 5
    proxy.writelines(["a", b"b", "\n"])
    proxy.flush()
    assert [record.message for record in caplog.records] == ["hello", "a", "b"]
    proxy.close()
    assert proxy.write("late") == 0
    assert not proxy.isatty()


def test_a_logger_that_writes_to_its_own_proxy_does_not_go_in_circles():
    logger = logging.getLogger("circular")
    proxy = log.LoggingProxy(logger)
    handler = logging.StreamHandler(proxy)
    logger.addHandler(handler)
    try:
        proxy.write("once")
    finally:
        logger.removeHandler(handler)


def test_records_are_coloured_by_level():
    record = logging.makeLogRecord({"msg": "x", "levelname": "ERROR"})
    assert log.ColorFormatter("%(message)s").format(record) == "\033[1;31mx\033[0m"
    assert log.ColorFormatter("%(message)s", use_color=False).format(record) == "x"


# -- the machine


def test_the_machine_has_processors_load_and_disks():
    budget = sysinfo.cpu_budget()
    assert 1 <= budget.count <= budget.available
    assert len(sysinfo.load_average()) == 3
    assert sysinfo.is_auto_concurrency(" AUTO ")
    assert not sysinfo.is_auto_concurrency(4)
    disk = sysinfo.df("/")
    assert disk.total_blocks > 0
    assert 0 < disk.capacity <= 100


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cgroup": "0::/a/b\n", "a/b/cpu.max": "150000 100000"}, 1.5),
        ({"cgroup": "0::/a/b\n", "a/b/cpu.max": "max 100000", "a/cpu.max": "50000 100000"}, 0.5),
        ({"cgroup": "0::/\n", "cpu.max": "max 100000"}, None),
        (
            {
                "cgroup": "4:cpu,cpuacct:/x\n",
                "cpu,cpuacct/x/cpu.cfs_quota_us": "200000\n",
                "cpu,cpuacct/x/cpu.cfs_period_us": "100000\n",
            },
            2.0,
        ),
        (
            {
                "cgroup": "4:cpu,cpuacct:/x\n",
                "cpu/x/cpu.cfs_quota_us": "-1\n",
                "cpu/x/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
        ({}, None),
    ],
)
def test_the_share_of_a_control_group_is_read(files, quota, tmp_path, monkeypatch):
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    monkeypatch.setattr(sysinfo, "CGROUP_ROOT", tmp_path)
    monkeypatch.setattr(sysinfo, "PROC_SELF_CGROUP", tmp_path / "cgroup")
    assert sysinfo.cgroup_cpu_quota() == quota


def test_what_celerys_utils_document_is_there():
    for name in (
        "functional",
        "imports",
        "text",
        "time",
        "nodenames",
        "objects",
        "term",
        "abstract",
    ):
        theirs = celery(name)
        ours = __import__(f"pgcelery.compat.utils.{name}", fromlist=["x"])
        missing = set(theirs.__all__) - set(vars(ours))
        assert not missing, (name, missing)
    assert inspect.isfunction(uuid)
