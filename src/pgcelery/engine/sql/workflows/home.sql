-- Jobs that ended while their workers' rates kept them waiting are of the queue again that they came from.
update pgcelery.jobs j
set queue_id = p.plain
from pgcelery.places p
where j.id = any (%(ids)s) and p.id = j.queue_id and p.own is null and p.plain is not null
