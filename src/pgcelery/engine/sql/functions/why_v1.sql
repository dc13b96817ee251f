-- Where a job is and what keeps it there: the facts, for engine/why to put into words. Null when
-- nothing is known of the id. Stable: all of it is read in the one snapshot of the calling statement.
-- `place` is one of ended, running, parents, scheduled, gated, ready, ending (it is about to be ended
-- without running), parked, nowhere.
create function pgcelery.why_v1(of_id text) returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
declare
    j record;
    s record;
    x record;
    facts jsonb := jsonb_build_object('at', statement_timestamp());
    place text;
    lane integer;
begin
    select s1.state, s1.finished_at into s from pgcelery.results s1 where s1.id = of_id;
    select i.name, i.queue_id, i.priority, i.seq, i.parents, i.created_at, i.due_at, i.expires_at,
           i.workflow, i.parked, i.gates, i.last_token is not null as again, q.name as queue
    into j
    from pgcelery.jobs i
    left join pgcelery.queue_names q on q.id = i.queue_id
    where i.id = of_id;
    if j.name is null and s.state is null then
        return null;
    end if;
    facts := facts || jsonb_build_object(
        'name', j.name, 'queue', j.queue, 'created_at', j.created_at, 'due_at', j.due_at,
        'expires_at', j.expires_at, 'workflow', j.workflow, 'again', coalesce(j.again, false),
        'state', s.state, 'finished_at', s.finished_at,
        'cancel_at', (select c.requested_at from pgcelery.cancels c where c.job_id = of_id));
    if s.finished_at is not null then
        return facts || '{"place": "ended"}';
    end if;
    if j.name is null then
        return facts || '{"place": "nowhere"}';
    end if;

    select r.started_at, r.delivery, r.flags, w.name as worker, w.host, w.pid, w.lease_until
    into x
    from pgcelery.running r
    left join pgcelery.workers w on w.id = r.worker_id
    where r.job_id = of_id;
    if found then
        return facts || jsonb_build_object('place', 'running', 'run', to_jsonb(x));
    end if;
    select n.pending, n.failed into x from pgcelery.nodes n where n.job_id = of_id;
    if found then
        return facts || jsonb_build_object(
            'place', 'parents', 'pending', x.pending, 'failed', x.failed,
            'total', greatest(j.parents, x.pending),
            'parents', pgcelery.why_parents_v1(of_id, j.workflow, x.pending));
    end if;
    select r.flags into x from pgcelery.ready r
    where r.queue_id = 0 and r.priority = j.priority and r.tag = 0 and r.seq = j.seq;
    if found then
        return facts || jsonb_build_object('place', 'ending', 'flags', x.flags);
    end if;

    select g.gate, w.deliveries, w.flags into x
    from (select unnest(j.gates) as gate) g
    join pgcelery.gated w on w.name = (g.gate).name and w.key = (g.gate).key
                         and w.priority = j.priority and w.seq = j.seq
    limit 1;
    if found then
        place := 'gated';
        facts := facts || jsonb_build_object('line', pgcelery.why_line_v1(x.gate, j.priority, j.seq));
    elsif exists (select from pgcelery.scheduled d
                  where d.queue_id = j.queue_id and d.due_at = j.due_at and d.seq = j.seq) then
        place := 'scheduled';
    else
        select r.flags, r.deliveries into x from pgcelery.ready r
        where r.queue_id = j.queue_id and r.priority = j.priority and r.tag = 0 and r.seq = j.seq;
        if found then
            place := 'ready';
            lane := j.queue_id;
            facts := facts || jsonb_build_object('flags', x.flags);
        elsif j.parked then
            place := 'parked';
        elsif j.gates is not null then
            place := 'ready';
            lane := -j.queue_id;
        else
            place := 'nowhere';
        end if;
    end if;
    return facts || jsonb_build_object(
        'place', place,
        'serving', pgcelery.why_queue_v1(j.queue_id, lane, j.priority, j.seq));
end
$$;
