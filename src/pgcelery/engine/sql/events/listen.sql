-- Begin, or go on, to listen; the row says where the stream stands.
with lease as (
    insert into pgcelery.listeners (id, until)
    values (%(id)s, now() + make_interval(secs => %(lease_s)s))
    on conflict (id) do update set until = excluded.until
)
select coalesce(max(e.id), 0) from pgcelery.events e;
