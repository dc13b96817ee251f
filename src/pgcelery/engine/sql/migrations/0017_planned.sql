-- The same two functions, with joins that can only begin at what was given. With statistics of a moment at
-- which `jobs` was nearly empty, though it had pages, the planner began at the table instead, and looked
-- through all that was given for each of its rows.

create or replace function pgcelery.come_v1(ids text[], deliveries smallint[], flags smallint[]) returns integer[]
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    woken integer[];
begin
    with waits as (
        select j.id, j.queue_id, j.priority, j.seq, u.deliveries, u.flags, j.gates
        from unnest(ids, deliveries, flags) as u(id, deliveries, flags)
        cross join lateral (select i.id, i.queue_id, i.priority, i.seq, i.gates
                            from pgcelery.jobs i where i.id = u.id limit 1) j
        where j.gates is not null
    ), put as (
        insert into pgcelery.gated (name, key, priority, seq, job_id, queue_id, deliveries, flags)
        select (w.gates[1]).name, (w.gates[1]).key, w.priority, w.seq, w.id, w.queue_id, w.deliveries,
               w.flags | case when cardinality(w.gates) > 1 or (w.gates[1]).rate is not null
                              then 8192 else 0 end
        from waits w
    ), lines as (
        select g.name, g.key, w.queue_id, w.seq,
               row(g.name, g.key, g.slots, g.weight, g.strategy, g.rate, g.period_s, g.burst, g.fixed,
                   1)::pgcelery.gate as own
        from waits w cross join lateral unnest(w.gates) g
    ), told as (
        insert into pgcelery.comers (name, key, queue_id, own)
        select distinct on (l.name, l.key, l.queue_id) l.name, l.key, l.queue_id, l.own
        from lines l
        order by l.name, l.key, l.queue_id, l.seq desc
    )
    select array(select distinct w.queue_id from waits w) into woken;
    return woken;
end
$$;

create or replace function pgcelery.replace_delayed_v1(ids text[]) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    c record;
    before text;
begin
    for c in
        select g.name, g.key, j.id, j.due_at
        from unnest(ids) as u(id)
        cross join lateral (select i.id, i.due_at, i.seq, i.gates
                            from pgcelery.jobs i where i.id = u.id limit 1) j
        cross join lateral unnest(j.gates) g
        where g.strategy = 3
        order by g.name collate "C", g.key collate "C", j.seq
    loop
        loop
            insert into pgcelery.delayed as d (name, key, job_id) values (c.name, c.key, c.id)
            on conflict (name, key) do nothing;
            select d.job_id into before from pgcelery.delayed d
            where d.name = c.name and d.key = c.key
            for update;
            exit when found;  -- upkeep may have deleted it in between
        end loop;
        with gone as (
            delete from pgcelery.scheduled s
            using pgcelery.jobs j
            where before <> c.id and j.id = before and j.last_token is null and s.deliveries = 0
              and s.queue_id = j.queue_id and s.due_at = j.due_at and s.seq = j.seq
            returning s.priority, s.seq, s.job_id, s.deliveries, s.flags
        )
        insert into pgcelery.ready (queue_id, priority, tag, seq, job_id, deliveries, flags)
        select 0, g.priority, 0, g.seq, g.job_id, g.deliveries, g.flags & ~2 | 4096 from gone g;
        if c.due_at > now() then
            update pgcelery.delayed d set job_id = c.id where d.name = c.name and d.key = c.key;
        else
            delete from pgcelery.delayed d where d.name = c.name and d.key = c.key;
        end if;
    end loop;
end
$$;
