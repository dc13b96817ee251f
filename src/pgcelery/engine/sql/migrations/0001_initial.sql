-- The tables of the engine. A job lives in `jobs` from enqueue until its result expires; where it
-- is right now is told by the one hot table that names it: nodes (waits for parents), scheduled
-- (waits for a time), ready (may be claimed), running (claimed); and then by its row in results.
-- Hot tables have one index each, no foreign keys and no triggers: a foreign key checked under
-- row locks makes multixacts, and every index is written for every job.

create table pgcelery.queues (
    id integer generated always as identity primary key,
    name text collate "C" not null unique,
    paused_at timestamptz
);

create table pgcelery.jobs (
    id text collate "C" primary key,
    seq bigint generated always as identity,  -- order of enqueue; kept over retries
    queue_id integer not null,
    priority smallint not null,               -- 0 is claimed first
    max_deliveries smallint not null,         -- 1: at most once
    flags smallint not null,                  -- 1: others wait for it, 2: it needs a slot of a key
    parents integer not null,                 -- how many jobs it waits for at enqueue
    name text not null,
    payload bytea not null,
    created_at timestamptz not null default now(),
    due_at timestamptz,
    delay_s double precision,                 -- of a job with parents: counts from its release
    expires_at timestamptz,
    ttl_s double precision,                   -- how long its result is kept; null for ever
    key text collate "C",                     -- what it shares slots with
    key_limit integer,                        -- how many of that key may run at once
    last_token bigint,                        -- the run that rescheduled it last
    parked boolean not null default false     -- its run is over, and who goes on with its id comes
);

create table pgcelery.ready (
    queue_id integer not null,
    priority smallint not null,
    seq bigint not null,
    job_id text collate "C" not null,
    deliveries smallint not null,             -- runs so far that ended without an outcome
    flags smallint not null,                  -- of the job, and 4: a parent did not complete
    primary key (queue_id, priority, seq)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_cost_delay = 0);

create table pgcelery.running (
    token bigint primary key,                 -- the fence: never reused
    job_id text collate "C" not null,
    worker_id integer not null,
    queue_id integer not null,
    delivery smallint not null,
    flags smallint not null,
    started_at timestamptz not null default now()
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_cost_delay = 0);

create sequence pgcelery.tokens as bigint;

create table pgcelery.scheduled (
    queue_id integer not null,
    due_at timestamptz not null,
    seq bigint not null,
    job_id text collate "C" not null,
    priority smallint not null,
    deliveries smallint not null,
    flags smallint not null,
    primary key (queue_id, due_at, seq)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_cost_delay = 0);

-- Concurrency keys. A job with a key passes the gate once, when it becomes due (it is scheduled for
-- at once, never made ready directly): it gets a slot of its key and is ready, or it is gated. A
-- slot is held while the job is ready or running, and goes to the next one that is gated.
create table pgcelery.keys (
    key text collate "C" primary key,
    slots integer not null,                   -- how many may be in use
    in_use integer not null default 0,
    waiting integer not null default 0        -- rows in gated
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

create table pgcelery.gated (
    key text collate "C" not null,
    priority smallint not null,
    seq bigint not null,
    job_id text collate "C" not null,
    queue_id integer not null,
    deliveries smallint not null,
    flags smallint not null,
    primary key (key, priority, seq)
);

create table pgcelery.nodes (
    job_id text collate "C" primary key,
    pending integer not null,                 -- parents that have not ended
    failed integer not null default 0         -- parents that ended otherwise than completed
) with (fillfactor = 80);

create table pgcelery.edges (
    parent text collate "C" not null,
    child text collate "C" not null,
    primary key (parent, child)
);

create table pgcelery.results (
    id text collate "C" primary key,
    state smallint not null,
    token bigint,                             -- the run that ended it
    result bytea,
    finished_at timestamptz,                  -- null while the job is not at its end
    expires_at timestamptz
) with (autovacuum_vacuum_insert_scale_factor = 0.5);
create index results_expires on pgcelery.results (expires_at) where expires_at is not null;

create table pgcelery.late (
    at timestamptz not null default now(),
    job_id text not null,
    token bigint not null,
    worker_id integer not null,
    state smallint not null,
    reason text not null,
    result_bytes integer
);

create table pgcelery.workers (
    id integer generated always as identity primary key,
    name text not null,
    host text not null,
    pid integer not null,
    queues text[] not null,
    info jsonb not null,
    started_at timestamptz not null default now(),
    beat_at timestamptz not null default now(),
    lease_until timestamptz not null
) with (fillfactor = 50);

create table pgcelery.leases (
    role text primary key,
    worker_id integer not null,
    until timestamptz not null
) with (fillfactor = 50);

create table pgcelery.cancels (
    job_id text collate "C" primary key,
    terminate boolean not null,
    signum smallint not null,
    requested_at timestamptz not null default now()
);

-- Who waits for which result. Losing these rows in a crash costs the waiter one poll interval.
create unlogged table pgcelery.waiters (
    job_id text collate "C" not null,
    channel text collate "C" not null,
    until timestamptz not null,
    primary key (job_id, channel)
);

create table pgcelery.inbox (
    worker_id integer not null,
    id bigint generated always as identity,
    body bytea not null,
    reply_to text,
    expires_at timestamptz not null,
    primary key (worker_id, id)
);

create table pgcelery.replies (
    reply_to text collate "C" not null,
    id bigint generated always as identity,
    sender text not null,
    body bytea not null,
    expires_at timestamptz not null,
    primary key (reply_to, id)
);

-- install functions/enqueue_v1.sql
-- install functions/advance_v1.sql
-- install functions/step_v1.sql
-- install functions/reschedule_v1.sql
-- install functions/beat_v1.sql
-- install functions/cancel_v1.sql
-- install functions/maintain_v1.sql
-- install functions/put_result_v1.sql
-- install functions/broadcast_v1.sql
-- install functions/purge_v1.sql
