-- Give the slots of ended (or returned) jobs back, and hand them to who is gated, oldest first.
-- The keys are locked (lock_keys_v1). Returns the queues that got work.
create function pgcelery.release_v1(job_ids text[]) returns integer[]
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    woken integer[];
begin
    with freed as (
        select j.key, count(*)::integer as slots
        from unnest(job_ids) as u(id)
        join pgcelery.jobs j on j.id = u.id
        where j.key is not null
        group by j.key
    ), judged as (
        select f.key, f.slots as freed,
               greatest(0, least(k.waiting, k.slots - k.in_use + f.slots)) as granted
        from freed f
        join pgcelery.keys k on k.key = f.key
    ), next as (
        select w.key, w.priority, w.seq
        from judged g
        cross join lateral (
            select i.key, i.priority, i.seq
            from pgcelery.gated i
            where i.key = g.key
            order by i.priority, i.seq
            limit g.granted
        ) w
    ), gone as (
        delete from pgcelery.gated i
        using next n
        where i.key = n.key and i.priority = n.priority and i.seq = n.seq
        returning i.key, i.queue_id, i.priority, i.seq, i.job_id, i.deliveries, i.flags
    ), passed as (
        insert into pgcelery.ready (queue_id, priority, seq, job_id, deliveries, flags)
        select g.queue_id, g.priority, g.seq, g.job_id, g.deliveries, g.flags from gone g
        returning queue_id
    ), counted as (
        update pgcelery.keys k
        set in_use = k.in_use - g.freed + g.granted, waiting = k.waiting - g.granted
        from judged g
        where k.key = g.key
    )
    select array(select distinct p.queue_id from passed p) into woken;
    return woken;
end
$$;
