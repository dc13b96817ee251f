-- Give names their queue ids, making the queues that are missing.
insert into pgcelery.queues (name)
select u.name from unnest(%(names)s::text[]) as u(name)
where not exists (select from pgcelery.queues q where q.name = u.name)
order by u.name
on conflict (name) do nothing;
