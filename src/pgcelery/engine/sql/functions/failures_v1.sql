-- Which of these ids ended otherwise than completed.
create function pgcelery.failures_v1(ids text[])
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
    where s.id = any (ids) and s.state in (11, 12);
end
$$;
