-- Answer a message, and wake who waits for it.
with sent as (
    insert into pgcelery.replies (reply_to, sender, body, expires_at)
    values (%(reply_to)s, %(sender)s, %(body)s, now() + interval '5 minutes')
    returning reply_to
)
select pg_notify(reply_to, '') from sent;
