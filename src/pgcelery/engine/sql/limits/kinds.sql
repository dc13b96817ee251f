-- How many live lines of a limit, or of one key of it, count slots, and how many have a rate.
select (count(*) filter (where l.rate is null))::integer,
       (count(*) filter (where l.rate is not null))::integer
from pgcelery.lines l
where l.name = %(name)s and (%(key)s::text is null or l.key = %(key)s);
