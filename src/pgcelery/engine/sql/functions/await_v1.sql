-- Give those of these that are final; if none is, ask to be told on a channel when they end. One that
-- is being ended now may do neither: read the results again after this has committed.
-- In plpgsql for its plan, which is kept; of SQL with a search path of its own it is made at each call.
create function pgcelery.await_v1(ids text[], told_on text, keep_s double precision)
returns table (job_id text, state smallint, result bytea, finished_at timestamptz)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
begin
    return query
    select s.id, s.state, s.result, s.finished_at
    from pgcelery.results s
    where s.id = any (ids) and s.state >= 10;
    if not found then
        insert into pgcelery.waiters (job_id, channel, until)
        select u.id, told_on, now() + make_interval(secs => keep_s)
        from unnest(ids) as u(id)
        order by u.id
        on conflict (job_id, channel) do nothing;
    end if;
end
$$;
