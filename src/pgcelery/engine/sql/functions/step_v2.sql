-- One round trip of a node, one transaction: record what ended (finish_v2), hand it the children that
-- are free now, make due what is due in its queues, and claim up to `want` jobs for it in all. Freed
-- children come before what waits in the queues: a workflow that runs is finished before others
-- begin. Plans are pinned: with stale statistics the planner would hash-join the payloads or sort the
-- backlog, and a claim would grow with its depth.
--
-- Rows returned: kind 0 a claim (fed_by: the one parent, that ended here), 2 late (name = reason),
-- 4 when fewer were found than wanted and something is scheduled (token = ms until then), 5 a waiter
-- to tell (name = channel), 8 a queue that got work, 9 when this worker is not known any more.
-- flags of a claim: 1 others wait for it, 2 it holds a slot, 4 a parent did not complete, 8 cancelled, 16 expired.
create function pgcelery.step_v2(
    me integer, want integer, queue_ids integer[],
    tokens bigint[], ids text[], states smallint[], results bytea[], ttls double precision[],
    f_tokens bigint[], f_ids text[], f_queue_ids integer[], f_priorities smallint[], f_names text[],
    f_payloads bytea[], f_due_ats timestamptz[], f_delays double precision[],
    f_expiries timestamptz[], f_max_deliveries smallint[], f_ttls double precision[],
    f_parents integer[], f_flags smallint[], f_keys text[], f_key_limits integer[],
    f_workflows text[], f_lives double precision[], f_edge_parents text[], f_edge_children text[],
    d_tokens bigint[], d_ids text[]
) returns table (kind integer, job_id text, token bigint, queue_id integer, name text,
                 payload bytea, priority integer, delivery integer, flags integer, fed_by text)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    q integer;
    got integer;
    remaining integer := want;
    f record;
    n record;
    next_due timestamptz;
    keyed text[];
    comers text[];
    comer_deliveries smallint[];
    comer_flags smallint[];
    others text[];
    others_failed boolean[];
