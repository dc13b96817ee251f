-- Take the messages that have come.
with taken as (
    delete from pgcelery.inbox i where i.worker_id = %(id)s
    returning i.id, i.body, i.reply_to, i.expires_at
)
select t.body, t.reply_to from taken t where t.expires_at > now() order by t.id;
