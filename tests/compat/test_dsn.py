from __future__ import annotations

import os
import ssl
from types import SimpleNamespace

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from pgcelery.compat import dsn
from pgcelery.compat.dsn import mask, resolve, target
from pgcelery.compat.exceptions import ImproperlyConfigured

VARIABLES = (
    "PGCELERY_DATABASE_URL",
    "CELERY_BROKER_URL",
    "CELERY_BROKER_READ_URL",
    "CELERY_BROKER_WRITE_URL",
    "CELERY_RESULT_BACKEND",
)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p@h:5/d?sslmode=require",
        "postgres://u:p@h:5/d?sslmode=require",
        "postgresql+psycopg://u:p@h:5/d?sslmode=require",
        "postgresql+psycopg2://u:p@h:5/d?sslmode=require",
        "pgcelery://u:p@h:5/d?sslmode=require",
        "PostgreSQL://u:p@h:5/d?sslmode=require",
    ],
)
def test_every_spelling_of_postgresql_is_taken(url: str) -> None:
    assert resolve({"broker_url": url}) == "postgresql://u:p@h:5/d?sslmode=require"


def test_a_keyword_dsn_and_settings_by_attribute_are_taken() -> None:
    assert resolve(SimpleNamespace(broker_url="host=h dbname=d")) == "host=h dbname=d"


def test_a_list_of_one_url_is_that_url() -> None:
    assert resolve({"broker_url": ["postgresql://h/d"]}) == "postgresql://h/d"


def test_the_setting_wins_over_the_database_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGCELERY_DATABASE_URL", "postgresql://variable/d")
    assert resolve({"broker_url": "postgresql://setting/d"}) == "postgresql://setting/d"
    assert resolve({"broker_url": None}) == "postgresql://variable/d"
    assert resolve() == "postgresql://variable/d"


