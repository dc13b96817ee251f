"""Clocks, and work that is hard to bear."""

from __future__ import annotations

import shutil
import subprocess
import time

from tests.faults.suite.oracle import runs
from tests.faults.suite.trial import Fault, Ground
from tests.support.wait import wait_for

#: Wall clocks are moved by SKEW_S seconds; the monotonic ones are not.
_SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
static long skew(void) { const char *s = getenv("SKEW_S"); return s ? atol(s) : 0; }
int clock_gettime(clockid_t id, struct timespec *ts) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, ts);
    if (id == CLOCK_REALTIME) ts->tv_sec += skew();
    return result;
}
time_t time(time_t *t) {
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    if (t) *t = ts.tv_sec;
    return ts.tv_sec;
}
int gettimeofday(struct timeval *restrict tv, void *restrict tz) {
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    tv->tv_sec = ts.tv_sec;
    tv->tv_usec = ts.tv_nsec / 1000;
    return 0;
}
"""


def _no_compiler() -> str | None:
    return None if shutil.which("gcc") else "gcc is not installed"


def skewed_clocks(ground: Ground) -> None:
    """One worker an hour ahead, one an hour behind: delays, leases and ends are right."""
    source, shim = ground.folder / "skew.c", ground.folder / "skew.so"
    source.write_text(_SHIM)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True)
    workers = [
        ground.start_worker(wait=False, env={"LD_PRELOAD": str(shim), "SKEW_S": skew})
        for skew in ("3600", "-3600")
    ]
    ground.fleet.ready(*workers)
    ground.load.start()
    sends = {}
    for _ in range(20):
        number = ground.load.next_number()
        made = ground.load.maker.single("work", str(number))
        sends[str(number)] = ground.load.send("eta", made, number=number, countdown=2.0)
        ground.rest(0.1)
    ground.rest(3.5)
    ground.healed_at = time.monotonic()
    ground.finish()
    off = []
    hours = set()
    for run in runs(ground.oracle):
        hours.add(round((run.begun_wall - time.time()) / 3600))
        if run.tag in sends:
            off.append(run.begun - (sends[run.tag].acked or 0.0) - 2.0)
    if hours != {1, -1}:
        ground.wrong("fault", f"clocks were not moved: {hours}")
    ground.say(f"began {min(off):+.2f} to {max(off):+.2f} s off their time")
    if min(off) < -0.5 or max(off) > 1.0 or len(off) != len(sends):
        ground.wrong("P18", f"delayed tasks began {min(off):+.2f} to {max(off):+.2f} s off")


def revoke_storm(ground: Ground) -> None:
    """Revoke many ids that wait, and live ones with terminate."""
    load, tasks = ground.load, ground.load.tasks
    many = 300 if ground.quick else 3000
    ids = []
    for _ in range(many):
        number = load.next_number()
        signature, calls = load.maker.single("work", str(number))
        calls = {t: c._replace(state="REVOKED", error="TaskRevokedError") for t, c in calls.items()}
        made = signature, calls
        load.send("revoked", made, number=number, countdown=30.0)
        ids.append(f"single-{number}")
    live = []
    for _ in range(4):
        number = load.next_number()
        signature, calls = load.maker.single("work", str(number), 30.0)
        calls = {t: c._replace(state="REVOKED", error="TaskRevokedError") for t, c in calls.items()}
        load.send("revoked", (signature, calls), number=number)
        live.append(str(number))
    wait_for(lambda: {run.tag for run in runs(ground.oracle)} >= set(live), 20)
    began = time.monotonic()
    tasks.app.control.revoke(ids)
    tasks.app.control.revoke([f"single-{tag}" for tag in live], terminate=True, signal="SIGKILL")
    took_s = time.monotonic() - began
    ground.healed_at = time.monotonic()
    query = "select count(*) from audit.ended where id = any(%s)"
    names = [f"single-{tag}" for tag in live]
    try:
        wait_for(lambda: ground.server.execute(query, [names])[0][0] == len(live), 8)
    except AssertionError:
        ground.wrong("P17", "live tasks were not revoked within their lease")
        ground.server.execute("delete from pgcelery.running where job_id = any(%s)", [names])
    ended_s = time.monotonic() - began - took_s
    ground.say(f"{many} ids in {took_s:.2f} s, live ones ended {ended_s:.2f} s later")
    began_after = {run.tag for run in runs(ground.oracle)} & {one.split("-")[1] for one in ids}
    if began_after:
        ground.wrong("P17", f"{len(began_after)} tasks began after they were revoked")


def big_chord(ground: Ground) -> None:
    """A chord of 10,000, of which each twentieth member kills its process the first time."""
    size = 1500 if ground.quick else 10_000
    number = ground.load.next_number()
    signature, calls = ground.load.maker.chord(str(number), size, seconds=0.0, header="fragile")
    calls = {
        tag: call if tag.endswith("body") else call._replace(most_runs=2)
        for tag, call in calls.items()
    }
    began = time.monotonic()
    ground.load.send("chord", (signature, calls), number=number)
    sent_s = time.monotonic() - began
    body = f"{number}.body"
    wait_for(lambda: any(run.tag == body for run in runs(ground.oracle)), 90)
    took_s = time.monotonic() - began
    ground.say(f"{size} members, sent in {sent_s:.1f} s, body after {took_s:.1f} s")


def unknown_names(ground: Ground) -> None:
    """A thousand tasks that no worker knows, in front of the others."""
    app = ground.load.tasks.app
    many = 300 if ground.quick else 2000
    for _ in range(many):
        number = ground.load.next_number()
        _, calls = ground.load.maker.single("work", str(number))
        calls = {t: c._replace(state="FAILURE", error="NotRegistered") for t, c in calls.items()}
        given = calls[str(number)].given
        app.send_task("nobody.knows", (given, str(number)), task_id=f"single-{number}")
        ground.load.adopt("unknown", calls)
    began = time.monotonic()
    number = ground.load.next_number()
    made = ground.load.maker.single("work", str(number))
    ground.load.send("quick", made, number=number)
    wait_for(lambda: any(run.tag == str(number) for run in runs(ground.oracle)), 30)
    ground.say(f"a task behind {many} of them began after {time.monotonic() - began:.1f} s")
    ground.healed_at = time.monotonic()


FAULTS = [
    Fault(
        "50",
        "workers' clocks an hour ahead and behind",
        skewed_clocks,
        needs=_no_compiler,
        workers=0,
        idle=True,
    ),
    Fault(
        "52", "thousands revoked at once, live ones terminated", revoke_storm, rate=4, quick=True
    ),
    Fault("57", "a big chord while children are killed", big_chord, idle=True, slack_s=20),
    Fault("60", "a flood of unknown task names", unknown_names, rate=4, quick=True),
]
