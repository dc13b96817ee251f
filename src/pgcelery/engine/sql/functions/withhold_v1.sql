-- Give back runs that may not begin yet for their worker's own rates, to the throttled places of their
-- queues, as they were: uncounted, in the order of enqueue, with the slots they hold. Claims do not look
-- there; a worker whose rate allows it draws from there (draw_v1). With them go, from the heads of these
-- queues, up to 1000 waiting jobs each of the same names: they would only be claimed to be given back,
-- and keep others from being claimed meanwhile. What is to be cancelled stays where it is soon claimed.
-- Repeating it does nothing. Returns the places that got jobs.
create function pgcelery.withhold_v1(
    tokens bigint[], queue_ids integer[], names text[]
) returns integer[]
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    heads tid[];
    from_queues integer[];
    from_names text[];
    places integer[];
    filled integer[];
begin
    heads := array(
        select r.ctid
        from unnest(queue_ids) as u(id)
        cross join lateral (select i.ctid as at, i.job_id from pgcelery.ready i
                            where i.queue_id = u.id
                            order by i.priority, i.tag, i.seq
                            limit 1000) h
        join pgcelery.jobs j on j.id = h.job_id
        join pgcelery.ready r on r.ctid = h.at
        where j.name = any (names) and r.flags & 4 = 0
        for update of r skip locked);

    select array_agg(d.queue_id), array_agg(d.name),
           array_agg(pgcelery.throttled_place_v1(d.queue_id, d.name))
    into from_queues, from_names, places
    from (select j.queue_id, j.name
          from unnest(tokens) as t(token)
          join pgcelery.running r on r.token = t.token
          join pgcelery.jobs j on j.id = r.job_id
          union
          select j.queue_id, j.name
          from unnest(heads) as h(at)
          join pgcelery.ready r on r.ctid = h.at
          join pgcelery.jobs j on j.id = r.job_id) d;

    with given as (
        delete from pgcelery.running r
        using unnest(tokens) as t(token)
        where r.token = t.token
        returning r.job_id, r.delivery - 1 as deliveries, r.flags
    ), skipped as (
        delete from pgcelery.ready r
        using unnest(heads) as h(at)
        where r.ctid = h.at
        returning r.job_id, r.deliveries, r.flags
    ), moved as (
        update pgcelery.jobs j
        set queue_id = case when exists (select from pgcelery.cancels c where c.job_id = j.id)
                            then j.queue_id else p.place end
        from (select * from given union all select * from skipped) m,
             unnest(from_queues, from_names, places) as p(queue_id, name, place)
        where j.id = m.job_id and p.queue_id = j.queue_id and p.name = j.name
        returning j.id, j.queue_id, j.priority, j.seq, m.deliveries, m.flags
    ), put as (
        insert into pgcelery.ready (queue_id, priority, seq, job_id, deliveries, flags)
        select case when m.flags & 2 = 2 then -m.queue_id else m.queue_id end,
               m.priority, m.seq, m.id, m.deliveries, m.flags
        from moved m
    )
    select array(select distinct m.queue_id from moved m) into filled;
    return filled;
end
$$;
