-- One round trip of a pool process, one transaction: record that a run completed for which no other job
-- waits, and claim the next job of the worker's queues, under a token that was reserved before. That is
-- what step_v4 does where there is nothing else to do, by the same functions; the rules and the order of
-- locks are theirs (running, results, waiters, ready). Whatever is not that case changes nothing and
-- returns a row of nulls: the outcome then goes to the node. Not that case are a token that is not
-- current, a run that others wait for or that came through gates; whatever wants a step: limits, a paused
-- queue, wishes to cancel, jobs that are due or only to be ended, jobs of two priorities, a first job that
-- is found slowly (watch_front_v1); no job; and a worker that is unknown or whose lease ends within
-- margin_s. Raises when what is next is gone or no plain job, which undoes it all.
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
    front text;                     -- see watch_front_v1
    looked_at timestamptz;
    took interval;
    ended boolean;
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
        front := current_setting('pgcelery_claims.q' || q, true);
        if front <> '' and to_timestamp((front::bigint[])[1] / 1000.0) > clock_timestamp() then
            return;
        end if;
        looked_at := clock_timestamp();
        select h.priority,
               (select l.priority from pgcelery.ready l
                where l.queue_id = q order by l.priority desc limit 1)
        into highest, lowest
        from pgcelery.ready h
        where h.queue_id = q order by h.priority limit 1;
        took := clock_timestamp() - looked_at;
        if took > interval '1 ms' or front <> '' then
            perform pgcelery.watch_front_v1(q, took);
            if took > interval '1 ms' and front <> '' then
                return;
            end if;
        end if;
        exit when highest is not null;
    end loop;
    if highest is distinct from lowest or highest is null then
        return;
    end if;

    select e.ended, e.told into ended, told
    from pgcelery.end_v1(serve_v1.run, serve_v1.job_id, serve_v1.result, serve_v1.ttl_s) e;
    if not ended then
        return;
    end if;
    select t.* into claimed from pgcelery.take_one_v1(serve_v1.me, q, serve_v1.next_run) t;
    if claimed.job_id is null or claimed.flags & ~1 <> 0 then
        raise exception 'what was next is gone, or no plain job' using errcode = '40001';
    end if;

    next_id := claimed.job_id;
    queue_id := q;
    name := claimed.name;
    payload := claimed.payload;
    priority := claimed.priority;
    flags := claimed.flags;
    delivery := claimed.delivery;
    spare := nextval('pgcelery.tokens');
end
$$;
