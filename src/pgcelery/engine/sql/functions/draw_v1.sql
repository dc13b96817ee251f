-- Claim for one worker, from throttled places, as many jobs each as its own rates allow: by priority, then
-- in the order of enqueue, whichever lane they are in. They are of the queue again that they came from.
-- Rows as of step_v4, kind 0.
create function pgcelery.draw_v1(me integer, place_ids integer[], most integer[])
returns table (kind integer, job_id text, token bigint, queue_id integer, name text,
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
    p record;
begin
    if not exists (select from pgcelery.workers w where w.id = me) then
        return;
    end if;
    for p in
        select i.id, i.plain, u.most
        from unnest(place_ids, most) as u(id, most)
        join pgcelery.places i on i.id = u.id
        where not exists (select from pgcelery.paused x where x.queue_id = i.queue_id)
    loop
        return query
        with fifo as (
            select r.ctid as at, r.priority, r.seq
            from pgcelery.ready r
            where r.queue_id = p.id
            order by r.priority, r.tag, r.seq
            limit p.most
            for update skip locked
        ), fair as (
            select r.ctid as at, r.priority, r.seq
            from pgcelery.ready r
            where r.queue_id = -p.id
            order by r.priority, r.tag, r.seq
            limit p.most
            for update skip locked
        ), picked as (
            select u.at
            from (select f.at, f.priority, f.seq from fifo f
                  union all
                  select f.at, f.priority, f.seq from fair f) u
            order by u.priority, u.seq
            limit p.most
        ), gone as (
            delete from pgcelery.ready r
            using picked x
            where r.ctid = x.at
            returning r.job_id, r.deliveries, r.flags
        ), home as (
            update pgcelery.jobs j
            set queue_id = p.plain
            from gone g
            where j.id = g.job_id
            returning j.id, j.name, j.payload, j.priority, j.seq, j.expires_at, g.deliveries, g.flags
        ), claimed as (
            insert into pgcelery.running as c (token, job_id, worker_id, queue_id, delivery, flags)
            select nextval('pgcelery.tokens'), h.id, me, p.plain, h.deliveries + 1, h.flags
            from (select * from home order by priority, seq) h
            returning c.token, c.job_id, c.delivery, c.flags
        )
        select 0, h.id, c.token, p.plain, h.name, h.payload, h.priority::integer,
               c.delivery::integer,
               c.flags
               | case when exists (select from pgcelery.cancels x where x.job_id = h.id)
                      then 8 else 0 end
               | case when h.expires_at <= now() then 16 else 0 end,
               null::text
        from claimed c
        join home h on h.id = c.job_id;
    end loop;
end
$$;
