-- Delete what was there for long enough, and listeners that are gone.
with old as (
    delete from pgcelery.events e where e.at < now() - make_interval(secs => %(keep_s)s)
)
delete from pgcelery.listeners l where l.until < now();
