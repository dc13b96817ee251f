-- The gates of jobs, all together: what lock_lines_v1 wants.
create function pgcelery.gates_of_v1(ids text[]) returns pgcelery.gate[]
language sql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
    select array_agg(g)
    from unnest(ids) as u(id)
    join pgcelery.jobs j on j.id = u.id
    cross join lateral unnest(j.gates) g;
$$;
