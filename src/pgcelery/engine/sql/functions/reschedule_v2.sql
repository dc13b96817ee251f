-- Record runs that end with "again": state 4 retries at a time, state 2 gives the job back, at once or,
-- with a delay, after that. The job keeps its place in the order of enqueue, and in a workflow what it
-- was sent as, for a replay. Fenced like finish_v3; a repeat of what was recorded is recognised by
-- jobs.last_token, and so is, by the token of its result, a run whose own transaction has recorded its
-- end (record_v1): the delete waits for that if it is under way. Each row is a handful of statements:
-- this is not the hot path.
-- Rows returned: kind 2 late (name = reason), 8 a queue that got work.
-- Promise P13 of docs/guarantees.md.
create function pgcelery.reschedule_v2(
    me integer, tokens bigint[], ids text[], states smallint[], payloads bytea[],
    queue_ids integer[], priorities smallint[], due_ats timestamptz[], delays double precision[],
    expiries timestamptz[], counted boolean[], results bytea[]
) returns table (kind integer, job_id text, queue_id integer, name text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    o record;
    run record;
    job record;
    freed record;
    deliveries integer;
    due timestamptz;
begin
    if exists (select from pgcelery.lines) then
        perform pgcelery.lock_lines_v1(pgcelery.gates_of_v1(array(
            select r.job_id from unnest(tokens) as t(token)
            join pgcelery.running r on r.token = t.token
            where r.flags & 2 = 2)));
    end if;
    for o in
        select *
        from unnest(tokens, ids, states, payloads, queue_ids, priorities, due_ats, delays, expiries,
                    counted, results)
            as u(token, id, state, payload, queue_id, priority, due_at, delay_s, expires_at,
                 counted, result)
        order by u.token
    loop
        delete from pgcelery.running r
        where r.token = o.token and r.job_id = o.id
        returning r.delivery, r.flags into run;
        if not found then
            if not exists (select from pgcelery.jobs j where j.id = o.id and j.last_token = o.token)
               and not exists (select from pgcelery.results s where s.id = o.id and s.token = o.token)
            then
                insert into pgcelery.late (job_id, token, worker_id, state, reason, result_bytes)
                values (o.id, o.token, me, o.state, 'reassigned', octet_length(o.result));
                return query select 2, o.id::text, null::integer, 'reassigned'::text;
            end if;
            continue;
        end if;

        if run.flags & 2 = 2 then
            select * into freed from pgcelery.release_v2(array[o.id]);
            return query
            select 8, null::text, w.queue_id, null::text
            from unnest(pgcelery.reopen_v1(freed.names, freed.keys)) as w(queue_id);
        end if;
        due := case when o.state = 4 or o.delay_s is not null
                    then coalesce(now() + make_interval(secs => o.delay_s), o.due_at, now()) end;
        update pgcelery.jobs j
        set payload = coalesce(o.payload, j.payload),
            queue_id = case when o.queue_id is null  -- or the one whose place it is in
                            or exists (select from pgcelery.places p
                                       where p.id = j.queue_id
                                         and o.queue_id in (p.queue_id, p.plain))
                       then j.queue_id else o.queue_id end,
            priority = coalesce(o.priority, j.priority),
            expires_at = coalesce(o.expires_at, j.expires_at),
            due_at = due,
            last_token = o.token,
            sent = case when o.payload is null or j.workflow is null then j.sent
                        else coalesce(j.sent, row(
                            j.queue_id, j.priority, j.max_deliveries, j.name, j.payload, j.ttl_s,
                            j.delay_s, j.lives_s, j.gates, j.flags & 768)::pgcelery.sending) end
        where j.id = o.id
        returning j.queue_id, j.priority, j.seq into job;
        continue when not found;  -- forgotten or pruned by an operator while it ran

        deliveries := case when o.state = 4 then 0
                           when o.counted then run.delivery
                           else run.delivery - 1 end;
        if due > now() then
            insert into pgcelery.scheduled (queue_id, due_at, seq, job_id, priority, deliveries, flags)
            values (job.queue_id, due, job.seq, o.id, job.priority, deliveries, run.flags);
        elsif run.flags & 2 = 2 then
            perform pgcelery.come_v1(array[o.id], array[deliveries::smallint], array[run.flags]);
        else
            insert into pgcelery.ready (queue_id, priority, seq, job_id, deliveries, flags)
            values (job.queue_id, job.priority, job.seq, o.id, deliveries, run.flags);
        end if;
        if o.result is not null then
            insert into pgcelery.results as s (id, state, result)
            values (o.id, o.state, o.result)
            on conflict (id) do update set state = excluded.state, result = excluded.result
            where s.finished_at is null;
        end if;
        return query select 8, null::text, job.queue_id, null::text;
    end loop;
end
$$;
