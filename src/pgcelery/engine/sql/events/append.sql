-- Append batches and tell who listens; without anyone nothing is written and no row comes back.
-- In a transaction that waits for no disk: a notifying commit holds a lock of the whole server.
with added as (
    insert into pgcelery.events (body)
    select b.body
    from unnest(%(bodies)s::bytea[]) as b(body)
    where exists (select from pgcelery.listeners l where l.until > now())
    returning id
)
select set_config('synchronous_commit', 'off', true), pg_notify(%(channel)s, '')
from (select from added limit 1) as a;
