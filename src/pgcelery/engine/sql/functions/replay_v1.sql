-- Run jobs of a workflow again that have ended, in the caller's transaction: their results are gone,
-- those with an edge wait for its parent, the others are ready at once, or at their gates.
-- `restores` names those that become what they were sent as, before retries and replacements;
-- `payloads` may hold other bytes. `waits` says how many jobs one waits for by what it was sent with,
-- `pendings` how many of those run again too, `awaited` whether such a one waits for it. `drops` are
-- forgotten with their results: who made them makes them anew. `needs` stay, but must have ended.
-- Nothing is done if `refused` names one that has not. The token of the run before stays known, so
-- that a repeat of its outcome is not late. `woken` are the queues that got work.
create or replace function pgcelery.replay_v1(
    workflow text, ids text[], waits integer[], pendings integer[], awaited boolean[],
    payloads bytea[], restores text[], drops text[], needs text[],
    edge_parents text[], edge_children text[], out refused text, out woken integer[]
)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    gated text[];
    gated_flags smallint[];
begin
    -- In one order: of two replays of a job, the second one finds that it has not ended.
    perform from pgcelery.results s
    where s.id = any (ids || drops || needs)
    order by s.id
    for update;
    select u.id into refused
    from unnest(ids || drops || needs) as u(id)
    left join pgcelery.jobs j on j.id = u.id
    left join pgcelery.results s on s.id = u.id
    where s.finished_at is null or j.id is null
       -- A result can be written by hand, whatever becomes of the job.
       or u.id in (select r.job_id from pgcelery.running r)
       or exists (select from pgcelery.nodes n where n.job_id = j.id)
       or exists (select from pgcelery.ready r
                  where r.queue_id in (j.queue_id, -j.queue_id, 0) and r.priority = j.priority
                    and r.seq = j.seq)
       or exists (select from pgcelery.scheduled d
                  where d.queue_id = j.queue_id and d.due_at = j.due_at and d.seq = j.seq)
       or exists (select from pgcelery.gated g
                  join unnest(j.gates) x on x.name = g.name and x.key = g.key
                  where g.priority = j.priority and g.seq = j.seq)
    limit 1;
    if refused is not null then
        return;
    end if;

    delete from pgcelery.jobs j using unnest(drops) as d(id) where j.id = d.id;
    delete from pgcelery.results s using unnest(drops) as d(id) where s.id = d.id;
    delete from pgcelery.stopped t where t.workflow = replay_v1.workflow;
    delete from pgcelery.cancels c using unnest(ids) as g(id) where c.job_id = g.id;
    update pgcelery.jobs j
    set queue_id = (j.sent).queue_id, priority = (j.sent).priority,
        max_deliveries = (j.sent).max_deliveries, name = (j.sent).name,
        payload = (j.sent).payload, ttl_s = (j.sent).ttl_s, delay_s = (j.sent).delay_s,
        lives_s = (j.sent).lives_s, gates = (j.sent).gates,
        flags = j.flags & ~770 | coalesce((j.sent).sticky, 0::smallint)
                | case when (j.sent).gates is null then 0 else 2 end, sent = null
    from unnest(restores) as r(id)
    where j.id = r.id and j.sent is distinct from null;

    with again as (
        update pgcelery.jobs j
        set payload = coalesce(g.payload, j.payload), parents = g.waits,
            flags = j.flags | case when g.awaited then 1 else 0 end,
            due_at = null, expires_at = null, parked = false,
            last_token = coalesce((select s.token from pgcelery.results s where s.id = j.id),
                                  j.last_token),
            joined = case when j.joined is not null then (
                select array_agg(b.id order by b.place)
                from unnest(j.joined) with ordinality as b(id, place)
                where b.id not in (select d.id from unnest(drops) as d(id))) end
        from unnest(ids, waits, pendings, awaited, payloads)
            as g(id, waits, pending, awaited, payload)
        where j.id = g.id
        returning j.id, j.queue_id, j.priority, j.seq, j.flags & 3 as flags, j.joined,
                  g.pending
    ), waiting as (
        insert into pgcelery.nodes (job_id, pending, joined)
        select a.id, a.pending, a.joined from again a where a.pending > 0
    ), now_ready as (
        insert into pgcelery.ready (queue_id, priority, seq, job_id, deliveries, flags)
        select a.queue_id, a.priority, a.seq, a.id, 0, a.flags
        from again a
        where a.pending = 0 and a.flags & 2 = 0
    )
    select array(select distinct a.queue_id from again a where a.pending = 0),
           array(select a.id from again a where a.pending = 0 and a.flags & 2 = 2 order by a.id),
           array(select a.flags::smallint from again a
                 where a.pending = 0 and a.flags & 2 = 2 order by a.id)
    into woken, gated, gated_flags;
    if cardinality(gated) > 0 then
        perform pgcelery.come_v1(gated, array_fill(0::smallint, array[cardinality(gated)]),
                                 gated_flags);
    end if;

    delete from pgcelery.results s using unnest(ids) as g(id) where s.id = g.id;
    insert into pgcelery.edges (parent, child)
    select e.parent, e.child from unnest(edge_parents, edge_children) as e(parent, child)
    on conflict do nothing;
end
$$;
