-- What the model test of the engine found. An id may come twice in one call; a late outcome leaves the
-- wish to cancel the run that is current; upkeep keeps wishes about what has not ended; runs given to a
-- worker to be ended do not go back as if they had not begun; what joins a job that waits counts once,
-- and keeps that from being handed on as if it had one parent; a purge ends what waited for the purged;
-- whoever waits at a limit behind a job that is just cancelled is looked at.
-- Besides, what makes it cheap to send, claim and record jobs one by one, and many with keys.

-- install functions/join_v2.sql
-- install functions/enqueue_v4.sql
-- install functions/enqueue_one_v1.sql
-- install functions/finish_v4.sql
-- install functions/lock_lines_v2.sql
-- install functions/admit_v3.sql
-- install functions/watch_front_v1.sql
-- install functions/take_past_v1.sql
-- install functions/take_one_v1.sql
-- install functions/step_v4.sql
-- install functions/serve_v1.sql
-- install functions/reclaim_v2.sql
-- install functions/purge_v2.sql

-- Older workers and producers, and functions that are as they were, call these under their old names.
create or replace function pgcelery.enqueue_v3(
    ids text[], queue_ids integer[], priorities smallint[], names text[], payloads bytea[],
    due_ats timestamptz[], delays double precision[], expiries timestamptz[],
    max_deliveries smallint[], ttls double precision[], parents integer[], flags smallint[],
    rules text[], workflows text[], lives double precision[],
    edge_parents text[], edge_children text[],
    out existing text[], out holders text[]
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    select v.existing, v.holders into existing, holders
    from pgcelery.enqueue_v4(
        ids, queue_ids, priorities, names, payloads, due_ats, delays, expiries, max_deliveries,
        ttls, parents, flags, rules, workflows, lives, edge_parents, edge_children) v;
end
$$;

create or replace function pgcelery.finish_v3(
    me integer, tokens bigint[], ids text[], states smallint[], results bytea[],
    ttls double precision[],
    f_tokens bigint[], f_ids text[], f_queue_ids integer[], f_priorities smallint[], f_names text[],
    f_payloads bytea[], f_due_ats timestamptz[], f_delays double precision[],
    f_expiries timestamptz[], f_max_deliveries smallint[], f_ttls double precision[],
    f_parents integer[], f_flags smallint[], f_rules text[],
    f_workflows text[], f_lives double precision[], f_edge_parents text[], f_edge_children text[],
    d_tokens bigint[], d_ids text[],
    out parents text[], out completed boolean[], out names text[], out keys text[],
    out late_ids text[], out late_reasons text[], out woken integer[], out told_ids text[], out told_channels text[]
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    select v.parents, v.completed, v.names, v.keys, v.late_ids, v.late_reasons, v.woken, v.told_ids,
           v.told_channels
    into parents, completed, names, keys, late_ids, late_reasons, woken, told_ids, told_channels
    from pgcelery.finish_v4(
        me, tokens, ids, states, results, ttls, f_tokens, f_ids, f_queue_ids, f_priorities, f_names,
        f_payloads, f_due_ats, f_delays, f_expiries, f_max_deliveries, f_ttls, f_parents, f_flags,
        f_rules, f_workflows, f_lives, f_edge_parents, f_edge_children, d_tokens, d_ids, false) v;
end
$$;

create or replace function pgcelery.join_v1(parents text[], places text[]) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform pgcelery.join_v2(parents, places);
end
$$;

create or replace function pgcelery.reclaim_v1(me integer, known bigint[]) returns integer[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    return pgcelery.reclaim_v2(me, known);
end
$$;

create or replace function pgcelery.purge_v1(queues integer[]) returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    return pgcelery.purge_v2(queues);
end
$$;

create or replace function pgcelery.maintain_v1(
    me integer, lease_s double precision, prune_batch integer
) returns table (kind integer, job_id text, token bigint, queue_id integer, name text,
                 payload bytea, priority integer, delivery integer, flags integer)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    return query
    select v.kind, v.job_id, v.token, v.queue_id, v.name, v.payload, v.priority, v.delivery, v.flags
    from pgcelery.maintain_v2(me, lease_s, prune_batch) v;
end
$$;
