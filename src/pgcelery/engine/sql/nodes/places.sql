-- The places of queues that a worker has to know: not those of other workers that are gone and left
-- nothing there. The first row has a number that is another one when places or, where workers have
-- places of their own, workers have come or gone; if it is $3, no other row follows. The
-- last column is where the jobs of a throttled place came from.
with now as (
    select (select coalesce(sum(p.id), 0) from pgcelery.places p)
           + (select coalesce(sum(w.id), 0) from pgcelery.workers w
              where w.lease_until > now()
                and exists (select from pgcelery.places p where p.own is not null)) as mark
)
select null::integer, null::integer, null::text, n.mark::bigint, null::integer from now n
union all
select p.id, p.queue_id, p.wants, null, case when p.own is null then p.plain end
from now n
join pgcelery.places p on n.mark <> $3
where p.queue_id = any ($1)
  and (p.own is null or p.own = $2
       or p.own in (select coalesce(w.info -> 'labels' ->> 'worker', w.name)
                    from pgcelery.workers w where w.lease_until > now())
       or exists (select from pgcelery.ready r where r.queue_id = p.id)
       or exists (select from pgcelery.ready r where r.queue_id = -p.id)
       or exists (select from pgcelery.scheduled s where s.queue_id = p.id))
