-- Have nothing claimed from a queue any more, nor from its places; whether there is such a queue.
with found as (
    select q.id from pgcelery.queues q where q.name = %(name)s
), put as (
    insert into pgcelery.paused (queue_id)
    select f.id from found f
    on conflict (queue_id) do nothing
)
select f.id from found f;
