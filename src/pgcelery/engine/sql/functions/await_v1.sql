-- Ask to be told on a channel when these end. Read the results after this has committed.
-- In plpgsql for its plan, which is kept; of SQL with a search path of its own it is made at each call.
create function pgcelery.await_v1(ids text[], told_on text, keep_s double precision) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    insert into pgcelery.waiters (job_id, channel, until)
    select u.id, told_on, now() + make_interval(secs => keep_s)
    from unnest(ids) as u(id)
    order by u.id
    on conflict (job_id, channel) do nothing;
end
$$;
