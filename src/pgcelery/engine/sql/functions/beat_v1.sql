-- Renew a worker's lease and fetch what is meant for it. Requests to cancel stay until their runs
-- have ended and are handed over with every beat, so none can be lost; messages are taken once.
-- Rows returned: 3 cancel a run (token; flags 1 = terminate; priority = signal), 6 a message
-- (payload; name = reply_to), 9 this worker is not known any more.
create function pgcelery.beat_v1(me integer, lease_s double precision)
returns table (kind integer, job_id text, token bigint, name text, payload bytea,
               priority integer, flags integer)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    update pgcelery.workers w
    set beat_at = clock_timestamp(), lease_until = clock_timestamp() + make_interval(secs => lease_s)
    where w.id = me;
    if not found then
        return query select 9, null::text, null::bigint, null::text, null::bytea, null::integer,
                            null::integer;
        return;
    end if;
    if exists (select from pgcelery.cancels) then
        return query
        select 3, r.job_id, r.token, null::text, null::bytea, c.signum::integer, c.terminate::integer
        from pgcelery.running r
        join pgcelery.cancels c on c.job_id = r.job_id
        where r.worker_id = me;
    end if;
    return query
    with taken as (
        delete from pgcelery.inbox i where i.worker_id = me
        returning i.id, i.body, i.reply_to, i.expires_at
    )
    select 6, null::text, t.id, t.reply_to, t.body, null::integer, null::integer
    from taken t
    where t.expires_at > now()
    order by t.id;
end
$$;
