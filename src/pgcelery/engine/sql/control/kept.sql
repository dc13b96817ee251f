-- Messages that were kept, in order.
select k.body from pgcelery.kept k where k.expires_at > now() order by k.id;