begin
    if want > 0 then
        select min(d.due_at) into next_due
        from unnest(queue_ids) as u(id),
             lateral (select s.due_at from pgcelery.scheduled s
                      where s.queue_id = u.id order by s.due_at limit 1) d;
    end if;
    -- All keys that this step will touch are locked first, in one order.
    if cardinality(tokens) > 0 and exists (select from pgcelery.keys) then
        keyed := array(select r.job_id from unnest(tokens) as t(token)
                       join pgcelery.running r on r.token = t.token
                       where r.flags & 2 = 2);
    end if;
    if next_due <= now() then
        comers := array(
            select s.job_id
            from pgcelery.scheduled s
            where s.queue_id = any (queue_ids) and s.due_at <= now() and s.flags & 2 = 2
            limit 1000
            for update skip locked);
    end if;
    if cardinality(keyed) > 0 or cardinality(comers) > 0 then
        perform pgcelery.lock_keys_v1(coalesce(keyed, '{}') || coalesce(comers, '{}'));
    end if;
    if want > 0 and not exists (select from pgcelery.workers w where w.id = me) then
        remaining := 0;
        return query select 9, null::text, null::bigint, null::integer, null::text, null::bytea,
                            null::integer, null::integer, null::integer, null::text;
    end if;

    if cardinality(tokens) > 0 then
        select * into f
        from pgcelery.finish_v2(
            me, tokens, ids, states, results, ttls, f_tokens, f_ids, f_queue_ids, f_priorities,
            f_names, f_payloads, f_due_ats, f_delays, f_expiries, f_max_deliveries, f_ttls,
            f_parents, f_flags, f_keys, f_key_limits, f_workflows, f_lives, f_edge_parents,
            f_edge_children, d_tokens, d_ids);
        if f.parents is not null then
            select * into n from pgcelery.free_v1(f.parents, f.completed);
            if n.freed is not null and remaining > 0 then
                return query
                with mine as (
                    select j.id, j.queue_id, j.name, j.payload, j.priority, j.expires_at,
                           (j.flags & 3 | case when c.failed then 4 else 0 end)::smallint as flags,
                           case when j.parents = 1 then c.fed_by end as fed_by
                    from unnest(n.freed, n.failed, n.fed_by) as c(id, failed, fed_by)
                    join pgcelery.jobs j on j.id = c.id
                    where j.queue_id = any (queue_ids) and j.flags & 2 = 0 and j.delay_s is null
                      and j.lives_s is null and (j.due_at is null or j.due_at <= now())
                    order by j.priority, j.seq
                    limit remaining
                ), claimed as (
                    insert into pgcelery.running as c (token, job_id, worker_id, queue_id, delivery, flags)
                    select nextval('pgcelery.tokens'), m.id, me, m.queue_id, 1, m.flags
                    from mine m
                    returning c.token, c.job_id
                )
                select 0, m.id, c.token, m.queue_id, m.name, m.payload, m.priority::integer, 1,
                       m.flags
                       | case when exists (select from pgcelery.cancels x where x.job_id = m.id)
                              then 8 else 0 end
                       | case when m.expires_at <= now() then 16 else 0 end,
                       m.fed_by
                from mine m
                join claimed c on c.job_id = m.id;
                get diagnostics got = row_count;
                remaining := remaining - got;
                if got < cardinality(n.freed) then
                    select array_agg(c.id), array_agg(c.failed) into others, others_failed
                    from unnest(n.freed, n.failed) as c(id, failed)
                    where c.id not in (select r.job_id from pgcelery.running r where r.worker_id = me);
                end if;
            else
                others := n.freed;
                others_failed := n.failed;
            end if;
            if others is not null then
                f.woken := f.woken || pgcelery.place_v1(others, others_failed);
            end if;
        end if;
        if f.late_ids is not null or f.told_ids is not null or f.woken is not null then
            return query
            select 2, u.id, null::bigint, null::integer, u.reason, null::bytea, null::integer,
                   null::integer, null::integer, null::text
            from unnest(f.late_ids, f.late_reasons) as u(id, reason)
            union all
            select 5, u.id, null, null, u.channel, null, null, null, null, null
            from unnest(f.told_ids, f.told_channels) as u(id, channel)
            union all
            select distinct 8, null, null::bigint, u.id, null, null::bytea, null::integer,
                   null::integer, null::integer, null
            from unnest(f.woken) as u(id);
        end if;
    end if;

    if remaining <= 0 then
        return;
    end if;
    if next_due <= now() then
        with due as (
            select s.queue_id, s.due_at, s.seq
            from pgcelery.scheduled s
            where s.queue_id = any (queue_ids) and s.due_at <= now()
              and (s.flags & 2 = 0 or s.job_id = any (comers))
            limit 1000
            for update skip locked
        ), gone as (
            delete from pgcelery.scheduled s
            using due d
            where s.queue_id = d.queue_id and s.due_at = d.due_at and s.seq = d.seq
            returning s.queue_id, s.priority, s.seq, s.job_id, s.deliveries, s.flags
        ), passed as (
            insert into pgcelery.ready (queue_id, priority, seq, job_id, deliveries, flags)
            select g.queue_id, g.priority, g.seq, g.job_id, g.deliveries, g.flags
            from gone g
            where g.flags & 2 = 0
        )
        select array_agg(g.job_id), array_agg(g.deliveries), array_agg(g.flags)
        into comers, comer_deliveries, comer_flags
        from gone g
        where g.flags & 2 = 2;
        if comers is not null then
            perform pgcelery.admit_v1(comers, comer_deliveries, comer_flags);
        end if;
        select min(d.due_at) into next_due
        from unnest(queue_ids) as u(id),
             lateral (select s.due_at from pgcelery.scheduled s
                      where s.queue_id = u.id order by s.due_at limit 1) d;
    end if;

    foreach q in array queue_ids loop
        continue when not exists (select from pgcelery.ready r where r.queue_id = q);
        return query
        with picked as (
            select r.ctid as at
            from pgcelery.ready r
            where r.queue_id = q
            order by r.priority, r.seq
            limit remaining
            for update skip locked
        ), gone as (
            delete from pgcelery.ready r
            using picked p
            where r.ctid = p.at
            returning r.job_id, r.deliveries, r.flags
        ), claimed as (
            insert into pgcelery.running as c (token, job_id, worker_id, queue_id, delivery, flags)
            select nextval('pgcelery.tokens'), g.job_id, me, q, g.deliveries + 1, g.flags
            from gone g
            returning c.token, c.job_id, c.delivery, c.flags
        )
        select 0, j.id, c.token, q, j.name, j.payload, j.priority::integer, c.delivery::integer,
               c.flags
               | case when exists (select from pgcelery.cancels x where x.job_id = c.job_id)
                      then 8 else 0 end
               | case when j.expires_at <= now() then 16 else 0 end,
               null::text
        from claimed c
        join pgcelery.jobs j on j.id = c.job_id;
        get diagnostics got = row_count;
        remaining := remaining - got;
        exit when remaining <= 0;
    end loop;

    if remaining > 0 and next_due is not null then
        return query
        select 4, null::text, greatest(0, ceil(extract(epoch from next_due - now()) * 1000))::bigint,
               null::integer, null::text, null::bytea, null::integer, null::integer,
               null::integer, null::text;
    end if;
end
$$;
