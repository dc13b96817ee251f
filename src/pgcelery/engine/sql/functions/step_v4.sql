-- One round trip of a node, one transaction: record what ended (finish_v4), hand it the children that
-- are free now, let through the gates what fits since, make due what is due in its queues, and claim up
-- to `want` jobs for it in all. Freed children come before what waits in the queues: a workflow that
-- runs is finished before others begin. Plans are pinned: with stale statistics the planner would
-- hash-join the payloads or sort the backlog, and a claim would grow with its depth.
--
-- Freed children that should or must run here go by the place of this worker's own, so that they are
-- there whenever they come back: `own` is its label.
--
-- Gates cost a step nothing while nobody uses them: what asks for them is one look into small tables.
-- The plain claim, from one lane of a queue, is here and not in claim_v1 for the same reason. Lines are
-- locked once, before anything else is, in one order. Where the look for the first job has become slow,
-- claims go past what cannot be cleaned away (watch_front_v1).
--
-- Rows returned: kind 0 a claim (fed_by: the one parent, that ended here), 2 late (name = reason),
-- 4 when fewer were found than wanted and something is scheduled or may have been passed (token = ms until then), 5 a waiter
-- to tell (name = channel), 8 a queue that got work, 9 when this worker is not known any more, 10 when
-- runs were asked to end and their workers should hear of it.
-- flags of a claim: 1 others wait for it, 2 it holds slots, 4 a parent did not complete, 8 cancelled,
-- 16 expired, 2048 no slot was free for it, 4096 a newer one took its place.
-- Promises P8, P12, P14, P15, P16 of docs/guarantees.md.
create function pgcelery.step_v4(
    me integer, want integer, queue_ids integer[], late_ids integer[], late_s double precision[],
    own text, patience_s double precision,
    tokens bigint[], ids text[], states smallint[], results bytea[], ttls double precision[],
    f_tokens bigint[], f_ids text[], f_queue_ids integer[], f_priorities smallint[], f_names text[],
    f_payloads bytea[], f_due_ats timestamptz[], f_delays double precision[],
    f_expiries timestamptz[], f_max_deliveries smallint[], f_ttls double precision[],
    f_parents integer[], f_flags smallint[], f_rules text[], f_workflows text[],
    f_lives double precision[], f_edge_parents text[], f_edge_children text[],
    d_tokens bigint[], d_ids text[]
) returns table (kind integer, job_id text, token bigint, queue_id integer, name text,
                 payload bytea, priority integer, delivery integer, flags integer, fed_by text)
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
    got integer;
    first smallint;                 -- priority of what is first,
    last smallint;                  -- and of what is last
    fair boolean;
    lane integer;
    known boolean;
    is_paused boolean;
    lined boolean;
    coming boolean;
    timed boolean;
    struck boolean;
    alone boolean;
    front text;                     -- see watch_front_v1
    past_until timestamptz;
    looked_at timestamptz;
    took interval;
    charity integer := case when want >= 8 then want / 8 when random() < 0.125 then 1 else 0 end;
    remaining integer := want;
    serves integer[] := queue_ids;  -- that are not paused
    turns integer[] := queue_ids;   -- where it may start what a rate lets through
    all_ids integer[] := queue_ids || late_ids;
    territory integer[] := queue_ids || late_ids;  -- paused or not
    f record;
    n record;
    a record;
    next_due timestamptz;
    next_turn timestamptz;
    came pgcelery.comers[];
    slot_tokens bigint[];           -- slots of runs that have ended, if their tokens are current:
    slot_names text[];              -- of which lines
    slot_keys text[];
    names text[];                   -- lines to look at,
    keys text[];
    freed integer[];                -- and how many slots of each are given back
    others text[];
    others_failed boolean[];
    woken integer[];
    refused text[];
    reasons text[];
    parents text[];
    told text[];
    channels text[];
