-- The jobs of a workflow, each with where it is now (numbers of engine/job.State). One that began as a
-- single job has its workflow's id. No settings of its own, so that it becomes part of the caller's plan.
create function pgcelery.members_v1(root text)
returns table (id text, seq bigint, queue_id integer, name text, created_at timestamptz,
               joined text[], state integer, started_at timestamptz, finished_at timestamptz)
language sql stable
as $$
    select j.id, j.seq, j.queue_id, j.name, j.created_at, coalesce(n.joined, j.joined),
           (case when s.finished_at is not null then s.state
                 when r.token is not null then 3
                 when j.parked or n.job_id is not null then 5
                 when s.state = 4 then 4
                 when exists (select from pgcelery.scheduled d
                              where d.queue_id = j.queue_id and d.due_at = j.due_at and d.seq = j.seq)
                     then 1
                 else 2 end)::integer,
           r.started_at, s.finished_at
    from (select m.id, m.seq, m.queue_id, m.name, m.created_at, m.joined, m.parked, m.due_at
          from pgcelery.jobs m
          where m.workflow = root
          union all
          select m.id, m.seq, m.queue_id, m.name, m.created_at, m.joined, m.parked, m.due_at
          from pgcelery.jobs m
          where m.id = root and m.workflow is null) j
    left join pgcelery.results s on s.id = j.id
    left join pgcelery.running r on r.job_id = j.id
    left join pgcelery.nodes n on n.job_id = j.id
$$;
