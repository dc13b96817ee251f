-- Let through what fits in these lines, which are locked, after `freed` slots of each were given back.
-- Each gets its turn by weight: a job's tag is the virtual time at which its line's turn is (start-time
-- fair queueing), so a line with a million jobs is served once while another one is. A line has one debt
-- wherever its jobs are: it is by how much its tag is ahead of the clock that it counts by. `handed` are
-- jobs for the caller to claim, at most `room`, with the times at which they start; `woken` queues that
-- got work; `struck` when runs are to be cancelled.
--
-- Rows that one statement has found it finds again by their ctid: its snapshot keeps them where they are.
-- Nothing is joined that was found here, but for the few clocks: without an index that would take as long
-- as the square of the lines.
create function pgcelery.admit_v3(
    names text[], keys text[], freed integer[], room integer, queue_ids integer[],
    out woken integer[], out handed text[], out handed_deliveries smallint[],
    out handed_at timestamptz[], out struck boolean
)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_memoize = off
set plan_cache_mode = force_generic_plan
as $$
declare
    line pgcelery.lines;
    at record;
    slow_names text[];   -- lines that are looked at job by job: with a rate, with a strategy, or where
    slow_keys text[];    -- somebody waits who has other gates too
    p record;
    peaks bigint[];
    lanes integer[];
