-- What a line's strategy cancels, before it lets through: 1 what finds no slot, 2 what runs for the
-- sake of what is newer, 3 what finds no slot and is not the newest. What waits is moved to where it is ended
-- without running (queue 0 of `ready`; flags 2048 no slot, 4096 a newer one came); what runs gets a
-- wish to be cancelled. The line is locked. Returns whether runs are to be cancelled.
create function pgcelery.strike_v1(line pgcelery.lines) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    free integer := line.slots - line.in_use;
    kept integer := case when line.strategy = 1 then 0 when line.strategy = 2 then line.slots else 1 end;
    waiting integer;
    surplus integer;
begin
    -- One that has run before has its place: it is not a newcomer, and nobody's rival.
    with newcomers as (
        select g.priority, g.seq, g.job_id, j.last_token is null and g.deliveries = 0 as fresh,
               row_number() over (order by g.priority, g.seq) as place,
               row_number() over (order by g.seq desc) as youth
        from pgcelery.gated g
        join pgcelery.jobs j on j.id = g.job_id
        where g.name = line.name and g.key = line.key
    ), gone as (
        delete from pgcelery.gated g
        using newcomers c
        where c.fresh and c.youth > kept and (line.strategy = 2 or c.place > free)
          and g.name = line.name and g.key = line.key and g.priority = c.priority and g.seq = c.seq
        returning g.priority, g.seq, g.job_id, g.deliveries, g.flags
    )
    insert into pgcelery.ready (queue_id, priority, tag, seq, job_id, deliveries, flags)
    select 0, g.priority, 0, g.seq, g.job_id, g.deliveries,
           g.flags & ~2 | case when line.strategy = 1 then 2048 else 4096 end
    from gone g;
    if line.strategy <> 2 then
        return false;
    end if;

    select count(*)::integer into waiting
    from (select from pgcelery.gated g where g.name = line.name and g.key = line.key limit kept) w;
    surplus := line.in_use + waiting - line.slots;
    if surplus <= 0 then
        return false;
    end if;
    with holders as (
        select r.job_id, r.token as place from pgcelery.running r where r.flags & 2 = 2
        union all
        select r.job_id, 9223372036854775807 from pgcelery.ready r
        where r.queue_id < 0 and r.flags & 2 = 2
    ), mine as (
        select h.job_id, h.place, row_number() over (order by h.place, j.seq) as turn
        from holders h
        join pgcelery.jobs j on j.id = h.job_id
        where exists (select from unnest(j.gates) g
                      where g.name = line.name and g.key = line.key and g.rate is null)
    )
    insert into pgcelery.cancels (job_id, terminate, signum)
    select m.job_id, true, 15 from mine m where m.turn <= surplus order by m.job_id
    on conflict (job_id) do nothing;
    return found;
end
$$;
