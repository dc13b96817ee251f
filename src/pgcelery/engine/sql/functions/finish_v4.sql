-- Record the end of runs: fenced by their tokens, with their results and their follow-up jobs, in the
-- caller's transaction, which has to count them down at their children (free_v1 with what `parents`
-- and `completed` say) and to look at the lines whose slots are given back (`names`, `keys`), which it
-- has locked. With `own_slots` the caller, who knows which slots they are, gives back those of the runs
-- that have `ended`. State 5 ends a run but not its job: that is parked until a follow-up, now or later, goes
-- on with its id. A token that is not current any more is late: kept in `late`, and
-- nothing of it is applied, and a wish to cancel the run that is current stays. A repeat of an outcome that was recorded (the answer to it got lost) is
-- not late and not repeated. Follow-ups join the workflow of the run that made them. Drops are jobs
-- that wait, downstream of the run in its workflow: they are gone, as if never sent, before the follow-ups come;
-- who waits for one that no follow-up brings back hears that it failed.
-- Promise P7 of docs/guarantees.md.
create function pgcelery.finish_v4(
    me integer, tokens bigint[], ids text[], states smallint[], results bytea[],
    ttls double precision[],
    f_tokens bigint[], f_ids text[], f_queue_ids integer[], f_priorities smallint[], f_names text[],
    f_payloads bytea[], f_due_ats timestamptz[], f_delays double precision[],
    f_expiries timestamptz[], f_max_deliveries smallint[], f_ttls double precision[],
    f_parents integer[], f_flags smallint[], f_rules text[],
    f_workflows text[], f_lives double precision[], f_edge_parents text[], f_edge_children text[],
    d_tokens bigint[], d_ids text[], own_slots boolean,
    out ended bigint[], out parents text[], out completed boolean[], out names text[], out keys text[],
    out late_ids text[], out late_reasons text[], out woken integer[], out told_ids text[], out told_channels text[]
)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    gated text[];
    dropped text[];
begin
    with given as (
        select * from unnest(tokens, ids, states, results, ttls) as g(token, id, state, result, ttl_s)
    ), gone as (
        delete from pgcelery.running r
        using given g
        where r.token = g.token and r.job_id = g.id  -- a restored server gives tokens twice
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
    into ended, parents, completed, gated
    from gone g;
    if gated is not null and not own_slots then  -- before a follow-up with its id has other gates
        select r.names, r.keys into names, keys from pgcelery.release_v2(gated) r;
    end if;

    if cardinality(ended) < cardinality(tokens) then
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
        select array_agg(r.job_id), array_agg(r.reason) into late_ids, late_reasons from refused r;
    end if;

    if cardinality(d_ids) > 0 then
        with gone as (
            delete from pgcelery.nodes n
            using unnest(d_tokens, d_ids) as d(token, id)
            where n.job_id = d.id and d.token = any (ended)
            returning n.job_id
        ), unhung as (
            delete from pgcelery.edges e
            using gone g
            where e.child = g.job_id and e.parent = any (ids || d_ids)
        ), forgotten as (
            delete from pgcelery.jobs j using gone g where j.id = g.job_id
        )
        select array_agg(g.job_id) into dropped from gone g;
    end if;

    if cardinality(f_ids) > 0 then
        -- Only the follow-ups of accepted runs, in their workflow.
        select array_agg(f.id order by f.place), array_agg(f.queue_id order by f.place),
               array_agg(f.priority order by f.place), array_agg(f.name order by f.place),
               array_agg(f.payload order by f.place), array_agg(f.due_at order by f.place),
               array_agg(f.delay_s order by f.place), array_agg(f.expires_at order by f.place),
               array_agg(f.max_deliveries order by f.place), array_agg(f.ttl_s order by f.place),
               array_agg(f.parents order by f.place), array_agg(f.flags order by f.place),
               array_agg(f.rule order by f.place),
               array_agg(coalesce(f.workflow, j.workflow, g.id) order by f.place),
               array_agg(f.lives_s order by f.place)
        into f_ids, f_queue_ids, f_priorities, f_names, f_payloads, f_due_ats, f_delays,
             f_expiries, f_max_deliveries, f_ttls, f_parents, f_flags, f_rules,
             f_workflows, f_lives
        from unnest(f_tokens, f_ids, f_queue_ids, f_priorities, f_names, f_payloads, f_due_ats,
                    f_delays, f_expiries, f_max_deliveries, f_ttls, f_parents, f_flags, f_rules,
                    f_workflows, f_lives)
            with ordinality
            as f(token, id, queue_id, priority, name, payload, due_at, delay_s, expires_at,
                 max_deliveries, ttl_s, parents, flags, rule, workflow, lives_s, place)
        join unnest(tokens, ids) as g(token, id) on g.token = f.token
        left join pgcelery.jobs j on j.id = g.id
        where f.token = any (ended);
        if f_ids is not null then
            perform pgcelery.enqueue_v4(
                f_ids, f_queue_ids, f_priorities, f_names, f_payloads, f_due_ats, f_delays,
                f_expiries, f_max_deliveries, f_ttls, f_parents, f_flags, f_rules,
                f_workflows, f_lives, f_edge_parents, f_edge_children);
            woken := woken || f_queue_ids;
        end if;
    end if;

    if dropped is not null then
        select parents || array_agg(d.id), completed || array_agg(false)
        into parents, completed
        from unnest(dropped) as d(id)
        where not exists (select from pgcelery.jobs j where j.id = d.id);
    end if;

    if exists (select from pgcelery.waiters) then
        with told as (
            delete from pgcelery.waiters w
            using unnest(ids, states) as d(id, state)
            where w.job_id = d.id and d.state >= 10
            returning w.job_id, w.channel
        )
        select array_agg(t.job_id), array_agg(t.channel) into told_ids, told_channels from told t;
    end if;

    if exists (select from pgcelery.cancels) then
        delete from pgcelery.cancels c
        using unnest(tokens, ids, states) as d(token, id, state)
        where c.job_id = d.id and d.state >= 10 and d.token = any (ended);
    end if;
end
$$;
