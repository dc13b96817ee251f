-- A stream of what happens, for those who watch while it does. Nothing depends on it: a crash of the
-- server empties it, and without anyone who listens nothing is written.

create unlogged table pgcelery.events (
    id bigint generated always as identity primary key,
    at timestamptz not null default now(),
    body bytea not null                       -- a batch of them; what it says is the writer's
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_cost_delay = 0);

create unlogged table pgcelery.listeners (
    id text collate "C" primary key,
    until timestamptz not null                -- a lease, so that one that died is not written for
) with (fillfactor = 50);
