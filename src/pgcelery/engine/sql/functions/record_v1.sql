-- Record, in the transaction that holds what a run did, that it completed: what step_v4 does with an
-- outcome, by finish_v4, free_v1 and place_v2, but that it claims nothing and lets nobody through
-- gates: it leaves word for the next step. The lock of the running row is the fence, and but for lines
-- the first that this takes on the engine's rows; between it and the commit the client may be silent for
-- hold_ms, after which the server ends the session and with it the lock. Row 2: the token is not
-- current any more, and the caller has to roll back.
--
-- The transaction is as old as the run, and so is now(). What counts from the end of the run is moved
-- on by that: the life of its result, delays of follow-ups and of children, lives of children.
--
-- Rows returned: kind 2 late, 5 a waiter to tell (name = channel), 8 a queue that got work.
-- Promise P11 of docs/guarantees.md.
create function pgcelery.record_v1(
    run bigint, id text, result bytea, ttl_s double precision, hold_ms integer,
    f_tokens bigint[], f_ids text[], f_queue_ids integer[], f_priorities smallint[], f_names text[],
    f_payloads bytea[], f_due_ats timestamptz[], f_delays double precision[],
    f_expiries timestamptz[], f_max_deliveries smallint[], f_ttls double precision[],
    f_parents integer[], f_flags smallint[], f_rules text[], f_workflows text[],
    f_lives double precision[], f_edge_parents text[], f_edge_children text[],
    d_tokens bigint[], d_ids text[]
) returns table (kind integer, job_id text, queue_id integer, name text)
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    began record;
    f record;
    n record;
    took interval;
    woken integer[];
begin
    if current_setting('pgcelery_run.token', true) is distinct from record_v1.run::text then
        raise exception 'the transaction of a run was ended by its body'
            using errcode = '25000', hint = 'It commits with the completion of the run.';
    end if;
    perform set_config('idle_in_transaction_session_timeout', record_v1.hold_ms::text, true);

    select r.worker_id, r.flags, coalesce(w.info -> 'labels' ->> 'worker', w.name) as own,
           array(select q.id from pgcelery.queues q where q.name = any (w.queues)) as served
    into began
    from pgcelery.running r
    left join pgcelery.workers w on w.id = r.worker_id
    where r.token = record_v1.run and r.job_id = record_v1.id;
    if not found then
        return query select 2, record_v1.id, null::integer, 'reassigned'::text;
        return;
    end if;
    if began.flags & 2 = 2 then
        perform pgcelery.lock_lines_v1(pgcelery.gates_of_v1(array[record_v1.id]));
    end if;
    -- Before finish_v4, to which the same end recorded twice at once looks like a repeat.
    perform from pgcelery.running r where r.token = record_v1.run for update;
    if not found then
        return query select 2, record_v1.id, null::integer, 'reassigned'::text;
        return;
    end if;

    took := clock_timestamp() - now();
    if cardinality(f_ids) > 0 then
        f_delays := array(select u.delay_s + extract(epoch from took)
                          from unnest(f_delays) with ordinality as u(delay_s, place)
                          order by u.place);
    end if;
    select * into f
    from pgcelery.finish_v4(
        began.worker_id, array[record_v1.run], array[record_v1.id], array[10::smallint],
        array[record_v1.result], array[record_v1.ttl_s], f_tokens, f_ids, f_queue_ids, f_priorities,
        f_names, f_payloads, f_due_ats, f_delays, f_expiries, f_max_deliveries, f_ttls, f_parents,
        f_flags, f_rules, f_workflows, f_lives, f_edge_parents, f_edge_children, d_tokens, d_ids, false);
    update pgcelery.results s
    set finished_at = s.finished_at + took, expires_at = s.expires_at + took
    where s.id = record_v1.id and s.token = record_v1.run and s.state = 10;
    if not found then  -- refused, or something else was written down about the job
        return query select 2, record_v1.id, null::integer, 'reassigned'::text;
        return;
    end if;
    woken := f.woken;

    if f.parents is not null then
        select * into n from pgcelery.free_v1(f.parents, f.completed);
        if n.freed is not null then
            woken := woken || pgcelery.place_v2(n.freed, n.failed, began.own, began.served);
            with counted as (
                update pgcelery.jobs j
                set due_at = case when j.delay_s is null then j.due_at else j.due_at + took end,
                    expires_at = case when j.lives_s is null then j.expires_at
                                      else j.expires_at + took end
                where j.id = any (n.freed) and (j.delay_s is not null or j.lives_s is not null)
                returning j.queue_id, j.seq, j.due_at, j.delay_s
            )
            update pgcelery.scheduled s
            set due_at = c.due_at
            from counted c
            where c.delay_s is not null and s.queue_id = c.queue_id and s.due_at = c.due_at - took
              and s.seq = c.seq;
        end if;
    end if;
    if f.names is not null then
        woken := woken || pgcelery.reopen_v1(f.names, f.keys);
    end if;
    return query
    select 5, u.id, null::integer, u.channel
    from unnest(f.told_ids, f.told_channels) as u(id, channel)
    union all
    select distinct 8, null, u.id, null from unnest(woken) as u(id);
end
$$;
