-- One job, with where it is now.
select j.id, q.name, j.name, j.payload, j.priority, j.max_deliveries, j.created_at, j.due_at,
       j.expires_at, s.result, s.finished_at,
       case when s.finished_at is not null then s.state
            when exists (select from pgcelery.running r where r.job_id = j.id) then 3
            when j.parked or exists (select from pgcelery.nodes n where n.job_id = j.id) then 5
            when exists (select from pgcelery.scheduled d
                         where d.queue_id = j.queue_id and d.due_at = j.due_at and d.seq = j.seq)
                then case when s.state = 4 then 4 else 1 end
            else 2 end
from pgcelery.jobs j
join pgcelery.queue_names q on q.id = j.queue_id
left join pgcelery.results s on s.id = j.id
where j.id = %(id)s;
