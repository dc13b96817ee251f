-- Of new jobs that wait for a time in a line where the newest replaces what waits: end the one before,
-- unless that has run already and waits for another try. Waits for transactions that are just sending
-- to the same line.
create function pgcelery.replace_delayed_v1(ids text[]) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    c record;
    before text;
begin
    for c in
        select g.name, g.key, j.id, j.due_at
        from unnest(ids) as u(id)
        join pgcelery.jobs j on j.id = u.id
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
