-- Which of these ids ended otherwise than completed.
select s.id, s.state, s.result, s.finished_at
from pgcelery.results s
where s.id = any (%(ids)s) and s.state in (11, 12);
