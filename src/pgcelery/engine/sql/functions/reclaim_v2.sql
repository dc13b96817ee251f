-- After a reconnect: runs that were claimed for this worker in an answer that never came. They did not
-- begin, so they go back as they were; what they had of gates they must pass for again. What upkeep had
-- given it to end (flag 32) did begin once: the next upkeep gives that to somebody again.
-- Promise P10 of docs/guarantees.md.
create function pgcelery.reclaim_v2(me integer, known bigint[]) returns integer[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    gated text[];
    freed record;
begin
    update pgcelery.running r
    set worker_id = 0
    where r.worker_id = me and r.token <> all (known) and r.flags & 32 = 32;
    gated := array(select r.job_id from pgcelery.running r
                   where r.worker_id = me and r.token <> all (known) and r.flags & 2 = 2);
    if cardinality(gated) > 0 then
        perform pgcelery.lock_lines_v1(pgcelery.gates_of_v1(gated));
    end if;
    with lost as (
        delete from pgcelery.running r
        where r.worker_id = me and r.token <> all (known)
          and (r.flags & 2 = 0 or r.job_id = any (gated))
        returning r.job_id, r.delivery, r.flags
    ), plain as (
        insert into pgcelery.ready (queue_id, priority, seq, job_id, deliveries, flags)
        select j.queue_id, j.priority, j.seq, j.id, l.delivery - 1, l.flags
        from lost l
        join pgcelery.jobs j on j.id = l.job_id
        where l.flags & 2 = 0
    )
    select array_agg(l.job_id) as ids, array_agg((l.delivery - 1)::smallint) as deliveries,
           array_agg(l.flags) as flags
    into freed
    from lost l
    where l.flags & 2 = 2;
    if freed.ids is null then
        return '{}'::integer[];
    end if;
    perform pgcelery.release_v2(freed.ids);
    return pgcelery.come_v1(freed.ids, freed.deliveries, freed.flags);
end
$$;
