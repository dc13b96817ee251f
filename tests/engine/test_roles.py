"""What each role may and may not, derived from the catalog; with roles that really log in."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgcelery.engine import (
    Client,
    EngineConfig,
    Gate,
    NotPermitted,
    SchemaMismatch,
    State,
    Unique,
    roles,
)
from pgcelery.engine.placement import encode
from tests.support.database import new_database
from tests.support.jobs import Recorder, new_job, running

VERBS = {
    "select": "select from {}",
    "insert": "insert into {} default values",
    "update": "update {} set {column} = null",
    "delete": "delete from {}",
    "truncate": "truncate {}",
    "copy": "copy {} to stdout",
    "lock": "lock table {}",
    "drop": "drop table {}",
    "alter": "alter table {} add column x integer",
}
DDL = (
    "create table pgcelery.mine (x integer)",
    "create function pgcelery.mine() returns integer language sql as 'select 1'",
    "drop schema pgcelery cascade",
    "alter schema pgcelery rename to mine",
    "drop function pgcelery.cancel_v1(text[], bytea[], boolean, smallint)",
    "alter function pgcelery.fetch_v1(text[]) security invoker",
)


class Secured:
    """A database with roles, and somebody to log in as each."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.prefix = f"t{secrets.token_hex(4)}"
        self.config = EngineConfig(dsn=dsn)
        with closing(Client(self.config)) as client:
            client.migrate()
        roles.apply(self.config, self.prefix)
        with psycopg.connect(dsn, autocommit=True) as conn:
            for kind in roles.KINDS[1:]:
                self._run(conn, "create role {} login password 'x' in role {}", f"app_{kind}", kind)

    def name(self, kind: str) -> str:
        return f"{self.prefix}_{kind}"

    def _run(self, conn: psycopg.Connection[Any], text: str, *kinds: str) -> None:
        names = [sql.Identifier(self.name(kind)) for kind in kinds]
        conn.execute(sql.SQL(text).format(*names))

    def as_(self, kind: str) -> str:
        return make_conninfo(self.dsn, user=self.name(f"app_{kind}"), password="x")

    def refused(self, kind: str, statement: Any) -> str:
        """The SQLSTATE of a statement of that role."""
        with psycopg.connect(self.as_(kind)) as conn:
            try:
                conn.execute(statement)
            except psycopg.Error as exc:
                return exc.sqlstate or ""
        return "00000"

    def may(self, kind: str, function: str) -> bool:
        return self._all(
            f"select bool_or(has_function_privilege('{self.name(kind)}', oid, 'execute'))"  # noqa: S608
            f" from pg_proc where proname = '{function}'"
        )[0][0]

    def relations(self) -> list[tuple[str, str]]:
        """Tables and views, each with a column."""
        return self._all(
            "select c.relname, (select a.attname from pg_attribute a where a.attrelid = c.oid and"
            " a.attnum > 0 and a.attidentity = '' order by a.attnum limit 1)"
            " from pg_class c where c.relnamespace = 'pgcelery'::regnamespace"
            " and c.relkind in ('r', 'v')"
        )

    def functions(self) -> list[tuple[str, str, str]]:
        """Names, calls with nulls for arguments, and volatility."""
        return self._all(
            "select p.proname, format('select pgcelery.%I(%s)', p.proname, (select coalesce("
            " string_agg(format('null::%s', format_type(t, null)), ', ' order by o), '')"
            " from unnest(p.proargtypes::oid[]) with ordinality as a(t, o))), p.provolatile::text"
            " from pg_proc p where p.pronamespace = 'pgcelery'::regnamespace"
        )

    def _all(self, query: str) -> list[Any]:
        with psycopg.connect(self.dsn) as conn:
            conn.execute("set search_path = pg_catalog")
            return conn.execute(query.encode()).fetchall()

    def close(self) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            for kind in roles.KINDS[1:]:
                self._run(conn, "drop role {}", f"app_{kind}")
            conn.execute("drop schema pgcelery cascade")
            for kind in roles.KINDS:
                self._run(conn, "drop owned by {}", kind)
                self._run(conn, "drop role {}", kind)


@pytest.fixture(scope="module")
def secured(server_dsn: str) -> Iterator[Secured]:
    with new_database(server_dsn) as dsn, closing(Secured(dsn)) as secured:
        yield secured


PRODUCERS = {
    "enqueue", "enqueue_one", "cancel", "intern", "intern_place", "open_latch", "close_latch",
    "drop_latch", "fetch", "failures", "await", "forget", "hand", "keep",
}  # fmt: skip


