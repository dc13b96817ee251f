-- Lock the keys of jobs, making those that are new, in one order: whoever needs slots of several
-- keys in one transaction calls this first, and no two can wait for each other.
create function pgcelery.lock_keys_v1(job_ids text[]) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
begin
    insert into pgcelery.keys (key, slots)
    select distinct on (j.key) j.key, j.key_limit
    from unnest(job_ids) as u(id)
    join pgcelery.jobs j on j.id = u.id
    where j.key is not null
    order by j.key, j.seq desc
    on conflict (key) do nothing;

    perform
    from pgcelery.keys k
    where k.key = any (array(
        select j.key from unnest(job_ids) as u(id) join pgcelery.jobs j on j.id = u.id))
    order by k.key
    for update;
end
$$;
