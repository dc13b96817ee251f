-- Claim up to `most` jobs of a queue's plain lane past its floors: what lies below has been claimed, and
-- cannot be cleaned away while somebody's snapshot could see it. There is a floor for each priority from
-- 0 to 9 (watch_front_v1), so that a new job of a higher priority is found. What came back, or was sent
-- by a transaction that took longer, may be below one: it is found when the floors are over.
-- Rows as of step_v4.
create function pgcelery.take_past_v1(me integer, of_queue integer, most integer)
returns table (kind integer, job_id text, token bigint, queue_id integer, name text,
               payload bytea, priority integer, delivery integer, flags integer, fed_by text)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    setting text := 'pgcelery_claims.q' || of_queue;
    until_ms bigint := (current_setting(setting)::bigint[])[1];
    floors bigint[] := (current_setting(setting)::bigint[])[2:];
    newest bigint := coalesce(pg_sequence_last_value('pgcelery.jobs_seq_seq'), 0);
    levels integer[];
    level integer;
    remaining integer := most;
    got integer;
begin
    select array_agg(coalesce(n.seq - 1, newest) order by u.place),
           array_agg(u.place - 1 order by u.place) filter (where n.seq is not null)
    into floors, levels
    from unnest(floors) with ordinality as u(seq, place)
    left join lateral (select r.seq from pgcelery.ready r
                       where r.queue_id = of_queue and r.priority = (u.place - 1)::smallint
                         and r.tag = 0 and r.seq > u.seq
                       order by r.seq limit 1) n on true;
    perform set_config(setting, (until_ms || floors)::text, false);
    foreach level in array coalesce(levels, '{}') loop
        exit when remaining <= 0;
        return query
        with picked as (
            select r.ctid as at
            from pgcelery.ready r
            where r.queue_id = of_queue and r.priority = level::smallint
              and r.tag = 0 and r.seq > floors[level + 1]
            order by r.seq
            limit remaining
            for update skip locked
        ), gone as (
            delete from pgcelery.ready r
            using picked p
            where r.ctid = p.at
            returning r.job_id, r.deliveries, r.flags
        ), claimed as (
            insert into pgcelery.running as c (token, job_id, worker_id, queue_id, delivery, flags)
            select nextval('pgcelery.tokens'), g.job_id, me, of_queue, g.deliveries + 1, g.flags
            from gone g
            returning c.token, c.job_id, c.delivery, c.flags
        )
        select 0, j.id, c.token, of_queue, j.name, j.payload, j.priority::integer,
               c.delivery::integer,
               c.flags
               | case when exists (select from pgcelery.cancels x where x.job_id = c.job_id)
                      then 8 else 0 end
               | case when j.expires_at <= now() then 16 else 0 end,
               null::text
        from claimed c
        join pgcelery.jobs j on j.id = c.job_id;
        get diagnostics got = row_count;
        remaining := remaining - got;
    end loop;
    if remaining > 0 then
        return query select * from pgcelery.take_v1(me, of_queue, of_queue, 10::smallint, remaining);
    end if;
end
$$;
