-- Give back the slots of runs that have ended, or of jobs that were let through and do not run. The
-- lines are locked, or only these jobs' (a caller that lets nobody through); they have to be looked at
-- then (admit_v2, or `comers`). Returns them.
create function pgcelery.release_v2(job_ids text[], out names text[], out keys text[])
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
begin
    with freed as (
        select g.name, g.key, count(*)::integer as slots
        from unnest(job_ids) as u(id)
        join pgcelery.jobs j on j.id = u.id
        cross join lateral unnest(j.gates) g
        where g.rate is null
        group by g.name, g.key
    ), counted as (
        update pgcelery.lines l
        set in_use = greatest(0, l.in_use - f.slots)
        from freed f
        where l.name = f.name and l.key = f.key
        returning l.name, l.key
    )
    select array_agg(c.name), array_agg(c.key) into names, keys from counted c;
end
$$;
