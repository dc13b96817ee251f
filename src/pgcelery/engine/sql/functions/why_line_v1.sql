-- What is to be known of the line that a job waits in: how full it is, who holds its slots (the first
-- ten), when its rate opens, how many are before it (up to 1000). Part of why_v1, in its snapshot.
create function pgcelery.why_line_v1(said pgcelery.gate, of_priority smallint, of_seq bigint)
returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
declare
    line pgcelery.lines;
    now_said pgcelery.gate;
    holders jsonb := jsonb '[]';
    ahead integer;
begin
    select * into line from pgcelery.lines l where l.name = said.name and l.key = said.key;
    if not found then  -- nobody has looked at it yet
        select * into now_said from pgcelery.in_force_v1(said);
        line.name := said.name;
        line.key := said.key;
        line.slots := now_said.slots;
        line.strategy := now_said.strategy;
        line.rate := now_said.rate;
        line.period_s := now_said.period_s;
        line.burst := now_said.burst;
        line.fixed := now_said.fixed;
        line.in_use := 0;
        line.used := 0;
    end if;
    select count(*)::integer into ahead
    from (select from pgcelery.gated w
          where w.name = said.name and w.key = said.key
            and (w.priority, w.seq) < (of_priority, of_seq)
          limit 1000) b;

    if line.in_use > 0 then
        select coalesce(jsonb_agg(to_jsonb(h) order by h.since), '[]') into holders
        from (select r.job_id as id, j.name, w.name as worker, r.started_at as since,
                     exists (select from pgcelery.cancels x where x.job_id = r.job_id) as cancelled
              from pgcelery.running r
              join pgcelery.jobs j on j.id = r.job_id
              left join pgcelery.workers w on w.id = r.worker_id
              where r.flags & 2 = 2
                and exists (select from unnest(j.gates) g
                            where g.name = said.name and g.key = said.key and g.rate is null)
              order by r.token
              limit 10) h;
    end if;
    if jsonb_array_length(holders) < least(line.in_use, 10) then
        -- Let through, and not claimed yet. Whoever holds a slot is near the head of its lane.
        select holders || coalesce(jsonb_agg(to_jsonb(h)), '[]') into holders
        from (select r.job_id as id, j.name, null as worker, null as since,
                     exists (select from pgcelery.cancels x where x.job_id = r.job_id) as cancelled
              from (select i.job_id from pgcelery.ready i
                    where i.queue_id < 0 and i.flags & 2 = 2
                    limit 1000) r
              join pgcelery.jobs j on j.id = r.job_id
              where exists (select from unnest(j.gates) g
                            where g.name = said.name and g.key = said.key and g.rate is null)
              limit 10 - jsonb_array_length(holders)) h;
    end if;

    return jsonb_build_object(
        'name', line.name, 'key', line.key, 'slots', line.slots, 'in_use', line.in_use,
        'strategy', line.strategy, 'rate', line.rate, 'period_s', line.period_s,
        'burst', line.burst, 'fixed', line.fixed, 'used', line.used, 'tat', line.tat,
        'units', greatest(said.units, 1),
        'opens_at', pgcelery.opens_v1(line, greatest(said.units, 1), statement_timestamp()),
        'ahead', ahead, 'holders', holders,
        'set_at', (select m.set_at from pgcelery.limits m
                   where m.name = said.name and (m.key = said.key or m.key is null)
                     and case when line.rate is null then m.slots is not null
                              else m.rate is not null end
                   order by m.key is null limit 1));
end
$$;
