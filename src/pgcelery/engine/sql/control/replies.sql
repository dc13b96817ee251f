-- Take the answers that have come.
with taken as (
    delete from pgcelery.replies p where p.reply_to = %(reply_to)s returning p.id, p.sender, p.body
)
select t.sender, t.body from taken t order by t.id;
