-- One round trip of a pool process, one transaction: record that a run completed and claim the one job
-- that waited for it and for nobody else, for the same worker, under a token that was reserved before.
-- That is what step_v4 does, by finish_v4 and free_v1, for an outcome without follow-ups and drops; the
-- rules and the order of locks are theirs (running, results, waiters, cancels, edges, nodes), written
-- with single rows, as a chain does this once a step. Whatever is not that case changes nothing and
-- returns a row of nulls: the outcome then goes to the node. Not that case are a job that came through
-- gates, several children, or a child that waits for others or was joined, has gates, a delay, a time
-- or a life of its own, has expired or is to be cancelled, keeps to a worker, is of a queue the node
-- does not serve, or has a name that is `barred`; any paused queue; and a worker that is unknown or whose lease ends within margin_s. Raises when another transaction was
-- quicker, which undoes it all. `spare` is the token for the next claim, `told` who waits for the result.
-- `ahead` and what follows it say which job will come next then, for the process to prepare itself.
create function pgcelery.relay_v2(
    me integer, run bigint, job_id text, result bytea, ttl_s double precision, next_run bigint,
    queue_ids integer[], margin_s double precision,
    barred text[],
    out child text, out queue_id integer, out name text, out payload bytea, out priority integer,
    out flags integer, out spare bigint, out told text[],
    out ahead text, out ahead_queue_id integer, out ahead_name text, out ahead_payload bytea,
    out ahead_priority integer, out ahead_flags integer
)
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    awaited boolean;
    wished boolean;
    many integer;
begin
    delete from pgcelery.running r
    using pgcelery.nodes n
    join pgcelery.jobs j on j.id = n.job_id, pgcelery.workers w
    where r.token = relay_v2.run and r.job_id = relay_v2.job_id and r.flags & 3 = 1
      and n.job_id = (select min(e.child) from pgcelery.edges e where e.parent = relay_v2.job_id
                      having count(*) = 1)
      and n.pending = 1 and n.joined is null and j.parents = 1 and j.flags & 770 = 0
      and j.queue_id = any (relay_v2.queue_ids) and j.name <> all (relay_v2.barred)
      and j.delay_s is null and j.lives_s is null and j.due_at is null
      and (j.expires_at is null or j.expires_at > now())
      and w.id = relay_v2.me
      and w.lease_until > now() + make_interval(secs => relay_v2.margin_s)
      and not exists (select from pgcelery.paused)
      and not exists (select from pgcelery.cancels c where c.job_id in (relay_v2.job_id, n.job_id))
    returning j.id, j.queue_id, j.name, j.payload, j.priority, j.flags & 1, nextval('pgcelery.tokens')
    into child, queue_id, name, payload, priority, flags, spare;
    if not found then
        return;
    end if;

    if ttl_s is null then
        select j.ttl_s into ttl_s from pgcelery.jobs j where j.id = relay_v2.job_id;
    end if;
    insert into pgcelery.results as s (id, state, token, result, finished_at, expires_at)
    values (relay_v2.job_id, 10, relay_v2.run, relay_v2.result, now(),
            now() + make_interval(secs => relay_v2.ttl_s))
    on conflict (id) do update
    set state = excluded.state, token = excluded.token,
        result = coalesce(excluded.result, s.result),
        finished_at = excluded.finished_at, expires_at = excluded.expires_at
    where s.finished_at is null;
    select exists (select from pgcelery.waiters), exists (select from pgcelery.cancels)
    into awaited, wished;
    if awaited then
        with gone as (
            delete from pgcelery.waiters w where w.job_id = relay_v2.job_id returning w.channel
        )
        select array_agg(g.channel) into told from gone g;
    end if;
    if wished then
        delete from pgcelery.cancels c where c.job_id = relay_v2.job_id;
    end if;

    delete from pgcelery.edges e where e.parent = relay_v2.job_id;
    get diagnostics many = row_count;
    if many = 1 then
        -- By now somebody may have cancelled the child, or joined it.
        delete from pgcelery.nodes n
        where n.job_id = relay_v2.child and n.pending = 1 and n.joined is null;
        get diagnostics many = row_count;
    end if;
    if many <> 1 then
        raise exception 'what waited for a job changed while that ended' using errcode = '40001';
    end if;
    insert into pgcelery.running (token, job_id, worker_id, queue_id, delivery, flags)
    values (relay_v2.next_run, relay_v2.child, relay_v2.me, relay_v2.queue_id, 1, relay_v2.flags);

    if flags = 1 then
        select j.id, j.queue_id, j.name, j.payload, j.priority, j.flags & 1
        into ahead, ahead_queue_id, ahead_name, ahead_payload, ahead_priority, ahead_flags
        from pgcelery.edges e
        join pgcelery.jobs j on j.id = e.child
        where e.parent = relay_v2.child and octet_length(j.payload) < 65536
        limit 1;
    end if;
end
$$;
