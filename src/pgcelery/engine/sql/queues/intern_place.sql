-- Give a queue a place for what its jobs ask of a worker, if it has none yet.
insert into pgcelery.places (queue_id, wants)
select %(queue_id)s, %(wants)s
where not exists (select from pgcelery.places p
                  where p.queue_id = %(queue_id)s and p.wants = %(wants)s)
on conflict (queue_id, wants) do nothing;
