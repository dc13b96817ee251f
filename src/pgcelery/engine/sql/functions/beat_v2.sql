-- Renew a worker's lease and fetch what is meant for it. Requests to cancel stay until their runs
-- have ended and are handed over with every beat, so none can be lost; messages are taken once.
-- Rows returned: 3 cancel a run (token; flags 1 = terminate; priority = signal), 6 a message
-- (payload; name = reply_to), 8 a queue that got work (flags; 0: jobs to be ended, which any step takes),
-- 9 this worker is not known any more, 10 runs were asked to end. What a full worker may have to give
-- way to is looked at here, because it takes no step of its own.
create function pgcelery.beat_v2(me integer, lease_s double precision)
returns table (kind integer, job_id text, token bigint, name text, payload bytea,
               priority integer, flags integer)
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
#variable_conflict use_column
declare
    came pgcelery.comers[];
    a record;
begin
    update pgcelery.workers w
    set beat_at = clock_timestamp(), lease_until = clock_timestamp() + make_interval(secs => lease_s)
    where w.id = me;
    if not found then
        return query select 9, null::text, null::bigint, null::text, null::bytea, null::integer,
                            null::integer;
        return;
    end if;
    if exists (select from pgcelery.comers c where (c.own).strategy > 0) then
        with taken as (
            delete from pgcelery.comers c
            using (select i.id from pgcelery.comers i
                   where (i.name, i.key) in (select x.name, x.key from pgcelery.comers x
                                             where (x.own).strategy > 0)
                   order by i.id limit 500 for update skip locked) t
            where c.id = t.id
            returning c
        )
        select array_agg(t.c order by (t.c).id) into came from taken t;
        if came is not null then
            perform pgcelery.lock_lines_v1(array(
                select coalesce(c.own, row(c.name, c.key, null, null, null, null, null, null, null,
                                           null)::pgcelery.gate)
                from unnest(came) c));
            perform pgcelery.settle_v1(came);
            select * into a from pgcelery.admit_v2(array(select c.name from unnest(came) c),
                                                   array(select c.key from unnest(came) c), 0, '{}');
            return query
            select distinct 8, null::text, null::bigint, null::text, null::bytea, null::integer, u.id
            from unnest(a.woken) as u(id);
            if a.struck then
                return query select 10, null::text, null::bigint, null::text, null::bytea,
                                    null::integer, null::integer;
            end if;
        end if;
    end if;
    if exists (select from pgcelery.ready r where r.queue_id = 0) then
        return query select 8, null::text, null::bigint, null::text, null::bytea, null::integer, 0;
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
