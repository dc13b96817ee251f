-- Give freed jobs their place: ready, or scheduled when they have a delay, a later time or a key.
-- Their delays and lives count from now. Returns the queues that got work.
create function pgcelery.place_v1(freed text[], failed boolean[]) returns integer[]
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    woken integer[];
begin
    update pgcelery.jobs j
    set due_at = case when j.delay_s is not null or j.key is not null and j.due_at is null
                      then now() + make_interval(secs => coalesce(j.delay_s, 0)) else j.due_at end,
        expires_at = coalesce(now() + make_interval(secs => j.lives_s), j.expires_at)
    where j.id = any (freed)
      and (j.delay_s is not null or j.lives_s is not null or (j.key is not null and j.due_at is null));

    with free as (
        select j.queue_id, j.due_at, j.seq, j.id, j.priority,
               (j.flags & 3 | case when f.bad then 4 else 0 end)::smallint as flags
        from unnest(freed, failed) as f(id, bad)
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
    return woken;
end
$$;