@pytest.mark.parametrize("kind", ["producer", "viewer", "worker"])
def test_a_role_touches_no_table_in_a_way_that_is_not_its_own(secured: Secured, kind: str) -> None:
    allowed = {"producer": set(), "viewer": {"select", "copy"}, "worker": set(VERBS) - {
        "truncate", "drop", "alter"}}[kind]  # fmt: skip
    relations = secured.relations()
    assert len(relations) > 25
    for name, column in relations:
        for verb in set(VERBS) - allowed:
            statement = sql.SQL(VERBS[verb]).format(
                sql.Identifier("pgcelery", name), column=sql.Identifier(column)
            )
            if verb != "select" and name == "queue_names":
                continue  # a view, into which nobody writes
            assert secured.refused(kind, statement) == "42501", (kind, verb, name)


def test_a_producer_calls_its_functions_and_no_others(secured: Secured) -> None:
    called = set()
    for name, call, _ in secured.functions():
        state = secured.refused("producer", call)
        if name.rpartition("_v")[0] in PRODUCERS:
            called.add(name.rpartition("_v")[0])
            assert state != "42501", name
        else:
            assert state == "42501" or name == "gates_v1", name  # strict: null is null
            assert not secured.may("producer", name)
    assert called == PRODUCERS


def test_a_viewer_calls_what_changes_nothing(secured: Secured) -> None:
    for name, call, volatile in secured.functions():
        assert secured.may("viewer", name) == (volatile != "v"), name
        if volatile == "v":
            assert secured.refused("viewer", call) == "42501", name


@pytest.mark.parametrize("kind", ["producer", "viewer", "worker"])
@pytest.mark.parametrize("statement", DDL)
def test_nobody_changes_the_schema(secured: Secured, kind: str, statement: str) -> None:
    assert secured.refused(kind, statement) == "42501"


def test_nobody_gives_away_what_they_have(secured: Secured) -> None:
    for kind in roles.KINDS[1:]:  # only a warning
        secured.refused(kind, "grant select on all tables in schema pgcelery to public")
    with psycopg.connect(secured.dsn) as conn:
        found = conn.execute(
            "select count(*) from information_schema.role_table_grants"
            " where table_schema = 'pgcelery' and grantee = 'PUBLIC'"
        ).fetchone()
    assert found == (0,)


def test_the_public_may_call_nothing_and_definers_have_a_path(secured: Secured) -> None:
    found = secured._all(
        "select p.proname from pg_proc p where p.pronamespace = 'pgcelery'::regnamespace and ("
        " exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a"
        "         where a.grantee = 0)"
        " or (p.prosecdef or p.prolang = (select oid from pg_language where lanname = 'plpgsql'))"
        "    and not coalesce('search_path=pg_catalog, pg_temp' = any (p.proconfig), false))"
    )
    assert found == []
    owners = secured._all(
        "select distinct r.rolcanlogin from pg_roles r join pg_proc p on r.oid = p.proowner"
        " where p.pronamespace = 'pgcelery'::regnamespace"
    )
    assert owners == [(False,)]


def test_producers_send_cancel_and_read_and_workers_work(secured: Secured) -> None:
    producer = Client(EngineConfig(dsn=secured.as_("producer")))
    worker = EngineConfig(dsn=secured.as_("worker"))
    with closing(producer), running(worker, Recorder()):
        plain = new_job()
        latch = "latch-1"
        producer.open_latch(latch)
        member = new_job(joins=(latch,))
        producer.enqueue([member])
        body = new_job(parents=(latch,), placement="")
        producer.close_latch(latch, [body])
        gated = new_job(gates=(Gate("g", "k", slots=1),), unique=Unique("only"))
        producer.enqueue([plain, gated])
        placed = new_job(placement=encode({"zone": "x"}, ()))
        producer.enqueue([placed])
        late = new_job(delay_s=3600.0)
        with psycopg.connect(secured.as_("producer")) as conn:
            producer.enqueue([late], conn=conn)
            conn.commit()
        for one in (plain, member, body, gated):
            assert producer.wait([one.id], 10)[one.id].state is State.COMPLETED
        assert producer.cancel([late.id, "unknown"]) == {
            late.id: State.CANCELLED,
            "unknown": None,
        }
        for forbidden in (
            lambda: producer.purge(),
            lambda: producer.job(plain.id),
            lambda: producer.put_result(plain.id, State.COMPLETED, b""),
            lambda: producer.workers(),
            lambda: producer.broadcast(b"{}"),
        ):
            with pytest.raises(NotPermitted, match="permission denied"):
                forbidden()
        assert not producer.keep(plain.id, b"by hand")
        assert producer.keep("a group", b"members")
        assert producer.forget([plain.id, late.id, "a group", "unknown"]) == 3
        assert producer.results([plain.id, late.id, "a group"]) == {}


def test_a_latch_is_all_that_can_be_dropped(secured: Secured) -> None:
    """A node that is no latch stays, whoever names it."""
    producer = Client(EngineConfig(dsn=secured.as_("producer")))
    with closing(producer):
        parent, child = new_job(queue="idle"), new_job(queue="idle")
        producer.enqueue([parent, child._replace(parents=(parent.id,))])
        producer.drop_latch(child.id)
    assert secured._all(f"select job_id from pgcelery.nodes where job_id = '{child.id}'") == [  # noqa: S608
        (child.id,)
    ]


