-- Workflows, the newest first, each with how many of its jobs are where. Those that began as a single
-- job have no job that leads, and are not listed.
select l.workflow, l.seq, l.name, l.created_at, c.finished_at, c.counts
from (
    select coalesce(j.workflow, j.id) as workflow, j.seq, j.name, j.created_at
    from pgcelery.jobs j
    where j.flags & 128 = 128 and j.seq < coalesce(%(before)s, 9223372036854775807)
    order by j.seq desc
    limit %(limit)s
) l
cross join lateral (
    select jsonb_object_agg(t.state, t.many) as counts, max(t.finished_at) as finished_at
    from (
        select m.state, count(*) as many, max(m.finished_at) as finished_at
        from pgcelery.members_v1(l.workflow) m
        group by m.state
    ) t
) c
order by l.seq desc;
