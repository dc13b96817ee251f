"""Asks a worker everything, through the API and through the command line, and prints the answers.

What differs from run to run (numbers, times, paths) is told as its type.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
import sys
from datetime import UTC, datetime, timedelta

from fleet import add, app, hold

NODE = "w@h"
WAIT = 10
#: settings that only pgcelery has
OURS = {
    *("task_concurrency", "task_rate_limits", "task_unique", "task_placement", "task_profile"),
    *("task_rate_limit_scope", "task_priority_direction"),
}
control = app.control
ask = control.inspect([NODE], timeout=WAIT, limit=1)
trace = {}


def shape(value):
    """The same with every number, text and None told as its type."""
    if isinstance(value, dict):
        return {str(key): shape(item) for key, item in sorted(value.items())}
    if isinstance(value, list | tuple):
        return [shape(item) for item in value[:1]]
    return type(value).__name__


def of_node(answer):
    return None if answer is None else answer[NODE]


def tell(command, **arguments):
    """Send a control command; the only answer, or why there is none."""
    answers = control.broadcast(
        command, arguments=arguments, reply=True, timeout=WAIT, limit=1, destination=[NODE]
    )
    return answers[0][NODE] if answers else "no answer"


def cli(*words):
    """Exit code and output of a command line."""
    module = type(app).__module__.split(".")[0]
    done = subprocess.run(
        [sys.executable, "-m", module, "-A", "fleet", "--no-color", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return [done.returncode, done.stdout, done.stderr.strip().splitlines()[-1:]]


def begun(path):
    while not pathlib.Path(f"{path}.begun").exists():
        pass


def ask_while_it_works():
    held = [hold.delay(name, note=[1]) for name in ("a", "b")]
    for name in ("a", "b"):
        begun(name)
    behind = add.delay(1, 2)
    later = add.apply_async((3, 4), eta=datetime.now(UTC) + timedelta(hours=1))
    yield held[0].id, "held"
    yield held[1].id, "held too"
    yield behind.id, "behind"
    yield later.id, "later"
    active = sorted(of_node(ask.active()), key=lambda info: info["args"])
    trace["active"] = [{**info, "time_start": 0, "worker_pid": 0} for info in active]
    trace["active, types"] = shape(active)
    trace["active, safe"] = sorted(
        [info["args"], info["kwargs"]] for info in of_node(ask.active(safe=True))
    )
    trace["reserved"] = of_node(ask.reserved())
    trace["scheduled"] = [
        {**entry, "eta": shape(entry["eta"])} for entry in of_node(ask.scheduled())
    ]
    found = of_node(ask.query_task(held[0].id, behind.id, later.id, "unknown"))
    trace["query_task"] = {id: [state, shape(info)] for id, (state, info) in found.items()}
    trace["query_task, a list"] = [*of_node(ask.query_task([held[1].id]))]
    trace["query_task, unknown"] = of_node(ask.query_task("unknown"))
    trace["stats, busy"] = {"total": of_node(ask.stats())["total"]}
    trace["revoke, behind"] = tell("revoke", task_id=behind.id)
    trace["revoke, running"] = tell("revoke", task_id=held[0].id)
    trace["revoke, terminate"] = tell("revoke", task_id=[held[1].id], terminate=True)
    control.revoke(later.id)
    pathlib.Path("a.go").touch()
    trace["held"] = [held[0].get(timeout=WAIT), state_of(held[1]), state_of(behind)]
    trace["revoked"] = sorted(of_node(ask.revoked())) == sorted(
        [held[0].id, held[1].id, behind.id, later.id]
    )


def state_of(result):
    with contextlib.suppress(Exception):
        result.get(timeout=WAIT)
    return result.state


def ask_for_numbers():
    stats = of_node(ask.stats())
    trace["stats"] = shape(stats)
    trace["stats, total"] = stats["total"]
    pool = trace["stats, pool"] = {**stats["pool"]}
    if "processes" in pool:
        pids = pool["processes"]
        pool["processes"] = [len(pids), stats["pid"] in pids]
    for name in {"writes", "threads"} & {*pool}:
        pool[name] = shape(pool[name])


def ask_at_rest():
    ask_for_numbers()
    trace["ping"] = [ask.ping(), control.ping([NODE], timeout=WAIT, limit=1)]
    trace["nobody"] = [control.inspect(["no@h"], timeout=0.5).ping(), control.ping(["no@h"], 0.5)]
    trace["clock"] = shape(of_node(ask.clock()))
    trace["conf"] = sorted(of_node(ask.conf()))
    trace["conf, with defaults"] = sorted(set(of_node(ask.conf(with_defaults=True))) - OURS)
    trace["report"] = shape(of_node(ask.report()))
    trace["registered"] = of_node(ask.registered())
    trace["registered, attributes"] = of_node(ask.registered("name", "rate_limit", "_x", "none"))
    trace["registered, built in"] = of_node(ask._request("registered", builtins=True))
    trace["active_queues"] = of_node(ask.active_queues())
    trace["memory"] = [shape(of_node(ask.memsample())), shape(of_node(ask.memdump()))]
    trace["hello"] = shape(of_node(ask.hello("other@h", {})))
    trace["hello, myself"] = of_node(ask.hello(NODE))
    trace["empty"] = [of_node(ask.active()), of_node(ask.reserved())]
    trace["scheduled, revoked"] = len(of_node(ask.scheduled()))


def change_things():
    for name, command, arguments in (
        ("rate limit", "rate_limit", {"task_name": "add", "rate_limit": "10/m"}),
        ("no rate limit", "rate_limit", {"task_name": "add", "rate_limit": None}),
        ("bad rate limit", "rate_limit", {"task_name": "add", "rate_limit": "10/x"}),
        ("rate limit of nothing", "rate_limit", {"task_name": "no", "rate_limit": "1/m"}),
        ("time limit", "time_limit", {"task_name": "add", "soft": 5.5, "hard": 9}),
        ("time limit of nothing", "time_limit", {"task_name": "no"}),
        ("enable events", "enable_events", {}),
        ("enable events again", "enable_events", {}),
        ("disable events", "disable_events", {}),
        ("disable events again", "disable_events", {}),
        ("heartbeat", "heartbeat", {}),
        ("add consumer", "add_consumer", {"queue": "more"}),
        ("cancel consumer", "cancel_consumer", {"queue": "more"}),
        ("grow", "pool_grow", {"n": 1}),
        ("shrink", "pool_shrink", {"n": 1}),
        ("restart", "pool_restart", {}),
        ("autoscale", "autoscale", {"max": 3, "min": 1}),
        ("revoke many", "revoke", {"task_id": ["x"]}),
        ("revoke nothing", "revoke", {"task_id": []}),
        ("terminate", "terminate", {"signal": "KILL", "task_id": ["x"]}),
        ("revoke stamps", "revoke_by_stamped_headers", {"headers": {"h": ["v"]}}),
        ("no such command", "no_such_command", {}),
        ("wrong arguments", "add_consumer", {}),
        ("mine", "multiply", {"n": 4}),
        ("mine, both", "multiply", {"n": 4, "times": 3}),
        ("mine, many", "say", {"words": ["a", "b"]}),
        ("mine, alias", "say_all", {"words": ["c"]}),
        ("mine, hidden", "pool_size", {}),
        ("mine, failing", "fail", {}),
        ("still there", "ping", {}),
    ):
        trace[f"tell: {name}"] = tell(command, **arguments)


def use_the_command_line():
    for words in (
        ("status",),
        ("inspect", "ping", "-d", NODE),
        ("inspect", "ping", "-d", NODE, "--json"),
        ("inspect", "registered", "name", "-d", NODE, "-t", "5"),
        ("inspect", "active", "-d", NODE),
        ("inspect", "query_task", "x", "y", "-d", NODE),
        ("control", "rate_limit", "add", "7/m", "-d", NODE),
        ("control", "rate_limit", "no", "7/m", "-d", NODE),
        ("control", "multiply", "6", "7", "-d", NODE),
        ("control", "say", "x", "y", "z", "-d", NODE),
        ("control", "fail", "-d", NODE),
        ("control", "enable_events", "-d", NODE, "-j"),
        ("inspect", "ping", "-d", "no@h", "-t", "0.3"),
        ("status", "-d", "no@h", "-t", "0.3"),
    ):
        trace[f"cli: {' '.join(words)}"] = cli(*words)
    for words in (
        ("inspect", "nothing"),
        ("inspect", "pool_size"),
        ("control", "ping"),
        ("control", "multiply", "six"),
        ("control", "multiply", "6", "7", "8"),
    ):
        trace[f"cli, exit code: {' '.join(words)}"] = cli(*words)[0]
    trace["cli: commands"] = [
        [line.split()[0] for line in cli(kind, "--list")[1].splitlines()[1:] if line[2:3] != " "]
        for kind in ("inspect", "control")
    ]


labels = {}
if os.environ.get("ASK") == "numbers":
    add.delay(1, 2).get(timeout=WAIT)
    ask_for_numbers()
else:
    labels.update(ask_while_it_works())
    ask_at_rest()
    use_the_command_line()
    change_things()
json.dump({"trace": trace, "labels": labels}, sys.stdout)