def test_workers_of_the_role_cannot_migrate(secured: Secured) -> None:
    with psycopg.connect(secured.dsn, autocommit=True) as conn:
        newest = conn.execute("select max(number) from pgcelery.migrations").fetchone()
        conn.execute("delete from pgcelery.migrations where number = %s", newest)
        try:
            with pytest.raises((SchemaMismatch, NotPermitted)):
                Client(EngineConfig(dsn=secured.as_("worker"))).migrate()
        finally:
            conn.execute("insert into pgcelery.migrations values (%s, '0014_doors', false)", newest)


def test_running_it_again_covers_what_is_new_and_undoes_what_is_not_its(secured: Secured) -> None:
    assert roles.newer(secured.config) == 0
    with psycopg.connect(secured.dsn, autocommit=True) as conn:
        conn.execute("create function pgcelery.fetch_v99(x text) returns text language sql"
                     " set search_path = pg_catalog, pg_temp as 'select x'")  # fmt: skip
        secured._run(conn, "grant select on pgcelery.jobs to {}", "producer")
        conn.execute("grant select on pgcelery.jobs to public")
    assert roles.newer(secured.config) == 1
    roles.apply(secured.config, secured.prefix)
    assert roles.newer(secured.config) == 0
    assert secured.refused("producer", "select pgcelery.fetch_v99('x')") == "00000"
    assert secured.refused("producer", "select from pgcelery.jobs") == "42501"
    with psycopg.connect(secured.dsn, autocommit=True) as conn:
        conn.execute("drop function pgcelery.fetch_v99(text)")


def test_what_a_migration_adds_is_the_owners(server_dsn: str) -> None:
    """And so callable by workers at once, and by nobody else."""
    with new_database(server_dsn) as dsn, closing(Secured(dsn)) as secured:
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("delete from pgcelery.migrations where name = '0014_doors'")
            for name, args in secured._all(
                "select proname, pg_get_function_identity_arguments(oid) from pg_proc where"
                " pronamespace = 'pgcelery'::regnamespace and proname in ('intern_v1',"
                " 'intern_place_v1', 'open_latch_v1', 'close_latch_v1', 'drop_latch_v1',"
                " 'fetch_v1', 'failures_v1', 'await_v1', 'at_large_v2', 'forget_v1', 'keep_v1')"
            ):
                conn.execute(f"drop function pgcelery.{name}({args})".encode())
        with closing(Client(secured.config)) as client:
            assert client.migrate() == ["0014_doors"]
        assert secured.refused("worker", "select pgcelery.fetch_v1('{}')") == "00000"
        assert secured.refused("producer", "select pgcelery.fetch_v1('{}')") == "42501"
        assert roles.newer(secured.config) == 10


def test_nothing_of_a_users_own_captures_a_call(secured: Secured) -> None:
    """Functions, operators and temporary tables of a caller, whatever its search_path says."""
    job = new_job(queue="idle")
    with psycopg.connect(secured.dsn, autocommit=True) as conn:
        conn.execute("create schema if not exists trap")
        secured._run(conn, "grant all on schema trap to {}", "app_producer")
        conn.execute("grant usage on schema trap to public")
    with psycopg.connect(secured.as_("producer"), autocommit=True) as conn:
        conn.execute("create function trap.now() returns timestamptz language plpgsql as"
                     " $$begin raise exception 'captured'; end$$")  # fmt: skip
        conn.execute("create function trap.eq(text, text) returns boolean language plpgsql as"
                     " $$begin raise exception 'captured'; end$$")  # fmt: skip
        conn.execute("create operator trap.= (leftarg = text, rightarg = text, function = trap.eq)")
        conn.execute("create temp table jobs (id text)")
        conn.execute("create temp table results (id text)")
        conn.execute("set search_path = trap, pg_temp, pg_catalog")
        with pytest.raises(psycopg.errors.RaiseException, match="captured"):
            conn.execute("select now()")
        client = Client(EngineConfig(dsn=secured.as_("producer")))
        with closing(client):
            client.enqueue([job], conn=conn)
            conn.execute("select pgcelery.enqueue_one_v2(%s, 1, 0::smallint, 'n', '', null,"
                         " 1::smallint, 1, 1::smallint)", [new_job().id])  # fmt: skip
            states = conn.execute("select pgcelery.cancel_v1(%s::text[], %s::bytea[], false,"
                                  " 15::smallint)", [[job.id], [None]]).fetchall()  # fmt: skip
            found = conn.execute("select state from pgcelery.fetch_v1(array[%s])", [job.id])
            assert found.fetchall() == [(State.CANCELLED,)]
    assert len(states) == 1
    with psycopg.connect(secured.dsn, autocommit=True) as conn:
        conn.execute("drop schema trap cascade")
