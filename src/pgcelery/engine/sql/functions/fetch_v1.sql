-- What is known of these ids; no row for those of which nothing is.
create function pgcelery.fetch_v1(ids text[])
returns table (job_id text, state smallint, result bytea, finished_at timestamptz)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
begin
    return query
    select s.id, s.state, s.result, s.finished_at
    from pgcelery.results s
    where s.id = any (ids);
end
$$;
