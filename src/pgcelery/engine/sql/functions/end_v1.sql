-- Record, for a pool process, that the last run of a chain completed: what finish_v3 does with the
-- outcome of a job that has neither a slot of a key nor others that wait for it. In any other case,
-- or when the token is not current any more, nothing is changed: then the outcome goes to the node.
-- `told` are the channels of those who wait for the result.
create function pgcelery.end_v1(
    run bigint, job_id text, result bytea, ttl_s double precision, out ended boolean, out told text[]
)
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
begin
    delete from pgcelery.running r
    where r.token = end_v1.run and r.job_id = end_v1.job_id and r.flags & 3 = 0;
    ended := found;
    if not ended then
        return;
    end if;
    insert into pgcelery.results as s (id, state, token, result, finished_at, expires_at)
    values (end_v1.job_id, 10, end_v1.run, end_v1.result, now(),
            now() + make_interval(secs => coalesce(
                end_v1.ttl_s, (select j.ttl_s from pgcelery.jobs j where j.id = end_v1.job_id))))
    on conflict (id) do update
    set state = excluded.state, token = excluded.token,
        result = coalesce(excluded.result, s.result),
        finished_at = excluded.finished_at, expires_at = excluded.expires_at
    where s.finished_at is null;
    if exists (select from pgcelery.waiters) then
        with gone as (
            delete from pgcelery.waiters w where w.job_id = end_v1.job_id returning w.channel
        )
        select array_agg(g.channel) into told from gone g;
    end if;
    if exists (select from pgcelery.cancels) then
        delete from pgcelery.cancels c where c.job_id = end_v1.job_id;
    end if;
end
$$;
