-- Insert jobs in a transaction of the sender's, and have workers told of them when it commits; the ids
-- that were not created, and who is there for each. Delays count from this statement, and not from the
-- begin of a transaction that may be old. The search path is the sender's, so nothing is left to it.
select e.existing, e.holders,
       (select pg_catalog.count(pg_catalog.pg_notify(%s, t.payload))
        from pg_catalog.unnest(%s::text[]) as t(payload))
from pgcelery.enqueue_v4(
    %s, %s, %s, %s, %s, %s,
    array(select d.delay_s operator(pg_catalog.+) extract(epoch from pg_catalog.statement_timestamp()
                       operator(pg_catalog.-) pg_catalog.now())
          from pg_catalog.unnest(%s::double precision[]) with ordinality as d(delay_s, place)
          order by d.place),
    %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) e;
