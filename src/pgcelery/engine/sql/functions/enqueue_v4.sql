-- Insert jobs, in the caller's transaction: what may run now becomes ready, what has a later time
-- scheduled, what has parents a node, what has gates waits at them (come_v1). `rules` is JSON, null for
-- most: "g" are gates (gates_v1), "u" is [key, mode, seconds] of a job of which there may be only one.
-- A parked id is taken over: who waits for it goes on waiting. An id that exists is left alone, and so
-- is a job that another one stands for: `existing` are those ids, `holders` who is there for each. An id
-- that comes twice is one job, the first: two runs of a batch may have the same follow-up.
-- Parents must be enqueued in the same call, or be an open latch: only then can none of them have
-- ended already. An edge to a child of no job in this call is for join_v2. Bit 64 of the flags says
-- that an id whose run has ended runs anew, unless its payload shows that this is the same send;
-- bit 128 that the job is the one its workflow is listed by; 256 and 512 that it should, or must, run
-- where it is freed. lives: seconds from the release of a job with parents to its expiry, in place of a
-- time. What joins a cancelled workflow is cancelled too, but the job that leads begins it anew.
-- Promises P1, P2 of docs/guarantees.md.
create function pgcelery.enqueue_v4(
    ids text[], queue_ids integer[], priorities smallint[], names text[], payloads bytea[],
    due_ats timestamptz[], delays double precision[], expiries timestamptz[],
    max_deliveries smallint[], ttls double precision[], parents integer[], flags smallint[],
    rules text[], workflows text[], lives double precision[],
    edge_parents text[], edge_children text[],
    out existing text[], out holders text[]
)
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
    created text[];
    comers text[];
    comer_flags smallint[];
    hung integer;
    twice bigint[];
