-- One round of upkeep by whoever holds the lease on it: bury workers that fell silent, return their
-- runs, delete what is past its time. Calling it without the lease does nothing. A run whose job
-- has deliveries left becomes ready again; any other is handed to the caller under a new token
-- (kind 0, flag 32) so that it can be ended, by someone who knows how, without running; so is one that
-- was to be cancelled (flag 8), which would wait for a free worker otherwise.
-- Rows returned: those, with the name and pid of the worker that had them if it was buried just now,
-- 8 a queue that got work, 7 one row of counts (token = deleted results, priority = buried workers,
-- delivery = returned runs) when the caller holds the lease.
--
-- When nobody could do upkeep for a while, because the server was down or cut off from all, the others
-- are on their way back too: they get another lease of upkeep's length before they are buried.
-- Promises P5, P6, P10, P17, P23 of docs/guarantees.md.
create function pgcelery.maintain_v2(
    me integer, lease_s double precision, prune_batch integer
) returns table (kind integer, job_id text, token bigint, queue_id integer, name text,
                 payload bytea, priority integer, delivery integer, flags integer, worker text,
                 pid integer)
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
#variable_conflict use_column
declare
    before timestamptz;
    buried integer[];
    buried_names text[];
    buried_pids integer[];
    returned integer;
    pruned integer;
    gated text[];
    come integer[] := '{}'::integer[];
    freed record;
    opened record;
