-- Let through what fits in these lines, which are locked. Each gets its turn by weight: a job's tag is
-- the virtual time at which its line's turn is (start-time fair queueing), so a line with a million
-- jobs is served once while another one is. `handed` are jobs for the caller to claim, at most `room`;
-- `woken` queues that got work; `struck` when runs are to be cancelled.
create function pgcelery.admit_v2(
    names text[], keys text[], room integer, queue_ids integer[],
    out woken integer[], out handed text[], out handed_deliveries smallint[], out struck boolean
)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    line pgcelery.lines;
    p record;
    peaks bigint[];
    lanes integer[];
begin
    struck := false;
    handed := '{}';
    handed_deliveries := '{}';
    with open as (
        select l.name, l.key, l.tag, (1048576 / l.weight)::bigint as cost,
               least(coalesce(l.slots - l.in_use, 1000), 1000) as free
        from (select distinct u.name, u.key from unnest(names, keys) as u(name, key)) u
        join pgcelery.lines l on l.name = u.name and l.key = u.key
        where l.rate is null and l.strategy = 0 and not l.several
          and (l.slots is null or l.in_use < l.slots)
    ), next as (
        select o.name, o.key, o.tag, o.cost, o.free, w.priority, w.seq, w.queue_id,
               row_number() over (partition by o.name, o.key order by w.priority, w.seq) - 1 as turn
        from open o
        cross join lateral (
            select i.priority, i.seq, i.queue_id
            from pgcelery.gated i
            where i.name = o.name and i.key = o.key
            order by i.priority, i.seq
            limit o.free
        ) w
    ), clocks as materialized (
        select c.queue_id, c.priority, pgcelery.lane_tag_v1(c.queue_id, c.priority) as tag
        from (select distinct n.queue_id, n.priority from next n) c
    ), placed as (
        select n.name, n.key, n.priority, n.seq, n.queue_id, n.cost,
               greatest(n.tag, c.tag) + n.turn * n.cost as tag
        from next n
        join clocks c on c.queue_id = n.queue_id and c.priority = n.priority
    ), gone as (
        delete from pgcelery.gated i
        using placed x
        where i.name = x.name and i.key = x.key and i.priority = x.priority and i.seq = x.seq
        returning x.queue_id, x.priority, x.tag, x.seq, i.job_id, i.deliveries, i.flags
    ), passed as (
        insert into pgcelery.ready (queue_id, priority, tag, seq, job_id, deliveries, flags)
        select -g.queue_id, g.priority, g.tag, g.seq, g.job_id, g.deliveries, g.flags from gone g
    ), counted as (
        update pgcelery.lines l
        set in_use = l.in_use + t.many, tag = t.tag
        from (select x.name, x.key, count(*)::integer as many, max(x.tag + x.cost) as tag
              from placed x group by x.name, x.key) t
        where l.name = t.name and l.key = t.key
    ), unended as (
        insert into pgcelery.comers (name, key, queue_id)
        select n.name, n.key, min(n.queue_id) from next n
        group by n.name, n.key, n.free
        having count(*) = 1000
    )
    select array_agg(t.queue_id order by t.queue_id), array_agg(t.tag order by t.queue_id)
    into lanes, peaks
    from (select x.queue_id, max(x.tag) as tag from placed x group by x.queue_id) t;
    woken := coalesce(lanes, '{}');

    for line in
        select l.*
        from (select distinct u.name, u.key from unnest(names, keys) as u(name, key)) u
        join pgcelery.lines l on l.name = u.name and l.key = u.key
        where l.rate is not null or l.strategy > 0 or l.several
        order by l.name, l.key
    loop
        if line.strategy > 0 and line.rate is null and line.slots is not null then
            struck := pgcelery.strike_v1(line) or struck;
        end if;
        select * into p from pgcelery.pass_v1(line.name, line.key, room - cardinality(handed), queue_ids);
        woken := woken || coalesce(p.woken, '{}');
        handed := handed || coalesce(p.handed, '{}');
        handed_deliveries := handed_deliveries || coalesce(p.deliveries, '{}');
        if p.due is not null then
            insert into pgcelery.timers as t (queue_id, name, key, due_at)
            select w.queue_id, line.name, line.key, p.due
            from unnest(queue_ids) as w(queue_id)
            where exists (select from pgcelery.gated g
                          where g.name = line.name and g.key = line.key and g.queue_id = w.queue_id)
            on conflict (queue_id, name, key) do update set due_at = excluded.due_at;
        end if;
    end loop;

    if lanes is not null then
        -- Whoever finds it taken leaves it: the tags in `ready` count as long as there are any.
        insert into pgcelery.lanes (queue_id, tag)
        select u.id, 0 from unnest(lanes) as u(id)
        where not exists (select from pgcelery.lanes a where a.queue_id = u.id)
        on conflict (queue_id) do nothing;
        with free as (
            select a.queue_id, u.tag
            from unnest(lanes, peaks) as u(id, tag)
            join pgcelery.lanes a on a.queue_id = u.id and a.tag < u.tag
            for update of a skip locked
        )
        update pgcelery.lanes a set tag = f.tag from free f where a.queue_id = f.queue_id;
    end if;
end
$$;
