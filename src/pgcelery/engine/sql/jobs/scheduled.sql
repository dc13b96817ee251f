-- What waits for a time in these queues, soonest first.
select j.id, q.name, j.name, j.payload, j.priority, j.max_deliveries, j.created_at, s.due_at,
       j.expires_at, r.result, r.finished_at, case when r.state = 4 then 4 else 1 end
from pgcelery.queue_names q
join pgcelery.scheduled s on s.queue_id = q.id
join pgcelery.jobs j on j.id = s.job_id
left join pgcelery.results r on r.id = j.id
where q.name = any (%(queues)s::text[])
order by s.due_at
limit %(limit)s;
