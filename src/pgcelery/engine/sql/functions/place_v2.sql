-- Give freed jobs their place: ready, scheduled when they have a delay or a later time, at their gates
-- when they have any. Their delays and lives count from now. One that will not run, because a parent
-- did not complete, passes no gate. What should or must run on the worker that freed it, whose label is
-- `own`, goes to that one's own place, if it serves the queue (`served`). Returns the queues that got
-- work.
create function pgcelery.place_v2(
    freed text[], failed boolean[], own text, served integer[]
) returns integer[]
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    woken integer[];
    comers text[];
    comer_flags smallint[];
begin
    update pgcelery.jobs j
    set due_at = case when j.delay_s is not null
                      then now() + make_interval(secs => j.delay_s)
                      -- The head start of those who suit it best begins now.
                      when j.flags & 1792 > 0 then greatest(j.due_at, now())
                      else j.due_at end,
        expires_at = coalesce(now() + make_interval(secs => j.lives_s), j.expires_at),
        queue_id = case
            when j.flags & 768 = 0 then j.queue_id
            else (select case when c.id = any (served) and not f.bad
                              then pgcelery.own_place_v1(c.id, own, j.flags & 512 = 512) else c.id end
                  from unnest(freed, failed) as f(id, bad),
                       -- A replayed one is in the place of whoever freed it before.
                       coalesce((select p.plain from pgcelery.places p where p.id = j.queue_id),
                                j.queue_id) as c(id)
                  where f.id = j.id) end
    where j.id = any (freed)
      and (j.delay_s is not null or j.lives_s is not null or j.flags & 1792 > 0);

    with free as (
        select j.queue_id, j.due_at, j.seq, j.id, j.priority,
               case when f.bad then j.flags & 1 | 4 else j.flags & 3 end::smallint as flags
        from unnest(freed, failed) as f(id, bad)
        join pgcelery.jobs j on j.id = f.id
    ), due as (
        insert into pgcelery.scheduled (queue_id, due_at, seq, job_id, priority, deliveries, flags)
        select f.queue_id, f.due_at, f.seq, f.id, f.priority, 0, f.flags
        from free f
        where f.due_at > now()
    ), made as (
        insert into pgcelery.ready (queue_id, priority, seq, job_id, deliveries, flags)
        select f.queue_id, f.priority, f.seq, f.id, 0, f.flags
        from free f
        where f.flags & 2 = 0 and (f.due_at is null or f.due_at <= now())
    )
    select array(select distinct f.queue_id from free f),
           array_agg(g.id), array_agg(g.flags)
    into woken, comers, comer_flags
    from (select f.id, f.flags from free f
          where f.flags & 2 = 2 and (f.due_at is null or f.due_at <= now())) g;
    if comers is not null then
        perform pgcelery.come_v1(comers, array_fill(0::smallint, array[cardinality(comers)]),
                                 comer_flags);
    end if;
    return woken;
end
$$;