begin
    existing := '{}';
    holders := '{}';
    if exists (select from unnest(flags) as u(flag) where u.flag & 64 = 64) then
        with ended as (
            delete from pgcelery.results s
            using unnest(ids, flags, payloads) as g(id, flag, payload)
            left join pgcelery.jobs j on j.id = g.id
            where s.id = g.id and g.flag & 64 = 64 and s.finished_at is not null
              and (j.id is null or (s.token is not null and j.payload <> g.payload))
            returning s.id
        )
        update pgcelery.jobs j
        set parked = true, joined = null, last_token = null
        from ended e
        where j.id = e.id;
    end if;

    if exists (select from unnest(rules) as u(rule) where u.rule like '%"u":%') then
        select u.existing, u.holders into existing, holders from pgcelery.stand_for_v1(ids, rules) u;
    end if;

    if cardinality(ids) > 1 then
        select array_agg(u.place) into twice
        from (select i.place, row_number() over (partition by i.id order by i.place) as turn
              from unnest(ids) with ordinality as i(id, place)) u
        where u.turn > 1;
    end if;
    with given as (
        select *
        from unnest(ids, queue_ids, priorities, names, payloads, due_ats, delays, expiries,
                    max_deliveries, ttls, parents, flags, rules, workflows, lives)
            with ordinality as g(id, queue_id, priority, name, payload, due_at, delay_s, expires_at,
                                 max_deliveries, ttl_s, parents, flags, rule, workflow, lives_s, place)
    ), born as (
        insert into pgcelery.jobs as j (id, queue_id, priority, name, payload, due_at, delay_s,
                                        expires_at, max_deliveries, ttl_s, parents, flags, gates,
                                        workflow, lives_s)
        select g.id, g.queue_id, g.priority, g.name, g.payload,
               case when g.parents > 0 and g.delay_s is not null then null
                    when g.delay_s is not null then now() + make_interval(secs => g.delay_s)
                    else g.due_at end,
               case when g.parents > 0 then g.delay_s end,
               g.expires_at, g.max_deliveries, g.ttl_s, g.parents, (g.flags & 1923)::smallint,
               case when g.flags & 2 = 2 then pgcelery.gates_v1(g.rule) end,
               g.workflow, case when g.parents > 0 then g.lives_s end
        from given g
        where g.id <> all (existing) and (twice is null or g.place <> all (twice))
        order by g.place
        on conflict (id) do update
        set queue_id = excluded.queue_id, priority = excluded.priority, name = excluded.name,
            payload = excluded.payload, due_at = excluded.due_at, delay_s = excluded.delay_s,
            expires_at = excluded.expires_at,
            max_deliveries = excluded.max_deliveries, ttl_s = excluded.ttl_s,
            parents = excluded.parents, flags = j.flags & 129 | excluded.flags,
            gates = excluded.gates, workflow = coalesce(excluded.workflow, j.workflow),
            lives_s = excluded.lives_s, parked = false,
            -- A run that parked it had a token: this goes on with the same use of the id.
            sent = case when j.last_token is not null then coalesce(j.sent, row(
                       j.queue_id, j.priority, j.max_deliveries, j.name, j.payload, j.ttl_s,
                       j.delay_s, j.lives_s, j.gates, j.flags & 768)::pgcelery.sending) end
        where j.parked
        returning j.id, j.seq, j.queue_id, j.priority, j.due_at, j.parents, j.flags
    ), now_ready as (
        insert into pgcelery.ready (queue_id, priority, seq, job_id, deliveries, flags)
        select b.queue_id, b.priority, b.seq, b.id, 0, b.flags & 3
        from born b
        where b.parents = 0 and b.flags & 2 = 0 and (b.due_at is null or b.due_at <= now())
    ), later as (
        insert into pgcelery.scheduled (queue_id, due_at, seq, job_id, priority, deliveries, flags)
        select b.queue_id, b.due_at, b.seq, b.id, b.priority, 0, b.flags & 3
        from born b
        where b.parents = 0 and b.due_at > now()
    ), waiting as (
        insert into pgcelery.nodes (job_id, pending)
        select b.id, b.parents from born b where b.parents > 0
    )
    select coalesce(array_agg(b.id), '{}'),
           array_agg(b.id) filter (where b.parents = 0 and b.flags & 2 = 2
                                   and (b.due_at is null or b.due_at <= now())),
           array_agg((b.flags & 3)::smallint)
               filter (where b.parents = 0 and b.flags & 2 = 2
                       and (b.due_at is null or b.due_at <= now()))
    into created, comers, comer_flags
    from born b;

    if comers is not null then
        perform pgcelery.come_v1(comers, array_fill(0::smallint, array[cardinality(comers)]),
                                 comer_flags);
    end if;
    if exists (select from unnest(rules) as u(rule) where u.rule is not null) then
        perform pgcelery.replace_delayed_v1(created);
    end if;

    if cardinality(edge_parents) > 0 then
        insert into pgcelery.edges (parent, child)
        select e.parent, e.child
        from unnest(edge_parents, edge_children) as e(parent, child)
        join unnest(created) as c(id) on c.id = e.child
        on conflict do nothing;
        get diagnostics hung = row_count;
        if hung < cardinality(edge_parents) then
            perform pgcelery.join_v2(array_agg(e.parent), array_agg(e.child))
            from unnest(edge_parents, edge_children) as e(parent, child)
            where e.parent = any (created) and e.child <> all (ids);
        end if;
    end if;

    if workflows[1] is not null and exists (select from pgcelery.stopped) then
        delete from pgcelery.stopped t
        using unnest(workflows, flags) as g(workflow, flag)
        where t.workflow = g.workflow and g.flag & 128 = 128;
        insert into pgcelery.cancels (job_id, terminate, signum)
        select g.id, false, 15
        from unnest(ids, workflows) as g(id, workflow)
        join pgcelery.stopped t on t.workflow = g.workflow
        where g.id = any (created)
        on conflict (job_id) do nothing;
    end if;

    if cardinality(created) + cardinality(existing) < cardinality(ids) then
        select existing || array_agg(u.id), holders || array_agg(u.id) into existing, holders
        from unnest(ids) as u(id)
        where u.id <> all (created) and u.id <> all (existing);
    end if;
end
$$;
