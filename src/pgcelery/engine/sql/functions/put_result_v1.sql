-- Write what is known of an id outside of a run's end: progress, a group, a state set by hand. A
-- row that is final stays as it is. Returns whether it was written.
create function pgcelery.put_result_v1(
    given_id text, given_state smallint, given_result bytea, ttl_s double precision
) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    told text[];
begin
    insert into pgcelery.results as s (id, state, result, finished_at, expires_at)
    values (given_id, given_state, given_result,
            case when given_state >= 10 then now() end, now() + make_interval(secs => ttl_s))
    on conflict (id) do update
    set state = excluded.state, result = excluded.result, finished_at = excluded.finished_at,
        expires_at = excluded.expires_at
    where s.finished_at is null;
    if not found then
        return false;
    end if;
    if given_state >= 10 and exists (select from pgcelery.waiters) then
        with gone as (
            delete from pgcelery.waiters w where w.job_id = given_id returning w.channel
        )
        select array_agg(g.channel) into told from gone g;
        perform pg_notify(t.channel, '') from unnest(told) as t(channel);
    end if;
    return true;
end
$$;
