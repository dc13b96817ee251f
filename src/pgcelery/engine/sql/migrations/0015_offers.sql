-- What workers that have nothing to do offer to run: whoever sends a plain job takes such an offer, and
-- the job is the worker's in the transaction that inserts it. Unlogged, and with no promise: what is not
-- here goes through `ready`.
create unlogged table pgcelery.offers (
    queue_id integer not null,
    token bigint not null,                    -- of the run that takes it
    worker_id integer not null,
    channel text not null,                    -- on which the worker's connection listens, and nobody else
    until timestamptz not null,               -- renewed with the lease
    primary key (queue_id, token)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_cost_delay = 0);

-- install functions/offer_v1.sql
-- install functions/hand_v1.sql
-- install functions/enqueue_one_v2.sql
-- install functions/reclaim_v3.sql
