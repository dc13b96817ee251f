-- Limits. A job with gates waits in `gated`, in one line at a time, and is let through when every gate
-- it must pass is open at the same moment: it then holds a slot of each line that counts slots, until
-- its run ends, and has taken its units of each rate. Claims read `ready` and know nothing of this.
--
-- Whoever enqueues takes no lock of a line: it puts the job into `gated` and says so in `comers`.
-- Lines are locked, in one order, by what lets through: a node's step, a cancel, upkeep.

create type pgcelery.gate as (
    name text,
    key text,
    slots integer,                            -- how many may hold one; null without end
    weight real,
    strategy smallint,                        -- engine/job.Strategy
    rate integer,                             -- units in period_s; null counts slots
    period_s double precision,
    burst integer,
    fixed boolean,
    units integer                             -- what the job takes of a rate
);

alter table pgcelery.jobs add column gates pgcelery.gate[];
alter type pgcelery.sending add attribute gates pgcelery.gate[];
alter type pgcelery.sending add attribute sticky smallint;

-- A line that somebody waits in, holds a slot of, or has lately taken units of.
create table pgcelery.lines (
    name text collate "C" not null,
    key text collate "C" not null,
    own pgcelery.gate not null,               -- what the newest job says of it
    slots integer,                            -- what holds: that, or what `limits` says
    weight real not null,
    strategy smallint not null,
    rate integer,
    period_s double precision not null,
    burst integer not null,
    fixed boolean not null,
    in_use integer not null default 0,
    tag bigint not null default 0,            -- virtual time at which its next job starts,
    lane integer not null default 0,          -- by the clock of this queue's fair lane,
    level smallint not null default 0,        -- at this priority
    tat timestamptz,                          -- theoretical arrival time (GCRA), or when the window began
    used integer not null default 0,          -- units taken in a fixed window
    primary key (name, key)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

drop table pgcelery.gated;
create table pgcelery.gated (
    name text collate "C" not null,
    key text collate "C" not null,
    priority smallint not null,
    seq bigint not null,
    job_id text collate "C" not null,
    queue_id integer not null,
    deliveries smallint not null,
    flags smallint not null,                  -- of the job, and 8192: this is not all that it must pass
    primary key (name, key, priority, seq)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_cost_delay = 0);

-- Lines where something has changed: whoever steps next looks whom it can let through.
create table pgcelery.comers (
    id bigint generated always as identity primary key,
    name text collate "C" not null,
    key text collate "C" not null,
    queue_id integer,
    own pgcelery.gate                         -- null: as it was
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_cost_delay = 0);

-- Lines with a rate: when the next one of a queue may start. Not before a worker has room for it.
create table pgcelery.timers (
    queue_id integer not null,
    name text collate "C" not null,
    key text collate "C" not null,
    due_at timestamptz not null,
    primary key (queue_id, name, key)
);
create index timers_due on pgcelery.timers (queue_id, due_at);

-- Limits as set at run time. They overrule what jobs say; `key` null: of every line of the name.
create table pgcelery.limits (
    name text collate "C" not null,
    key text collate "C",
    slots integer,
    weight real,
    rate integer,
    period_s double precision,
    burst integer,
    set_at timestamptz not null default now()
);
create unique index limits_line on pgcelery.limits (name, key) where key is not null;
create unique index limits_name on pgcelery.limits (name) where key is null;

-- Virtual time of a queue's fair lane, for when nothing is ready in it.
create table pgcelery.lanes (
    queue_id integer primary key,
    tag bigint not null
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- Jobs that wait for a time and are replaced by the next one of their line.
create table pgcelery.delayed (
    name text collate "C" not null,
    key text collate "C" not null,
    job_id text collate "C" not null,
    primary key (name, key)
);

-- Jobs that stand for all that are like them; over by what `mode` says or at `until`.
create table pgcelery.uniques (
    key text collate "C" primary key,
    job_id text collate "C" not null,
    mode smallint not null,                   -- 0 until it has ended, 1 until it is claimed, 2 by time
    until timestamptz
) with (fillfactor = 80);

-- Queues by what is asked of the worker: `wants` is what engine/placement encodes. Ids are those of queues.
create table pgcelery.places (
    id integer primary key default nextval('pgcelery.queues_id_seq'),
    queue_id integer not null,
    wants text collate "C" not null,
    own text collate "C",                     -- of the worker that sticky jobs ended on; null for most
    plain integer,                            -- where those would be if they were not sticky
    unique (queue_id, wants)
);

-- Jobs that not every worker may run, and that end when none has come in time.
create index jobs_placed on pgcelery.jobs (expires_at) where flags & 1792 > 0 and expires_at is not null;

create table pgcelery.paused (
    queue_id integer primary key,
    at timestamptz not null default now()
);

-- What a queue id stands for.
create view pgcelery.queue_names as
    select q.id, q.name, q.id as base_id, '' collate "C" as wants from pgcelery.queues q
    union all
    select p.id, q.name, q.id, p.wants
    from pgcelery.places p join pgcelery.queues q on q.id = p.queue_id;

-- A queue has two lanes in `ready`: its id, in order of enqueue, and minus its id, for what came through
-- gates, in the order of tags: start-time fair queueing between lines. Id 0: to be ended, not run.
alter table pgcelery.ready add column tag bigint not null default 0;
alter table pgcelery.ready drop constraint ready_pkey;
alter table pgcelery.ready add constraint ready_pkey primary key (queue_id, priority, tag, seq);

update pgcelery.jobs
set gates = array[row(key, '', key_limit, 1, 0, null, 1, 1, false, 1)::pgcelery.gate]
where key is not null;
insert into pgcelery.gated (name, key, priority, seq, job_id, queue_id, deliveries, flags)
select j.key, '', j.priority, j.seq, j.id, j.queue_id, 0, j.flags & 3
from pgcelery.jobs j
where j.key is not null
  and not exists (select from pgcelery.results s where s.id = j.id and s.finished_at is not null)
  and not exists (select from pgcelery.running r where r.job_id = j.id)
  and not exists (select from pgcelery.nodes n where n.job_id = j.id)
  and not exists (select from pgcelery.scheduled s
                  where s.queue_id = j.queue_id and s.due_at = j.due_at and s.seq = j.seq)
  and not exists (select from pgcelery.ready r
                  where r.queue_id = j.queue_id and r.priority = j.priority and r.seq = j.seq);
insert into pgcelery.lines (name, key, own, slots, weight, strategy, rate, period_s, burst, fixed, in_use)
select k.key, '', row(k.key, '', k.slots, 1, 0, null, 1, 1, false, 1)::pgcelery.gate, k.slots,
       1, 0, null, 1, 1, false, k.in_use
from pgcelery.keys k;
insert into pgcelery.comers (name, key) select k.key, '' from pgcelery.keys k;

drop function if exists pgcelery.lock_keys_v1(text[]);
drop function if exists pgcelery.admit_v1(text[], smallint[], smallint[]);
drop function if exists pgcelery.release_v1(text[]);
drop function if exists pgcelery.place_v1(text[], boolean[]);
drop function if exists pgcelery.finish_v2;
drop table pgcelery.keys;
alter table pgcelery.jobs drop column key, drop column key_limit;
alter type pgcelery.sending drop attribute key;
alter type pgcelery.sending drop attribute key_limit;

-- install functions/gates_v1.sql
-- install functions/in_force_v1.sql
-- install functions/lock_lines_v1.sql
-- install functions/lane_tag_v1.sql
-- install functions/strike_v1.sql
-- install functions/opens_v1.sql
-- install functions/pass_v1.sql
-- install functions/admit_v2.sql
-- install functions/come_v1.sql
-- install functions/settle_v1.sql
-- install functions/release_v2.sql
-- install functions/stand_for_v1.sql
-- install functions/replace_delayed_v1.sql
-- install functions/reopen_v1.sql
-- install functions/gates_of_v1.sql
-- install functions/enqueue_v3.sql
-- install functions/enqueue_v2.sql
-- install functions/own_place_v1.sql
-- install functions/place_v2.sql
-- install functions/advance_v1.sql
-- install functions/finish_v3.sql
-- install functions/neglected_v1.sql
-- install functions/take_v1.sql
-- install functions/take_turns_v1.sql
-- install functions/claim_v1.sql
-- install functions/step_v3.sql
-- install functions/step_v2.sql
-- install functions/reschedule_v1.sql
-- install functions/reclaim_v1.sql
-- install functions/beat_v2.sql
-- install functions/beat_v1.sql
-- install functions/at_large_v1.sql
-- install functions/cancel_v1.sql
-- install functions/maintain_v1.sql
-- install functions/purge_v1.sql
-- install functions/replay_v1.sql
-- install functions/set_limit_v1.sql
-- install functions/why_line_v1.sql
-- install functions/why_parents_v1.sql
-- install functions/why_queue_v1.sql
-- install functions/why_v1.sql
