-- What is known of these ids; no row for those of which nothing is.
select s.id, s.state, s.result, s.finished_at
from pgcelery.results s
where s.id = any (%(ids)s);