begin
    -- One statement for what is asked of tables that are mostly empty; not one with the other below,
    -- which takes four times as long.
    select exists (select from pgcelery.workers w where w.id = me),
           exists (select from pgcelery.paused), exists (select from pgcelery.lines),
           exists (select from pgcelery.comers), exists (select from pgcelery.timers),
           exists (select from pgcelery.ready r where r.queue_id = 0)
    into known, is_paused, lined, coming, timed, struck;
    if is_paused then
        select coalesce(array_agg(u.id order by u.place), '{}') into serves
        from unnest(queue_ids) with ordinality as u(id, place)
        where u.id not in (select x.id from pgcelery.queue_names x
                           join pgcelery.paused p on p.queue_id = x.base_id);
        late_ids := array(
            select case when u.id in (select x.id from pgcelery.queue_names x
                                      join pgcelery.paused p on p.queue_id = x.base_id)
                        then null else u.id end
            from unnest(late_ids) with ordinality as u(id, place) order by u.place);
        all_ids := serves || late_ids;
        turns := serves;
    end if;
    if want > 0 then
        select min(d.due_at) into next_due
        from unnest(all_ids) as u(id),
             lateral (select s.due_at from pgcelery.scheduled s
                      where s.queue_id = u.id order by s.due_at limit 1) d;
    end if;
    if timed and want > 0 then
        select min(d.due_at), serves || array_agg(u.id) filter (where u.after_s > 0 and d.due_at <= now())
        into next_turn, turns
        from unnest(serves || late_ids,
                    array_fill(0::double precision, array[cardinality(serves)]) || late_s)
                 as u(id, after_s),
             lateral (select t.due_at + make_interval(secs => u.after_s) as due_at
                      from pgcelery.timers t
                      where t.queue_id = u.id order by t.due_at limit 1) d;
    end if;

    -- All lines that this step will touch are locked first.
    if lined and cardinality(tokens) > 0 then
        select array_agg(t.token), array_agg(g.name), array_agg(g.key)
        into slot_tokens, slot_names, slot_keys
        from unnest(tokens) as t(token)
        join pgcelery.running r on r.token = t.token
        join pgcelery.jobs j on j.id = r.job_id
        cross join lateral unnest(j.gates) g
        where r.flags & 2 = 2 and g.rate is null;
    end if;
    if coming then
        with taken as (
            delete from pgcelery.comers c
            using (select i.id from pgcelery.comers i order by i.id limit 500
                   for update skip locked) t
            where c.id = t.id
            returning c
        )
        select array_agg(t.c order by (t.c).id) into came from taken t;
    end if;
    if slot_tokens is not null or came is not null then
        select * into n from pgcelery.lock_lines_v2(slot_names, slot_keys, came);
        names := n.names;
        keys := n.keys;
        freed := array_fill(0, array[coalesce(cardinality(names), 0)]);
        if n.news then
            perform pgcelery.settle_v1(came);
        end if;
    end if;
    if next_turn <= now() then
        -- Whoever has one of these looks at it too; nobody waits out of order.
        with due as materialized (
            select distinct t.name, t.key
            from unnest(turns) as u(id)
            cross join lateral (select i.name, i.key from pgcelery.timers i
                                where i.queue_id = u.id and i.due_at <= now()
                                order by i.due_at limit 200) t
        ), mine as (
            select l.name, l.key
            from due d
            join pgcelery.lines l on l.name = d.name and l.key = d.key
            for update of l skip locked
        )
        select names || array_agg(m.name), keys || array_agg(m.key), freed || array_agg(0)
        into names, keys, freed
        from mine m;
    end if;

    if want > 0 and not known then
        remaining := 0;
        return query select 9, null::text, null::bigint, null::integer, null::text, null::bytea,
                            null::integer, null::integer, null::integer, null::text;
    end if;

    if cardinality(tokens) > 0 then
        -- A lone outcome that nobody waits for, as most are where each is committed by itself, is
        -- recorded by statements about single rows: two thirds less work.
        alone := false;
        if cardinality(tokens) = 1 and states[1] = 10 and cardinality(f_ids) = 0
           and cardinality(d_ids) = 0 then
            select e.ended, e.told into alone, channels
            from pgcelery.end_v1(tokens[1], ids[1], results[1], ttls[1]) e;
            if channels is not null then
                told := array_fill(ids[1], array[cardinality(channels)]);
            end if;
        end if;
        if not alone then
            select * into f
            from pgcelery.finish_v4(
                me, tokens, ids, states, results, ttls, f_tokens, f_ids, f_queue_ids, f_priorities,
                f_names, f_payloads, f_due_ats, f_delays, f_expiries, f_max_deliveries, f_ttls,
                f_parents, f_flags, f_rules, f_workflows, f_lives, f_edge_parents, f_edge_children,
                d_tokens, d_ids, true);
            woken := f.woken;
            if slot_tokens is not null then
                select names || array_agg(s.name), keys || array_agg(s.key), freed || array_agg(1)
                into names, keys, freed
                from unnest(slot_tokens, slot_names, slot_keys) as s(token, name, key)
                where cardinality(f.ended) = cardinality(tokens) or s.token = any (f.ended);
            end if;
            refused := f.late_ids;
            reasons := f.late_reasons;
            told := f.told_ids;
            channels := f.told_channels;
            parents := f.parents;
        end if;
        if parents is not null then
            select * into n from pgcelery.free_v1(parents, f.completed);
            if n.freed is not null and remaining > 0 then
                return query
                with mine as (
                    select j.id, j.queue_id, j.name, j.payload, j.priority, j.expires_at,
                           case when c.failed then j.flags & 1 | 4 else j.flags & 3 end::smallint
                               as flags,
                           case when j.parents = 1 then c.fed_by end as fed_by
                    from unnest(n.freed, n.failed, n.fed_by) as c(id, failed, fed_by)
                    join pgcelery.jobs j on j.id = c.id
                    where j.queue_id = any (serves) and (j.flags & 2 = 0 or c.failed)
                      and (j.flags & 768 = 0 or c.failed) and j.delay_s is null
                      and j.lives_s is null and (j.due_at is null or j.due_at <= now())
                    order by j.priority, j.seq
                    limit remaining
                ), claimed as (
                    insert into pgcelery.running as c (token, job_id, worker_id, queue_id, delivery, flags)
                    select nextval('pgcelery.tokens'), m.id, me, m.queue_id, 1, m.flags
                    from mine m
                    returning c.token, c.job_id
                )
                select 0, m.id, c.token, m.queue_id, m.name, m.payload, m.priority::integer, 1,
                       m.flags
                       | case when exists (select from pgcelery.cancels x where x.job_id = m.id)
                              then 8 else 0 end
                       | case when m.expires_at <= now() then 16 else 0 end,
                       m.fed_by
                from mine m
                join claimed c on c.job_id = m.id;
                get diagnostics got = row_count;
                remaining := remaining - got;
                if got < cardinality(n.freed) then
                    select array_agg(c.id), array_agg(c.failed) into others, others_failed
                    from unnest(n.freed, n.failed) as c(id, failed)
                    where c.id not in (select r.job_id from pgcelery.running r where r.worker_id = me);
                end if;
            else
                others := n.freed;
                others_failed := n.failed;
            end if;
            if others is not null then
                woken := woken || pgcelery.place_v2(others, others_failed, own, territory);
            end if;
        end if;
    end if;

    if next_due <= now() then
        with due as (
            select s.queue_id, s.due_at, s.seq
            from pgcelery.scheduled s
            where s.queue_id = any (all_ids) and s.due_at <= now()
            limit 1000
            for update skip locked
        ), gone as (
            delete from pgcelery.scheduled s
            using due d
            where s.queue_id = d.queue_id and s.due_at = d.due_at and s.seq = d.seq
            returning s.queue_id, s.priority, s.seq, s.job_id, s.deliveries, s.flags
        ), passed as (
            insert into pgcelery.ready (queue_id, priority, seq, job_id, deliveries, flags)
            select g.queue_id, g.priority, g.seq, g.job_id, g.deliveries, g.flags
            from gone g
            where g.flags & 2 = 0
        )
        select array_agg(g.job_id) as ids, array_agg(g.deliveries) as deliveries,
               array_agg(g.flags) as flags
        into a
        from gone g
        where g.flags & 2 = 2;
        if a.ids is not null then
            -- They come before the others of the next step; their lines are not locked in this one.
            woken := woken || pgcelery.come_v1(a.ids, a.deliveries, a.flags);
        end if;
        select min(d.due_at) into next_due
        from unnest(all_ids) as u(id),
             lateral (select s.due_at from pgcelery.scheduled s
                      where s.queue_id = u.id order by s.due_at limit 1) d;
    end if;

    if cardinality(names) > 0 then
        select * into a from pgcelery.admit_v3(names, keys, freed, remaining, turns);
        woken := woken || a.woken;
        if cardinality(a.handed) > 0 then
            return query
            with handed as (
                select j.id, j.queue_id, j.name, j.payload, j.priority, j.expires_at,
                       (j.flags & 3)::smallint as flags, u.deliveries, u.at, u.place
                from unnest(a.handed, a.handed_deliveries, a.handed_at)
                    with ordinality as u(id, deliveries, at, place)
                join pgcelery.jobs j on j.id = u.id
            ), claimed as (
                insert into pgcelery.running as c (token, job_id, worker_id, queue_id, delivery, flags,
                                                   started_at)
                select nextval('pgcelery.tokens'), m.id, me, m.queue_id, m.deliveries, m.flags, m.at
                from handed m
                order by m.place
                returning c.token, c.job_id
            )
            select 0, m.id, c.token, m.queue_id, m.name, m.payload, m.priority::integer,
                   m.deliveries::integer,
                   m.flags
                   | case when exists (select from pgcelery.cancels x where x.job_id = m.id)
                          then 8 else 0 end
                   | case when m.expires_at <= now() then 16 else 0 end,
                   null::text
            from handed m
            join claimed c on c.job_id = m.id;
            get diagnostics got = row_count;
            remaining := remaining - got;
        end if;
        if a.struck then
            return query select 10, null::text, null::bigint, null::integer, null::text, null::bytea,
                                null::integer, null::integer, null::integer, null::text;
        end if;
        if want > 0 and exists (select from pgcelery.timers) then
            select min(d.due_at) into next_turn
            from unnest(serves || late_ids,
                        array_fill(0::double precision, array[cardinality(serves)]) || late_s)
                     as u(id, after_s),
                 lateral (select t.due_at + make_interval(secs => u.after_s) as due_at
                          from pgcelery.timers t
                          where t.queue_id = u.id order by t.due_at limit 1) d;
        else
            next_turn := null;
        end if;
        struck := exists (select from pgcelery.ready r where r.queue_id = 0);
        lined := true;
    end if;
    if struck then
        return query select * from pgcelery.take_v1(me, 0, 0, 0::smallint, 100);
    end if;

    foreach q in array serves loop
        exit when remaining <= 0;
        fair := false;
        if lined then
            select i.priority into last from pgcelery.ready i
            where i.queue_id = -q order by i.priority limit 1;
            fair := found;
        end if;
        front := current_setting('pgcelery_claims.q' || q, true);
        if front <> '' and not fair then
            past_until := to_timestamp((front::bigint[])[1] / 1000.0);
            if past_until > clock_timestamp() then
                return query select * from pgcelery.take_past_v1(me, q, remaining);
                get diagnostics got = row_count;
                remaining := remaining - got;
                if remaining > 0 then
                    next_due := least(next_due, past_until);
                end if;
                continue;
            end if;
        end if;
        looked_at := clock_timestamp();
        if remaining = 1 and charity = 0 and not fair then
            select t.* into job_id, token, name, payload, priority, delivery, flags
            from pgcelery.take_one_v1(me, q, null) t;
            if job_id is not null then
                took := clock_timestamp() - looked_at;
                if took > interval '1 ms' or front <> '' then
                    perform pgcelery.watch_front_v1(q, took);
                end if;
                kind := 0;
                queue_id := q;
                return next;
                remaining := 0;
                exit;
            end if;
        end if;
        select i.priority into first from pgcelery.ready i
        where i.queue_id = q order by i.priority limit 1;
        lane := case when found then q end;
        took := clock_timestamp() - looked_at;
        if took > interval '1 ms' or front <> '' then
            perform pgcelery.watch_front_v1(q, took);
        end if;
        if lane is null and fair then
            lane := -q;
            first := last;
            fair := false;
        end if;
        continue when lane is null;
        if charity > 0 and not fair then
            select i.priority into last from pgcelery.ready i
            where i.queue_id = lane order by i.priority desc limit 1;
        end if;
        if fair or (charity > 0 and last > first) then
            return query
            select * from pgcelery.claim_v1(me, remaining, charity, array[q], null, null, patience_s);
        else
            return query
            with picked as (
                select r.ctid as at
                from pgcelery.ready r
                where r.queue_id = lane
                order by r.priority, r.tag, r.seq
                limit remaining
                for update skip locked
            ), gone as (
                delete from pgcelery.ready r
                using picked p
                where r.ctid = p.at
                returning r.job_id, r.deliveries, r.flags
            ), claimed as (
                insert into pgcelery.running as c (token, job_id, worker_id, queue_id, delivery, flags)
                select nextval('pgcelery.tokens'), g.job_id, me, q, g.deliveries + 1, g.flags
                from gone g
                returning c.token, c.job_id, c.delivery, c.flags
            )
            select 0, j.id, c.token, q, j.name, j.payload, j.priority::integer, c.delivery::integer,
                   c.flags
                   | case when exists (select from pgcelery.cancels x where x.job_id = c.job_id)
                          then 8 else 0 end
                   | case when j.expires_at <= now() then 16 else 0 end,
                   null::text
            from claimed c
            join pgcelery.jobs j on j.id = c.job_id;
        end if;
        get diagnostics got = row_count;
        remaining := remaining - got;
    end loop;
    if remaining > 0 and cardinality(late_ids) > 0 then
        return query
        select * from pgcelery.claim_v1(me, remaining, charity, '{}', late_ids, late_s, patience_s);
    end if;
    if refused is not null or told is not null or woken is not null then
        return query
        select 2, u.id, null::bigint, null::integer, u.reason, null::bytea, null::integer,
               null::integer, null::integer, null::text
        from unnest(refused, reasons) as u(id, reason)
        union all
        select 5, u.id, null, null, u.channel, null, null, null, null, null
        from unnest(told, channels) as u(id, channel)
        union all
        -- Who still has room has taken all there is of its own queues.
        select distinct 8, null, null::bigint, u.id, null, null::bytea, null::integer,
               null::integer, null::integer, null
        from unnest(woken) as u(id)
        where remaining <= 0 or u.id <> all (serves);
    end if;
    next_due := least(next_due, next_turn);
    if remaining > 0 and (coming or names is not null or woken is not null)
       and exists (select from pgcelery.comers) then
        next_due := now();
    end if;
    if remaining > 0 and next_due is not null then
        return query
        select 4, null::text, greatest(0, ceil(extract(epoch from next_due - now()) * 1000))::bigint,
               null::integer, null::text, null::bytea, null::integer, null::integer,
               null::integer, null::text;
    end if;
end
$$;
