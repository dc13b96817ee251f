-- Let through one line, job by job: for lines with a rate, and those whose jobs may have other gates
-- too. A job passes when all its gates are open at once; else it moves to the line of one that is not,
-- and holds nothing meanwhile. Where a rate is to be passed, a job goes straight to the node that asks
-- (`handed`), and only while that has room: a start is a start, and not a place in a queue. Lines of
-- the caller's are locked; others are looked at if nobody else has them. `due`: when the head of the
-- line may go, if it waits for time.
create function pgcelery.pass_v1(
    of_name text, of_key text, room integer, queue_ids integer[],
    out left_room integer, out woken integer[], out handed text[],
    out deliveries smallint[], out due timestamptz
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
    shut pgcelery.gate;    -- the gate that is not open
    fair pgcelery.gate;    -- whose turn it is
    rated pgcelery.gate;
    opens timestamptz;
    units double precision;
    busy boolean := false;
    at timestamptz := clock_timestamp();
begin
    left_room := room;
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
        shut := null; fair := null; rated := null; opens := null;
        foreach g in array coalesce(gates, '{}') loop
            select * into other from pgcelery.lines l
            where l.name = g.name and l.key = g.key
            for update skip locked;
            if not found then  -- somebody has it, or nobody has made it yet
                insert into pgcelery.comers (name, key, queue_id, own, several)
                values (g.name, g.key, c.queue_id, g, true),
                       (of_name, of_key, c.queue_id, null, true);
                busy := true;
                exit;
            end if;
            if other.rate is null then
                fair := coalesce(fair, g);
                if other.in_use >= other.slots then
                    shut := g;
                    exit;
                end if;
                continue;
            end if;
            rated := coalesce(rated, g);
            units := greatest(g.units, 1);
            opens := case
                when other.fixed and (other.tat is null or at >= other.tat + make_interval(secs => other.period_s))
                    then null
                when other.fixed
                    then case when other.used = 0 or other.used + units <= other.rate then null
                              else other.tat + make_interval(secs => other.period_s) end
                else greatest(other.tat, at) + make_interval(
                    secs => (units - greatest(other.burst, units)) * other.period_s / other.rate) end;
            if opens > at then
                shut := g;
                exit;
            end if;
            opens := null;
        end loop;
        exit when busy;
        if shut.name is null and rated.name is not null
           and (left_room <= 0 or queue_ids is null or c.queue_id <> all (queue_ids)) then
            shut := rated;
            opens := at;
        end if;

        if shut.name = of_name and shut.key = of_key then
            due := opens;
            exit;
        end if;
        delete from pgcelery.gated w
        where w.name = of_name and w.key = of_key and w.priority = c.priority and w.seq = c.seq;
        if shut.name is not null then
            insert into pgcelery.gated (name, key, priority, seq, job_id, queue_id, deliveries, flags)
            values (shut.name, shut.key, c.priority, c.seq, c.job_id, c.queue_id, c.deliveries, c.flags);
            update pgcelery.lines l set several = true
            where l.name = shut.name and l.key = shut.key and not l.several;
            if shut.rate is not null then
                insert into pgcelery.timers as t (queue_id, name, key, due_at)
                values (c.queue_id, shut.name, shut.key, opens)
                on conflict (queue_id, name, key) do nothing;
                woken := woken || c.queue_id;
            end if;
            continue;
        end if;

        update pgcelery.lines l
        set in_use = l.in_use + case when l.rate is null then 1 else 0 end,
            used = case when not l.fixed then 0
                        when l.tat is null or at >= l.tat + make_interval(secs => l.period_s) then x.units
                        else l.used + x.units end,
            tat = case when l.rate is null then null
                       when not l.fixed then greatest(l.tat, at)
                            + make_interval(secs => x.units * l.period_s / l.rate)
                       when l.tat is null or at >= l.tat + make_interval(secs => l.period_s) then at
                       else l.tat end
        from unnest(gates) x
        where l.name = x.name and l.key = x.key;
        if rated.name is not null then
            handed := handed || c.job_id;
            deliveries := deliveries || (c.deliveries + 1)::smallint;
            left_room := left_room - 1;
            if fair.name is not null then
                update pgcelery.lines l
                set tag = greatest(l.tag, pgcelery.lane_tag_v1(c.queue_id, c.priority))
                          + (1048576 / l.weight)::bigint
                where l.name = fair.name and l.key = fair.key;
            end if;
        else
            update pgcelery.lines l
            set tag = greatest(l.tag, pgcelery.lane_tag_v1(c.queue_id, c.priority))
                      + (1048576 / l.weight)::bigint
            where l.name = fair.name and l.key = fair.key
            returning l.* into other;
            insert into pgcelery.ready (queue_id, priority, tag, seq, job_id, deliveries, flags)
            values (-c.queue_id, c.priority, other.tag - (1048576 / other.weight)::bigint, c.seq, c.job_id,
                    c.deliveries, c.flags);
            woken := woken || c.queue_id;
        end if;
    end loop;

    if line.rate is not null and due is null and not busy then
        -- It ran out of jobs, of room, or of passes; what is left goes on as soon as there is room.
        due := at;
    end if;
    if line.rate is null and not busy and c.job_id is not null
       and (line.slots is null or line.in_use < line.slots)
       and exists (select from pgcelery.gated w where w.name = of_name and w.key = of_key) then
        insert into pgcelery.comers (name, key, queue_id) values (of_name, of_key, c.queue_id);
    end if;
end
$$;
