-- Record the end of runs: fenced by their tokens, with their results, their follow-up jobs and
-- the count-down at their children, in the caller's transaction. State 5 ends a run but not its job:
-- that is parked until a follow-up, now or later, goes on with its id. A token that is not current
-- any more is late: kept in `late`, returned with kind 2, and nothing of it is applied. A repeat of
-- an outcome that was recorded (the answer to it got lost) is not late and not repeated.
--
-- Rows returned: kind 2 late (name = reason), 5 a waiter to tell (name = channel),
-- 8 a queue that got work (queue_id).
create or replace function pgcelery.finish_v1(
    me integer, tokens bigint[], ids text[], states smallint[], results bytea[],
    ttls double precision[],
    f_tokens bigint[], f_ids text[], f_queue_ids integer[], f_priorities smallint[], f_names text[],
    f_payloads bytea[], f_due_ats timestamptz[], f_delays double precision[],
    f_expiries timestamptz[], f_max_deliveries smallint[], f_ttls double precision[],
    f_parents integer[], f_flags smallint[], f_keys text[], f_key_limits integer[],
    f_edge_parents text[], f_edge_children text[]
) returns table (kind integer, job_id text, queue_id integer, name text)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    ended bigint[];
    with_children text[];
    completed boolean[];
    with_keys text[];
begin
    with given as (
        select * from unnest(tokens, ids, states, results, ttls) as g(token, id, state, result, ttl_s)
    ), gone as (
        delete from pgcelery.running r
        using given g
        where r.token = g.token
        returning g.token, g.id, g.state, g.result, g.ttl_s, r.flags
    ), stored as (
        insert into pgcelery.results as s (id, state, token, result, finished_at, expires_at)
        select g.id, g.state, g.token, g.result, now(), now() + make_interval(secs => coalesce(
                   g.ttl_s, (select j.ttl_s from pgcelery.jobs j where j.id = g.id)))
        from gone g
        where g.state >= 10
        on conflict (id) do update
        set state = excluded.state, token = excluded.token,
            result = coalesce(excluded.result, s.result),
            finished_at = excluded.finished_at, expires_at = excluded.expires_at
        where s.finished_at is null
    ), parked as (
        update pgcelery.jobs j
        set parked = true, last_token = g.token
        from gone g
        where g.state = 5 and j.id = g.id
    )
    select coalesce(array_agg(g.token), '{}'),
           array_agg(g.id) filter (where g.flags & 1 = 1 and g.state >= 10),
           array_agg(g.state = 10) filter (where g.flags & 1 = 1 and g.state >= 10),
           array_agg(g.id) filter (where g.flags & 2 = 2)
    into ended, with_children, completed, with_keys
    from gone g;

    if cardinality(ended) < cardinality(tokens) then
        return query
        with refused as (
            insert into pgcelery.late (job_id, token, worker_id, state, reason, result_bytes)
            select g.id, g.token, me, g.state,
                   case when s.finished_at is not null then 'already finished' else 'reassigned' end,
                   octet_length(g.result)
            from unnest(tokens, ids, states, results) as g(token, id, state, result)
            left join pgcelery.results s on s.id = g.id
            where g.token <> all (ended)
              and s.token is distinct from g.token
              and not exists (select from pgcelery.jobs j
                              where j.id = g.id and j.last_token = g.token)
            returning late.job_id, late.reason
        )
        select 2, r.job_id, null::integer, r.reason from refused r;
    end if;

    if with_keys is not null then
        return query
        select 8, null::text, w.queue_id, null::text
        from unnest(pgcelery.release_v1(with_keys)) as w(queue_id);
    end if;

    if cardinality(f_ids) > 0 then
        if cardinality(ended) < cardinality(tokens) then
            -- Only the follow-ups of accepted runs: filter the columns alike.
            select array_agg(f.id), array_agg(f.queue_id), array_agg(f.priority),
                   array_agg(f.name), array_agg(f.payload), array_agg(f.due_at),
                   array_agg(f.delay_s), array_agg(f.expires_at), array_agg(f.max_deliveries),
                   array_agg(f.ttl_s), array_agg(f.parents), array_agg(f.flags), array_agg(f.key),
                   array_agg(f.key_limit)
            into f_ids, f_queue_ids, f_priorities, f_names, f_payloads, f_due_ats, f_delays,
                 f_expiries, f_max_deliveries, f_ttls, f_parents, f_flags, f_keys, f_key_limits
            from unnest(f_tokens, f_ids, f_queue_ids, f_priorities, f_names, f_payloads, f_due_ats,
                        f_delays, f_expiries, f_max_deliveries, f_ttls, f_parents, f_flags, f_keys,
                        f_key_limits)
                as f(token, id, queue_id, priority, name, payload, due_at, delay_s, expires_at,
                     max_deliveries, ttl_s, parents, flags, key, key_limit)
            where f.token = any (ended);
        end if;
        if f_ids is not null then
            perform pgcelery.enqueue_v1(
                f_ids, f_queue_ids, f_priorities, f_names, f_payloads, f_due_ats, f_delays,
                f_expiries, f_max_deliveries, f_ttls, f_parents, f_flags, f_keys,
                f_key_limits, f_edge_parents, f_edge_children);
            return query
            select distinct 8, null::text, q.id, null::text from unnest(f_queue_ids) as q(id);
        end if;
    end if;

    -- After the follow-ups: those may join beside what ends here.
    if with_children is not null then
        return query
        select 8, null::text, w.queue_id, null::text
        from unnest(pgcelery.advance_v1(with_children, completed)) as w(queue_id);
    end if;

    if exists (select from pgcelery.waiters) then
        return query
        with told as (
            delete from pgcelery.waiters w
            using unnest(ids, states) as d(id, state)
            where w.job_id = d.id and d.state >= 10
            returning w.job_id, w.channel
        )
        select 5, t.job_id, null::integer, t.channel from told t;
    end if;

    if exists (select from pgcelery.cancels) then
        delete from pgcelery.cancels c
        using unnest(ids, states) as d(id, state)
        where c.job_id = d.id and d.state >= 10;
    end if;
end
$$;