def test_celerys_variable_wins_over_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Source: Celery 5.7, CELERY_BROKER_URL overrides broker_url."""
    monkeypatch.setenv("CELERY_BROKER_URL", "postgresql://variable/d")
    assert resolve({"broker_url": "amqp://setting"}) == "postgresql://variable/d"


def test_the_database_variable_comes_before_celerys_when_nothing_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://h")
    monkeypatch.setenv("PGCELERY_DATABASE_URL", "postgresql://ours/d")
    assert resolve({}) == "postgresql://ours/d"
    # a settings object may show the variable as if it were set
    assert resolve(SimpleNamespace(broker_url="redis://h")) == "postgresql://ours/d"


def test_nothing_configured_means_the_embedded_server() -> None:
    assert target({}).kind == "embedded"
    assert target({"broker_url": "", "result_backend": "rpc://"}).kind == "embedded"


@pytest.mark.parametrize(
    "url", ["redis://:secret@h/0", "amqp://u:secret@h//", "sqs://", "redis", "sqla+sqlite:///x"]
)
def test_another_broker_is_refused_with_what_to_do(url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="postgresql://user@host/database") as caught:
        resolve({"broker_url": url})
    assert str(caught.value).startswith("broker_url is ")
    assert "secret" not in str(caught.value)


def test_the_refusal_names_the_variable_that_said_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://h")
    with pytest.raises(ImproperlyConfigured, match=r"^CELERY_BROKER_URL is "):
        resolve({"broker_url": "postgresql://h/d"})


@pytest.mark.parametrize(
    ("url", "reason"),
    [("postgresql://u:se%cret@h/d", "written %25"), ("postgresql://h/d?colour=red", "colour")],
)
def test_a_url_that_libpq_cannot_read_is_refused_without_its_password(
    url: str, reason: str
) -> None:
    with pytest.raises(ImproperlyConfigured, match=reason) as caught:
        resolve({"broker_url": url})
    assert "cret" not in str(caught.value)


def test_several_urls_are_refused_with_what_libpq_offers_instead() -> None:
    with pytest.raises(ImproperlyConfigured, match="first,second"):
        resolve({"broker_url": "postgresql://a/d;postgresql://b/d"})


def test_reading_and_writing_must_be_the_same_database() -> None:
    one, two = "postgresql://a/d", "postgresql://b/d"
    assert resolve({"broker_read_url": one, "broker_write_url": one, "broker_url": two}) == one
    with pytest.raises(ImproperlyConfigured, match="broker_read_url and broker_url"):
        resolve({"broker_read_url": one, "broker_url": two})


@pytest.mark.parametrize(
    "backend",
    [
        None,
        "",
        "disabled://",
        "rpc://",
        "cache+memory://",
        "postgresql://other:x@127.0.0.1:5432/d",
        "db+postgresql://u@localhost/d",
        "db+postgresql+psycopg2://u@localhost/d",
    ],
)
def test_results_stay_with_the_tasks(backend: str | None) -> None:
    conf = {"broker_url": "postgresql://u@localhost/d", "result_backend": backend}
    assert resolve(conf) == "postgresql://u@localhost/d"


@pytest.mark.parametrize(
    "backend", ["redis://:secret@h", "django-db", "db+sqlite:///x", "db+postgresql://u:secret@h/e"]
)
def test_another_result_store_is_refused(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    conf = {"broker_url": "postgresql://h/d"}
    monkeypatch.setenv("CELERY_RESULT_BACKEND", backend)
    with pytest.raises(ImproperlyConfigured, match=r"^CELERY_RESULT_BACKEND is .*broker") as caught:
        resolve(conf)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("use_ssl", "expected"),
    [
        (True, {"sslmode": "require"}),
        (False, {}),
        ({"cert_reqs": ssl.CERT_NONE, "ca_certs": "/ca"}, {"sslmode": "require"}),
        ({"ca_certs": "/my ca"}, {"sslmode": "verify-full", "sslrootcert": "/my ca"}),
        (
            {
                "ssl_cert_reqs": "required",
                "ssl_ca_certs": "/ca",
                "ssl_certfile": "/cert",
                "ssl_keyfile": "/key",
                "ssl_check_hostname": False,
            },
            {
                "sslmode": "verify-ca",
                "sslrootcert": "/ca",
                "sslcert": "/cert",
                "sslkey": "/key",
            },
        ),
    ],
)
@pytest.mark.parametrize("url", ["postgresql://h/d", "host=h dbname=d"])
def test_broker_use_ssl_becomes_libpqs_parameters(
    url: str, use_ssl: object, expected: dict[str, str]
) -> None:
    found = conninfo_to_dict(resolve({"broker_url": url, "broker_use_ssl": use_ssl}))
    assert found == {"host": "h", "dbname": "d", **expected}


def test_the_url_wins_over_broker_use_ssl() -> None:
    conf = {"broker_url": "postgresql://h/d?sslmode=disable", "broker_use_ssl": True}
    assert resolve(conf) == "postgresql://h/d?sslmode=disable"


def test_an_option_of_broker_use_ssl_that_has_no_counterpart_is_named() -> None:
    with pytest.raises(ImproperlyConfigured, match="ciphers"):
        resolve({"broker_url": "postgresql://h/d", "broker_use_ssl": {"ciphers": "x"}})


def test_memory_is_one_private_server_shared_with_forked_children(
    server_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = {"broker_url": "memory://", "result_backend": "cache+memory://"}
    mine = resolve(conf)
    try:
        assert resolve(conf) == mine != server_dsn
        with psycopg.connect(mine) as conn:
            assert conn.execute("show listen_addresses").fetchone() == ("",)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(write, resolve(conf).encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as answer:
            assert answer.read() == mine
        os.waitpid(pid, 0)
    finally:
        dsn._memory.stop()
        monkeypatch.setattr(dsn, "_memory", None)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgresql://u:secret@h/d", "postgresql://u:**@h/d"),
        ("postgresql://u:se%40cr%25et@h/d", "postgresql://u:**@h/d"),
        ("postgresql://u:se@cr/et?@h/d", "postgresql://u:**@h/d"),
        ("redis://:secret@h/0", "redis://:**@h/0"),
        ("postgresql://u@h/d?password=secret", "postgresql://u@h/d?password=**"),
        ("host=h password=secret user=u", "host=h password=** user=u"),
        (r"host=h password = 'se c\'ret' user=u", "host=h password = ** user=u"),
        (r"password=se\ cret&x user=u", "password=** user=u"),
        ("cannot reach postgresql://u:secret@h/d now", "cannot reach postgresql://u:**@h/d now"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
    ],
)
def test_mask_hides_every_kind_of_password(text: str, masked: str) -> None:
    assert mask(text) == masked
