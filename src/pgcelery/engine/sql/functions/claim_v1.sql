-- Claim up to `want` jobs that are ready in these queues, for one worker: by priority, and within one
-- by turns from a queue's two lanes. Of each claim `charity` go to a lower priority that has waited for
-- longer than patience_s: an eighth of `want`; of small ones, one in eight. `late_ids` are queues whose jobs this
-- worker may have when nobody who suits them better has taken them within `late_s` seconds.
-- Rows as of step_v3: kind 0, and 4 when a late queue has something that is not late enough.
create function pgcelery.claim_v1(
    me integer, want integer, charity integer, queue_ids integer[], late_ids integer[], late_s double precision[],
    patience_s double precision
) returns table (kind integer, job_id text, token bigint, queue_id integer, name text,
                 payload bytea, priority integer, delivery integer, flags integer, fed_by text)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    remaining integer := want;
    q integer;
    lane integer;
    got integer;
    level smallint;
    fifo boolean;
    fair boolean;
    early_s double precision;
    soonest_s double precision;
begin
    if cardinality(late_ids) > 0 then
        select coalesce(array_agg(u.id), '{}'), coalesce(array_agg(u.s), '{}') into late_ids, late_s
        from unnest(late_ids, late_s) as u(id, s)
        where u.id > 0 and (exists (select from pgcelery.ready r where r.queue_id = u.id)
                            or exists (select from pgcelery.ready r where r.queue_id = -u.id));
    end if;
    for place in 1..cardinality(queue_ids) + coalesce(cardinality(late_ids), 0) loop
        q := case when place <= cardinality(queue_ids) then queue_ids[place]
                  else late_ids[place - cardinality(queue_ids)] end;
        fifo := exists (select from pgcelery.ready r where r.queue_id = q);
        fair := exists (select from pgcelery.ready r where r.queue_id = -q);
        continue when not (fifo or fair);
        lane := case when fair and (not fifo or random() < 0.5) then -q else q end;
        if place > cardinality(queue_ids) then
            select late_s[place - cardinality(queue_ids)]
                   - extract(epoch from clock_timestamp() - greatest(j.created_at, j.due_at))
            into early_s
            from (select r.job_id from pgcelery.ready r
                  where r.queue_id = lane
                  order by r.priority, r.tag, r.seq limit 1) h
            join pgcelery.jobs j on j.id = h.job_id;
            continue when not found;  -- taken a moment ago by who suits it better
            if early_s > 0 then
                soonest_s := least(soonest_s, early_s);
                continue;
            end if;
        end if;

        if charity > 0
           and (select r.priority from pgcelery.ready r where r.queue_id = lane
                order by r.priority limit 1)
             < (select r.priority from pgcelery.ready r where r.queue_id = lane
                order by r.priority desc limit 1) then
            level := pgcelery.neglected_v1(lane, patience_s);
            if level is not null then
                return query
                select * from pgcelery.take_v1(me, q, lane, level, least(charity, remaining));
                get diagnostics got = row_count;
                remaining := remaining - got;
                exit when remaining <= 0;
            end if;
        end if;
        if fifo and fair then
            return query select * from pgcelery.take_turns_v1(me, q, remaining);
        else
            return query select * from pgcelery.take_v1(me, q, lane, 0::smallint, remaining);
        end if;
        get diagnostics got = row_count;
        remaining := remaining - got;
        exit when remaining <= 0;
    end loop;
    if soonest_s is not null then
        return query
        select 4, null::text, ceil(soonest_s * 1000)::bigint, null::integer, null::text, null::bytea,
               null::integer, null::integer, null::integer, null::text;
    end if;
end
$$;
