-- Keep a message for workers to come; the same message before it, and what is past its time, go.
with gone as (
    delete from pgcelery.kept k where k.body = %(body)s or k.expires_at < now()
)
insert into pgcelery.kept (body, expires_at)
values (%(body)s, now() + make_interval(secs => %(keep_s)s));