begin
    select l.until into before from pgcelery.leases l where l.role = 'upkeep';
    insert into pgcelery.leases as l (role, worker_id, until)
    values ('upkeep', me, now() + make_interval(secs => lease_s))
    on conflict (role) do update set worker_id = excluded.worker_id, until = excluded.until
    where l.until < now() or l.worker_id = me;
    if not found or not exists (select from pgcelery.workers w where w.id = me) then
        return;
    end if;

    if before < now()
       and (pg_postmaster_start_time() > before - make_interval(secs => lease_s)
            or (before + make_interval(secs => lease_s) < now()
                and exists (select from pgcelery.workers w where w.id = me and w.started_at < before)))
    then
        update pgcelery.workers w set lease_until = now() + make_interval(secs => lease_s)
        where w.lease_until < now();
    end if;
    with gone as (
        delete from pgcelery.workers w where w.lease_until < now() returning w.id, w.name, w.pid
    )
    select coalesce(array_agg(g.id), '{}'), array_agg(g.name), array_agg(g.pid)
    into buried, buried_names, buried_pids
    from gone g;

    -- Every run whose worker is gone, however it came about; in flight only, so a scan is cheap.
    if exists (select from pgcelery.lines) then
        gated := array(
            select r.job_id
            from pgcelery.running r
            join pgcelery.jobs j on j.id = r.job_id
            where r.flags & 2 = 2 and r.delivery < j.max_deliveries
              and not exists (select from pgcelery.cancels c where c.job_id = r.job_id)
              and not exists (select from pgcelery.workers w where w.id = r.worker_id)
            order by r.token
            limit 1000);
        if cardinality(gated) > 0 then
            perform pgcelery.lock_lines_v1(pgcelery.gates_of_v1(gated));
            with gone as (
                delete from pgcelery.running r
                where r.job_id = any (gated)
                  and not exists (select from pgcelery.workers w where w.id = r.worker_id)
                returning r.job_id, r.delivery, r.flags
            )
            select array_agg(g.job_id) as ids, array_agg(g.delivery) as deliveries,
                   array_agg(g.flags) as flags
            into freed from gone g;
            if freed.ids is not null then
                select * into opened from pgcelery.release_v2(freed.ids);
                come := pgcelery.come_v1(freed.ids, freed.deliveries, freed.flags)
                        || pgcelery.reopen_v1(opened.names, opened.keys);
            end if;
        end if;
    end if;
    return query
    with orphans as (
        select r.token
        from pgcelery.running r
        where not exists (select from pgcelery.workers w where w.id = r.worker_id)
          and (r.flags & 2 = 0
               or exists (select from pgcelery.cancels c where c.job_id = r.job_id)
               or r.delivery >= (select j.max_deliveries from pgcelery.jobs j where j.id = r.job_id))
        order by r.token
        limit 2000
        for update skip locked
    ), gone as (
        delete from pgcelery.running r
        using orphans o
        where r.token = o.token
        returning r.job_id, r.delivery, r.flags, r.worker_id
    ), judged as (
        select g.job_id, g.delivery, g.flags, j.queue_id, j.priority, j.seq, j.name, j.payload,
               c.job_id is not null as cancelled,
               c.job_id is not null or g.delivery >= j.max_deliveries as over,
               array_position(buried, g.worker_id) as place
        from gone g
        join pgcelery.jobs j on j.id = g.job_id
        left join pgcelery.cancels c on c.job_id = g.job_id
    ), again as (
        insert into pgcelery.ready (queue_id, priority, seq, job_id, deliveries, flags)
        select d.queue_id, d.priority, d.seq, d.job_id, d.delivery, d.flags
        from judged d
        where not d.over
        returning queue_id
    ), ending as (
        insert into pgcelery.running as c (token, job_id, worker_id, queue_id, delivery, flags)
        select nextval('pgcelery.tokens'), d.job_id, me, d.queue_id, d.delivery,
               d.flags | 32
        from judged d
        where d.over
        returning c.token, c.job_id
    )
    select 0, d.job_id, e.token, d.queue_id, d.name, d.payload, d.priority::integer,
           d.delivery::integer, d.flags | 32 | case when d.cancelled then 8 else 0 end,
           buried_names[d.place], buried_pids[d.place]
    from ending e join judged d on d.job_id = e.job_id
    union all
    select distinct 8, null::text, null::bigint, a.queue_id, null::text, null::bytea,
           null::integer, null::integer, null::integer, null::text, null::integer
    from (select g.queue_id from again g union select u.id from unnest(come) as u(id)) a;
    get diagnostics returned = row_count;

    -- What no worker that is alive may run is ended, by any, when it expires: none would find it.
    with over as (
        select r.ctid as at
        from pgcelery.jobs j
        join pgcelery.ready r on r.queue_id = j.queue_id and r.priority = j.priority and r.tag = 0
                                 and r.seq = j.seq
        where j.flags & 1792 > 0 and j.expires_at between now() - interval '2 minutes' and now()
        for update of r skip locked
    )
    update pgcelery.ready r set queue_id = 0 from over o where r.ctid = o.at;

    -- A result that a job of the same workflow may yet need stays for another hour.
    with old as (
        select s.id, s.state, s.token,
               case when j.flags & 1 = 1 then j.workflow end as workflow
        from pgcelery.results s
        left join pgcelery.jobs j on j.id = s.id
        where s.expires_at < now()
        order by s.expires_at
        limit prune_batch
        for update of s skip locked
    ), alive as (
        select w.workflow
        from (select distinct o.workflow from old o where o.workflow is not null) w
        where exists (select from pgcelery.jobs j
                      left join pgcelery.results s on s.id = j.id
                      where j.workflow = w.workflow and s.finished_at is null)
    ), kept as (
        update pgcelery.results s
        set expires_at = now() + interval '1 hour'
        from old o
        where s.id = o.id and o.workflow in (select a.workflow from alive a)
        returning s.id
    ), gone as (
        delete from pgcelery.results s
        using old o
        where s.id = o.id and not exists (select from kept k where k.id = o.id)
        returning s.id, s.state, s.token
    ), jobs as (
        delete from pgcelery.jobs j using gone g
        where j.id = g.id and g.state >= 10
          and (g.token <> coalesce(j.last_token, 0) or not pgcelery.at_large_v2(j))
    )
    select count(*) into pruned from gone;

    delete from pgcelery.cancels c where c.requested_at < now() - interval '1 day'
        and not exists (select from pgcelery.running r where r.job_id = c.job_id)
        and not exists (select from pgcelery.jobs j left join pgcelery.results s on s.id = j.id
                        where j.id = c.job_id and s.finished_at is null);
    -- Of large tables a part in each round.
    delete from pgcelery.lines l where (l.name, l.key) in (
        select i.name, i.key
        from pgcelery.lines i tablesample system (
            (select least(100, 20000.0 / greatest(c.relpages, 1)) from pg_class c
             where c.oid = 'pgcelery.lines'::regclass))
        where i.in_use = 0
          and (i.tat is null or i.tat + make_interval(secs => case when i.fixed then i.period_s else 0 end)
                                < now())
          and not exists (select from pgcelery.gated g where g.name = i.name and g.key = i.key)
        limit prune_batch
        for update skip locked);
    delete from pgcelery.uniques x where x.key in (
        select i.key
        from pgcelery.uniques i tablesample system (
            (select least(100, 20000.0 / greatest(c.relpages, 1)) from pg_class c
             where c.oid = 'pgcelery.uniques'::regclass))
        where i.until < now()
           or (i.mode < 2 and (not exists (select from pgcelery.jobs j where j.id = i.job_id)
                               or exists (select from pgcelery.results s
                                          where s.id = i.job_id and s.finished_at is not null)))
        limit prune_batch
        for update skip locked);
    delete from pgcelery.timers t
    where t.due_at < now() - interval '1 minute'
      and not exists (select from pgcelery.lines l where l.name = t.name and l.key = t.key);
    delete from pgcelery.delayed d
    where not exists (select from pgcelery.scheduled s join pgcelery.jobs j
                      on s.queue_id = j.queue_id and s.due_at = j.due_at and s.seq = j.seq
                      where j.id = d.job_id);
    delete from pgcelery.waiters w where w.until < now();
    delete from pgcelery.inbox i where i.expires_at < now();
    delete from pgcelery.replies p where p.expires_at < now();
    delete from pgcelery.late l where l.at < now() - interval '7 days';
    delete from pgcelery.stopped t where t.at < now() - interval '7 days';

    return query select 7, null::text, pruned::bigint, null::integer, null::text, null::bytea,
                        cardinality(buried), returned, null::integer, null::text, null::integer;
end
$$;
