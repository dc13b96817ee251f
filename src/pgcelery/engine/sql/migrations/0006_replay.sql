-- Workflows are looked at, cancelled and replayed as one. Of a job that a retry or a replacement has
-- rewritten, `sent` keeps what it was at first: that is what runs when it is replayed.

create type pgcelery.sending as (
    queue_id integer,
    priority smallint,
    max_deliveries smallint,
    name text,
    payload bytea,
    ttl_s double precision,
    delay_s double precision,
    lives_s double precision,
    key text collate "C",
    key_limit integer
);

alter table pgcelery.jobs add column sent pgcelery.sending;

-- Workflows that were cancelled: what they still come to, at the end of a run, is cancelled too.
create table pgcelery.stopped (
    workflow text collate "C" primary key,
    at timestamptz not null default now()
);

-- install functions/enqueue_v2.sql
-- install functions/reschedule_v1.sql
-- install functions/maintain_v1.sql
-- install functions/members_v1.sql
-- install functions/replay_v1.sql
