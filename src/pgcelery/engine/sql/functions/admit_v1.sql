-- Let due jobs through the gates of their keys: while a key has free slots its jobs become ready,
-- oldest first, the rest is gated. The newest job of a key says how many slots it has. The keys are
-- locked (lock_keys_v1).
create function pgcelery.admit_v1(job_ids text[], deliveries smallint[], flags smallint[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
begin
    with comers as (
        select j.key, j.id, j.queue_id, j.priority, j.seq, j.key_limit, u.deliveries, u.flags,
               row_number() over (partition by j.key order by j.priority, j.seq) as place,
               first_value(j.key_limit) over (partition by j.key order by j.seq desc) as slots
        from unnest(job_ids, deliveries, flags) as u(id, deliveries, flags)
        join pgcelery.jobs j on j.id = u.id
    ), totals as (
        select c.key, max(c.slots) as slots, count(*)::integer as comers from comers c group by c.key
    ), judged as (
        select t.key, t.slots, t.comers,
               -- Those that waited before go first.
               case when k.waiting > 0 then 0
                    else greatest(0, least(t.comers, t.slots - k.in_use)) end as granted
        from totals t
        join pgcelery.keys k on k.key = t.key
    ), counted as (
        update pgcelery.keys k
        set slots = g.slots, in_use = k.in_use + g.granted,
            waiting = k.waiting + g.comers - g.granted
        from judged g
        where k.key = g.key
    ), passed as (
        insert into pgcelery.ready (queue_id, priority, seq, job_id, deliveries, flags)
        select c.queue_id, c.priority, c.seq, c.id, c.deliveries, c.flags
        from comers c
        join judged g on g.key = c.key
        where c.place <= g.granted
    )
    insert into pgcelery.gated (key, priority, seq, job_id, queue_id, deliveries, flags)
    select c.key, c.priority, c.seq, c.id, c.queue_id, c.deliveries, c.flags
    from comers c
    join judged g on g.key = c.key
    where c.place > g.granted;
end
$$;
