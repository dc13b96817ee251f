-- One round trip of a pool process, one transaction: record that a run completed and claim the one job
-- that waited for it and for nobody else, for the same worker, under a token that was reserved before.
-- That is what step_v4 does, by finish_v4 and free_v1, for an outcome without follow-ups and drops; the
-- rules and the order of locks are theirs (running, results, waiters, cancels, edges, nodes), written
-- with single rows, as a chain does this once a step. Whatever is not that case changes nothing and
-- returns a row of nulls: the outcome then goes to the node. Not that case are a job that came through
-- gates, several children, or a child that waits for others or was joined, has gates, a delay, a time
-- or a life of its own, has expired or is to be cancelled, keeps to a worker, is of a queue the node
-- does not serve, or has a name that is `barred`; any paused queue; and a worker that is unknown or
-- whose lease ends within margin_s. Raises when another transaction was quicker, which undoes it all.
-- `spare` is the token for the next claim, `told` who waits for the result.
-- What is looked up comes first, and what is deleted says whether it still was so: a delete that joins
-- as many tables takes a third longer to start than all of this.
-- Promise P12 of docs/guarantees.md.
create function pgcelery.relay_v3(
    me integer, run bigint, job_id text, result bytea, ttl_s double precision, next_run bigint,
    queue_ids integer[], margin_s double precision, barred text[],
    out child text, out queue_id integer, out name text, out payload bytea, out priority integer,
    out flags integer, out spare bigint, out told text[]
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
    next record;
    awaited boolean;
    wished boolean;
    many integer;
begin
    select j.id, j.queue_id, j.name, j.payload, j.priority, j.flags & 1 as flags
    into next
    from pgcelery.edges e
    join pgcelery.nodes n on n.job_id = e.child
    join pgcelery.jobs j on j.id = e.child
    where e.parent = relay_v3.job_id
      and not exists (select from pgcelery.edges o
                      where o.parent = relay_v3.job_id and o.child <> e.child)
      and n.pending = 1 and n.joined is null and j.parents = 1 and j.flags & 770 = 0
      and j.queue_id = any (relay_v3.queue_ids) and j.name <> all (relay_v3.barred)
      and j.delay_s is null and j.lives_s is null and j.due_at is null
      and (j.expires_at is null or j.expires_at > now())
      and exists (select from pgcelery.workers w
                  where w.id = relay_v3.me
                    and w.lease_until > now() + make_interval(secs => relay_v3.margin_s))
      and not exists (select from pgcelery.paused)
      and not exists (select from pgcelery.cancels c where c.job_id in (relay_v3.job_id, e.child));
    if not found then
        return;
    end if;
    delete from pgcelery.running r
    where r.token = relay_v3.run and r.job_id = relay_v3.job_id and r.flags & 3 = 1;
    if not found then
        return;
    end if;

    if ttl_s is null then
        select j.ttl_s into ttl_s from pgcelery.jobs j where j.id = relay_v3.job_id;
    end if;
    insert into pgcelery.results as s (id, state, token, result, finished_at, expires_at)
    values (relay_v3.job_id, 10, relay_v3.run, relay_v3.result, now(),
            now() + make_interval(secs => relay_v3.ttl_s))
    on conflict (id) do update
    set state = excluded.state, token = excluded.token,
        result = coalesce(excluded.result, s.result),
        finished_at = excluded.finished_at, expires_at = excluded.expires_at
    where s.finished_at is null;
    select exists (select from pgcelery.waiters w where w.job_id = relay_v3.job_id),
           exists (select from pgcelery.cancels c where c.job_id = relay_v3.job_id)
    into awaited, wished;
    if awaited then
        with gone as (
            delete from pgcelery.waiters w where w.job_id = relay_v3.job_id returning w.channel
        )
        select array_agg(g.channel) into told from gone g;
    end if;
    if wished then
        delete from pgcelery.cancels c where c.job_id = relay_v3.job_id;
    end if;

    delete from pgcelery.edges e where e.parent = relay_v3.job_id;
    get diagnostics many = row_count;
    if many = 1 then
        -- By now somebody may have cancelled the child, or joined it.
        delete from pgcelery.nodes n
        where n.job_id = next.id and n.pending = 1 and n.joined is null;
        get diagnostics many = row_count;
    end if;
    if many <> 1 then
        raise exception 'what waited for a job changed while that ended' using errcode = '40001';
    end if;
    insert into pgcelery.running (token, job_id, worker_id, queue_id, delivery, flags)
    values (relay_v3.next_run, next.id, relay_v3.me, next.queue_id, 1, next.flags);

    child := next.id;
    queue_id := next.queue_id;
    name := next.name;
    payload := next.payload;
    priority := next.priority;
    flags := next.flags;
    spare := nextval('pgcelery.tokens');
end
$$;
