-- Let through one line, job by job: for lines with a rate, with a strategy, and those whose jobs may
-- have other gates too. A job passes when all its gates are open at once; else it moves to the line of
-- one that is not, and holds nothing meanwhile. Where a rate is to be passed, a job goes straight to
-- the node that asks (`handed`, starting `at`), and only while that has room: a start is a start, and
-- not a place in a queue. The line itself is locked; others are taken if nobody has them. A job counts
-- where its own gate counts slots, whatever newer jobs have made of that line: so it gives back what it
-- took. `due`: when the line is to be looked at again, if it has a rate. `peaks`: the tags of `woken`.
create function pgcelery.pass_v1(
    of_name text, of_key text, room integer, queue_ids integer[],
    out woken integer[], out peaks bigint[], out handed text[], out deliveries smallint[],
    out at timestamptz, out due timestamptz
)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    line pgcelery.lines;
    other pgcelery.lines;
    c pgcelery.gated;
    gates pgcelery.gate[];
    g pgcelery.gate;
    shut pgcelery.gate;    -- the gate that is not open,
    rival boolean;         -- whose line does not let everybody wait
    fair pgcelery.gate;    -- whose turn it is
    rated pgcelery.gate;
    opens timestamptz;
    start bigint;
    clock bigint;
    busy boolean := false;
    left_room integer := room;
begin
    at := clock_timestamp();
    for pass in 1..500 loop
        select * into line from pgcelery.lines l where l.name = of_name and l.key = of_key;
        exit when not found or line.in_use >= line.slots;
        if line.rate is not null then
            select * into c from pgcelery.gated w
            where w.name = of_name and w.key = of_key and w.queue_id = any (queue_ids)
            order by w.priority, w.seq limit 1;
        else
            select * into c from pgcelery.gated w
            where w.name = of_name and w.key = of_key
            order by w.priority, w.seq limit 1;
        end if;
        exit when not found;

        select j.gates into gates from pgcelery.jobs j where j.id = c.job_id;
        shut := null; rival := false; fair := null; rated := null; opens := null;
        foreach g in array coalesce(gates, '{}') loop
            select * into other from pgcelery.lines l
            where l.name = g.name and l.key = g.key
            for update skip locked;
            if not found then
                busy := true;
                exit;
            end if;
            if g.rate is null then
                if fair.name is null then
                    fair := g;
                end if;
                if other.in_use >= other.slots then
                    shut := g;
                    rival := other.strategy > 0;
                    exit;
                end if;
                continue;
            end if;
            if rated.name is null then
                rated := g;
            end if;
            opens := pgcelery.opens_v1(other, g.units, at);
            if opens > at then
                shut := g;
                exit;
            end if;
            opens := null;
        end loop;
        if busy then  -- somebody has it, or nobody has made it yet
            insert into pgcelery.comers (name, key, queue_id, own)
            select g.name, g.key, c.queue_id,
                   row(g.name, g.key, g.slots, g.weight, g.strategy, g.rate, g.period_s, g.burst,
                       g.fixed, 1)::pgcelery.gate
            where not exists (select from pgcelery.lines l where l.name = g.name and l.key = g.key);
            if line.rate is null then
                insert into pgcelery.comers (name, key, queue_id) values (of_name, of_key, c.queue_id);
            end if;
            exit;
        end if;
        if shut.name is null and rated.name is not null
           and (left_room <= 0 or queue_ids is null or c.queue_id <> all (queue_ids)) then
            shut := rated;
            opens := at;
        end if;

        if shut.name is not null and shut.name = of_name and shut.key = of_key then
            due := opens;
            exit;
        end if;
        delete from pgcelery.gated w
        where w.name = of_name and w.key = of_key and w.priority = c.priority and w.seq = c.seq;
        continue when not found or gates is null;  -- purged meanwhile
        if shut.name is not null then
            insert into pgcelery.gated (name, key, priority, seq, job_id, queue_id, deliveries, flags)
            values (shut.name, shut.key, c.priority, c.seq, c.job_id, c.queue_id, c.deliveries, c.flags);
            if shut.rate is not null then
                insert into pgcelery.timers as t (queue_id, name, key, due_at)
                values (c.queue_id, shut.name, shut.key, opens)
                on conflict (queue_id, name, key) do nothing;
                woken := woken || c.queue_id;
                peaks := peaks || 0::bigint;
            elsif rival then
                insert into pgcelery.comers (name, key, queue_id)
                values (shut.name, shut.key, c.queue_id);
            end if;
            continue;
        end if;

        update pgcelery.lines l
        set in_use = l.in_use + case when x.rate is null then 1 else 0 end,
            used = case when x.rate is null or l.rate is null then l.used
                        when not l.fixed then 0
                        when l.tat is null or at >= l.tat + make_interval(secs => l.period_s) then x.units
                        else l.used + x.units end,
            tat = case when x.rate is null or l.rate is null then l.tat
                       when not l.fixed then greatest(l.tat, at)
                            + make_interval(secs => x.units * l.period_s / l.rate)
                       when l.tat is null or at >= l.tat + make_interval(secs => l.period_s) then at
                       else l.tat end
        from unnest(gates) x
        where l.name = x.name and l.key = x.key;
        if fair.name is not null then
            select * into other from pgcelery.lines l where l.name = fair.name and l.key = fair.key;
            clock := pgcelery.lane_tag_v1(c.queue_id, c.priority);
            start := clock + greatest(0, case
                when other.lane = 0 then 0
                when other.lane = c.queue_id and other.level = c.priority then other.tag - clock
                else other.tag - pgcelery.lane_tag_v1(other.lane, other.level) end);
            update pgcelery.lines l
            set tag = start + (1048576 / l.weight)::bigint, lane = c.queue_id, level = c.priority
            where l.name = fair.name and l.key = fair.key;
        end if;
        if rated.name is not null then
            handed := handed || c.job_id;
            deliveries := deliveries || (c.deliveries + 1)::smallint;
            left_room := left_room - 1;
        else
            insert into pgcelery.ready (queue_id, priority, tag, seq, job_id, deliveries, flags)
            values (-c.queue_id, c.priority, start, c.seq, c.job_id, c.deliveries, c.flags & ~8192);
        end if;
        if fair.name is not null then
            woken := woken || c.queue_id;
            peaks := peaks || start;
        end if;
    end loop;

    if line.rate is not null then
        -- It ran out of jobs, of room, or of passes; what is left goes on as soon as there is room.
        due := coalesce(due, at);
    elsif not busy and c.job_id is not null and (line.slots is null or line.in_use < line.slots)
          and exists (select from pgcelery.gated w where w.name = of_name and w.key = of_key) then
        insert into pgcelery.comers (name, key, queue_id) values (of_name, of_key, c.queue_id);
    end if;
end
$$;
