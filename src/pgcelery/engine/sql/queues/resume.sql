-- Have a queue's jobs claimed again; the queue, if there is one, and whether it was paused.
with found as (
    select q.id from pgcelery.queues q where q.name = %(name)s
), gone as (
    delete from pgcelery.paused p using found f where p.queue_id = f.id returning p.queue_id
)
select f.id, exists (select from gone) from found f;