begin
    struck := false;
    handed := '{}'::text[];
    handed_deliveries := '{}'::smallint[];
    with looked as materialized (
        select l.ctid as at, l.name, l.key, l.tag, l.lane, l.level, u.freed,
               (1048576 / l.weight)::bigint as cost, l.rate is not null or l.strategy > 0 as slow,
               greatest(0, least(coalesce(l.slots - greatest(0, l.in_use - u.freed), 1000), 1000)) as free
        from (select w.name, w.key, sum(w.freed)::integer as freed
              from unnest(names, keys, freed) as w(name, key, freed)
              group by w.name, w.key) u
        join pgcelery.lines l on l.name = u.name and l.key = u.key
    ), seen as (
        select k.at, k.name, k.key, k.tag, k.lane, k.level, k.cost, w.place, w.priority, w.seq,
               w.queue_id,
               row_number() over (partition by k.at order by w.priority, w.seq) - 1 as turn,
               bool_or(w.flags & 8192 > 0) over (partition by k.at) as mixed
        from looked k
        cross join lateral (
            select i.ctid as place, i.priority, i.seq, i.queue_id, i.flags
            from pgcelery.gated i
            where i.name = k.name and i.key = k.key
            order by i.priority, i.seq
            limit k.free
        ) w
        where not k.slow and k.free > 0
    ), clocks as materialized (
        select c.queue_id, c.priority, coalesce(
                   (select r.tag from pgcelery.ready r
                    where r.queue_id = -c.queue_id and r.priority = c.priority
                    order by r.tag limit 1),
                   (select a.tag from pgcelery.lanes a where a.queue_id = c.queue_id), 0) as tag
        from (select s.queue_id, s.priority from seen s where not s.mixed
              union
              select s.lane, s.level from seen s where not s.mixed) c
    ), placed as (
        select s.at, s.place, s.cost, s.turn,
               c.tag + greatest(0, s.tag - case when s.lane = 0 then s.tag else h.tag end)
               + s.turn * s.cost as tag
        from seen s
        join clocks c on c.queue_id = s.queue_id and c.priority = s.priority
        join clocks h on h.queue_id = s.lane and h.priority = s.level
        where not s.mixed
    ), gone as (
        delete from pgcelery.gated i
        using placed x
        where i.ctid = x.place
        returning x.at, x.tag, x.cost, x.turn, i.queue_id, i.priority, i.seq, i.job_id, i.deliveries,
                  i.flags
    ), passed as (
        insert into pgcelery.ready (queue_id, priority, tag, seq, job_id, deliveries, flags)
        select -g.queue_id, g.priority, g.tag, g.seq, g.job_id, g.deliveries, g.flags from gone g
    ), changes as (
        select distinct on (c.at) c.at, c.tag, c.queue_id, c.priority,
               sum(c.freed) over w as freed, sum(c.let) over w as let
        from (select g.at, g.turn, g.tag + g.cost as tag, g.queue_id, g.priority, 0 as freed, 1 as let
              from gone g
              union all
              select k.at, -1, k.tag, k.lane, k.level, k.freed, 0 from looked k where k.freed > 0) c
        window w as (partition by c.at)
        order by c.at, c.turn desc
    ), counted as (
        update pgcelery.lines l
        set in_use = greatest(0, l.in_use - c.freed) + c.let, tag = c.tag, lane = c.queue_id,
            level = c.priority
        from changes c
        where l.ctid = c.at
    ), unended as (
        -- There may be more; or somebody was just deleting one of those, a cancel or a purge, which do not
        -- always lock its line, and whoever is behind that one was not looked at.
        insert into pgcelery.comers (name, key, queue_id)
        select s.name, s.key, s.queue_id
        from seen s
        where not s.mixed
          and (s.turn = 999
               or (s.turn = 0 and (select count(*) from gone)
                                  < (select count(*) from seen x where not x.mixed)))
        returning queue_id
    ), slow as (
        select k.name, k.key from looked k where k.slow
        union
        select s.name, s.key from seen s where s.mixed
    )
    select array_agg(t.queue_id), array_agg(t.tag),
           array(select m.name from slow m order by m.name collate "C", m.key collate "C"),
           array(select m.key from slow m order by m.name collate "C", m.key collate "C"),
           array(select u.queue_id from unended u)
    into lanes, peaks, slow_names, slow_keys, woken
    from (select g.queue_id, max(g.tag) as tag from gone g group by g.queue_id) t;

    for at in
        select u.name, u.key from unnest(slow_names, slow_keys) with ordinality as u(name, key, place)
        order by u.place
    loop
        -- As it is after the ones before, whose jobs may have passed this one too.
        select * into line from pgcelery.lines l where l.name = at.name and l.key = at.key;
        if line.strategy > 0 and line.rate is null and line.slots is not null then
            struck := pgcelery.strike_v1(line) or struck;
        end if;
        select * into p from pgcelery.pass_v1(line.name, line.key, room - cardinality(handed), queue_ids);
        lanes := lanes || p.woken;
        peaks := peaks || p.peaks;
        handed := handed || coalesce(p.handed, '{}');
        handed_deliveries := handed_deliveries || coalesce(p.deliveries, '{}');
        handed_at := handed_at || array_fill(p.at, array[coalesce(cardinality(p.handed), 0)]);
        if p.due is not null then
            with set as (
                insert into pgcelery.timers as t (queue_id, name, key, due_at)
                select w.queue_id, line.name, line.key, p.due
                from unnest(queue_ids) as w(queue_id)
                where exists (select from pgcelery.gated g
                              where g.name = line.name and g.key = line.key
                                and g.queue_id = w.queue_id)
                on conflict (queue_id, name, key) do update set due_at = excluded.due_at
                returning t.queue_id
            )
            -- A node that is full now leaves it to another one.
            select woken || array_agg(s.queue_id) into woken
            from set s
            where room <= cardinality(handed);
        end if;
    end loop;
    if exists (select from pgcelery.timers) then
        delete from pgcelery.timers t
        using (select distinct u.name, u.key from unnest(names, keys) as u(name, key)) u
        join pgcelery.lines l on l.name = u.name and l.key = u.key
        where t.queue_id = any (queue_ids) and t.name = u.name and t.key = u.key
          and (l.rate is null
               or not exists (select from pgcelery.gated g
                              where g.name = t.name and g.key = t.key and g.queue_id = t.queue_id));
    end if;

    woken := coalesce(woken, '{}') || array(select distinct u.id from unnest(lanes) as u(id));
    if lanes is not null then
        -- Whoever finds it taken leaves it: the tags in `ready` count as long as there are any.
        insert into pgcelery.lanes (queue_id, tag)
        select distinct u.id, 0 from unnest(lanes) as u(id)
        where not exists (select from pgcelery.lanes a where a.queue_id = u.id)
        on conflict (queue_id) do nothing;
        with free as (
            select a.queue_id, u.tag
            from (select i.id, max(i.tag) as tag from unnest(lanes, peaks) as i(id, tag)
                  group by i.id) u
            join pgcelery.lanes a on a.queue_id = u.id and a.tag < u.tag
            for update of a skip locked
        )
        update pgcelery.lanes a set tag = f.tag from free f where a.queue_id = f.queue_id;
    end if;
end
$$;
