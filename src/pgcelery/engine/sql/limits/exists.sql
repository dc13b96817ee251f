-- Whether something is set for a limit, or for just one key of it.
select exists (select from pgcelery.limits l
               where l.name = %(name)s and l.key is not distinct from %(key)s::text);
