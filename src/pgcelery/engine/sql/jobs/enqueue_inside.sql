-- Insert jobs in a transaction of the sender's, and have workers told of them when it commits; the ids
-- that were not created, and who is there for each. Delays count from this statement, and not from the
-- begin of a transaction that may be old.
select e.existing, e.holders,
       (select count(pg_notify(%s, t.payload)) from unnest(%s::text[]) as t(payload))
from pgcelery.enqueue_v4(
    %s, %s, %s, %s, %s, %s,
    array(select d.delay_s + extract(epoch from statement_timestamp() - now())
          from unnest(%s::double precision[]) with ordinality as d(delay_s, place)
          order by d.place),
    %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) e;
