-- Count ended jobs down at their children; a child with no parent left becomes ready, flagged when
-- a parent did not complete. Part of the transaction that ends the parents. Returns the queues that
-- got work. Children are locked in id order, so that two batches cannot deadlock. A child that is a
-- latch has no job: what waits for it is counted down in turn, and hears of what joined it.
create or replace function pgcelery.advance_v1(parent_ids text[], completed boolean[])
returns integer[]
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    freed text[];
    bad boolean[];
    woken integer[];
    latches text[];
    whole boolean[];
begin
    with gone as (
        delete from pgcelery.edges e
        using unnest(parent_ids, completed) as p(id, ok)
        where e.parent = p.id
        returning e.child, p.ok
    ), arrivals as (
        select g.child, count(*)::integer as arrived,
               (count(*) filter (where not g.ok))::integer as bad
        from gone g
        group by g.child
    ), locked as (
        select n.job_id, a.arrived, a.bad
        from arrivals a
        join pgcelery.nodes n on n.job_id = a.child
        order by n.job_id
        for update of n
    ), counted as (
        update pgcelery.nodes n
        set pending = n.pending - l.arrived, failed = n.failed + l.bad
        from locked l
        where n.job_id = l.job_id
        returning n.job_id, n.pending, n.failed
    )
    select array_agg(c.job_id), array_agg(c.failed > 0) into freed, bad
    from counted c
    where c.pending = 0;

    if freed is null then
        return '{}';
    end if;
    with gone as (
        delete from pgcelery.nodes n where n.job_id = any (freed) returning n.job_id, n.joined
    ), kept as (
        update pgcelery.jobs j
        set joined = g.joined
        from gone g
        where g.joined is not null and j.id = g.job_id
        returning j.id
    ), opened as (
        select g.job_id, g.joined from gone g
        where g.joined is not null and g.job_id not in (select k.id from kept k)
    ), told as (
        update pgcelery.nodes n
        set joined = n.joined || o.joined
        from opened o
        join pgcelery.edges e on e.parent = o.job_id
        where n.job_id = e.child and cardinality(o.joined) > 0
    )
    select array_agg(o.job_id), array_agg(not f.bad)
    into latches, whole
    from opened o
    join unnest(freed, bad) as f(id, bad) on f.id = o.job_id;
    update pgcelery.jobs j
    set due_at = now() + make_interval(secs => coalesce(j.delay_s, 0))
    where j.id = any (freed) and (j.delay_s is not null or (j.key is not null and j.due_at is null));

    with free as (
        select j.queue_id, j.due_at, j.seq, j.id, j.priority,
               (j.flags | case when f.bad then 4 else 0 end)::smallint as flags
        from unnest(freed, bad) as f(id, bad)
        join pgcelery.jobs j on j.id = f.id
    ), due as (
        insert into pgcelery.scheduled (queue_id, due_at, seq, job_id, priority, deliveries, flags)
        select f.queue_id, f.due_at, f.seq, f.id, f.priority, 0, f.flags
        from free f
        where f.due_at > now() or f.flags & 2 = 2
    ), made as (
        insert into pgcelery.ready (queue_id, priority, seq, job_id, deliveries, flags)
        select f.queue_id, f.priority, f.seq, f.id, 0, f.flags
        from free f
        where f.flags & 2 = 0 and (f.due_at is null or f.due_at <= now())
    )
    select array(select distinct f.queue_id from free f) into woken;
    if latches is not null then
        woken := woken || pgcelery.advance_v1(latches, whole);
    end if;
    return woken;
end
$$;
