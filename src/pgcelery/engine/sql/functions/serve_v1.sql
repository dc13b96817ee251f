-- One round trip of a pool process, one transaction: record that a run completed for which no other job
-- waits, and claim the next job of the worker's queues, under a token that was reserved before. That is
-- what step_v4 does, by finish_v4, where there is nothing else to do; the rules and the order of locks are
-- theirs (running, results, waiters, ready). Whatever is not that case changes nothing and returns a row of
-- nulls: the outcome then goes to the node. Not that case are a token that is not current, a run that others
-- wait for or that came through gates; whatever wants a step: limits, a paused queue, wishes to cancel, jobs
-- that are due or only to be ended, jobs of two priorities; no job; and a worker that is unknown or whose
-- lease ends within margin_s. Raises when what is next is gone or no plain job, which undoes it all.
-- `spare` is the token for the next claim, `told` who waits for the result.
-- Promises P7, P8 of docs/guarantees.md.
create function pgcelery.serve_v1(
    me integer, run bigint, job_id text, result bytea, ttl_s double precision, next_run bigint,
    queue_ids integer[], margin_s double precision,
    out next_id text, out queue_id integer, out name text, out payload bytea, out priority integer,
    out flags integer, out spare bigint, out told text[], out delivery integer
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
declare
    q integer;
    highest smallint;
    lowest smallint;
    claimed record;
begin
    if exists (select from pgcelery.paused) or exists (select from pgcelery.lines)
       or exists (select from pgcelery.comers) or exists (select from pgcelery.timers)
       or exists (select from pgcelery.cancels)
       or exists (select from pgcelery.ready r where r.queue_id = 0)
       or exists (select from unnest(serve_v1.queue_ids) as u(id)
                  join pgcelery.scheduled s on s.queue_id = u.id and s.due_at <= now())
       or not exists (select from pgcelery.workers w
                      where w.id = serve_v1.me
                        and w.lease_until > now() + make_interval(secs => serve_v1.margin_s))
    then
        return;
    end if;
    foreach q in array serve_v1.queue_ids loop
        select h.priority,
               (select l.priority from pgcelery.ready l
                where l.queue_id = q order by l.priority desc limit 1)
        into highest, lowest
        from pgcelery.ready h
        where h.queue_id = q order by h.priority limit 1;
        exit when found;
    end loop;
    if highest is distinct from lowest or highest is null then
        return;
    end if;

    delete from pgcelery.running r
    where r.token = serve_v1.run and r.job_id = serve_v1.job_id and r.flags & 3 = 0;
    if not found then
        return;
    end if;
    insert into pgcelery.results as s (id, state, token, result, finished_at, expires_at)
    values (serve_v1.job_id, 10, serve_v1.run, serve_v1.result, now(),
            now() + make_interval(secs => coalesce(
                serve_v1.ttl_s,
                (select j.ttl_s from pgcelery.jobs j where j.id = serve_v1.job_id))))
    on conflict (id) do update
    set state = excluded.state, token = excluded.token,
        result = coalesce(excluded.result, s.result),
        finished_at = excluded.finished_at, expires_at = excluded.expires_at
    where s.finished_at is null;
    if exists (select from pgcelery.waiters) then
        with gone as (
            delete from pgcelery.waiters w where w.job_id = serve_v1.job_id returning w.channel
        )
        select array_agg(g.channel) into told from gone g;
    end if;

    with picked as (
        select r.ctid as at
        from pgcelery.ready r
        where r.queue_id = q
        order by r.priority, r.tag, r.seq
        limit 1
        for update skip locked
    ), gone as (
        delete from pgcelery.ready r
        using picked p
        where r.ctid = p.at
        returning r.job_id, r.deliveries, r.flags
    ), begun as (
        insert into pgcelery.running (token, job_id, worker_id, queue_id, delivery, flags)
        select serve_v1.next_run, g.job_id, serve_v1.me, q, g.deliveries + 1, g.flags
        from gone g
        returning job_id, delivery, flags
    )
    select j.id, j.name, j.payload, j.priority, b.delivery, b.flags,
           b.flags & ~1 = 0 and (j.expires_at is null or j.expires_at > now()) as plain
    into claimed
    from begun b
    join pgcelery.jobs j on j.id = b.job_id;
    if claimed.plain is not true then
        raise exception 'what was next is gone, or no plain job' using errcode = '40001';
    end if;

    next_id := claimed.id;
    queue_id := q;
    name := claimed.name;
    payload := claimed.payload;
    priority := claimed.priority;
    flags := claimed.flags;
    delivery := claimed.delivery;
    spare := nextval('pgcelery.tokens');
end
$$;
