-- Have jobs wait at their first gates, in the caller's transaction, and say so to whoever steps next.
-- Takes no lock of a line.
create function pgcelery.come_v1(ids text[], deliveries smallint[], flags smallint[]) returns integer[]
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
        join pgcelery.jobs j on j.id = u.id
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
