-- Where a job is and what keeps it there, in one snapshot: facts, what it is sent with when it runs again
-- (its first 64 kB), and what is kept of one that was cancelled.
select w.facts,
       case when (w.facts->>'again')::boolean
            then (select substr(j.payload, 1, 65536) from pgcelery.jobs j where j.id = %(id)s) end,
       case when (w.facts->>'state')::integer = 12
            then (select s.result from pgcelery.results s where s.id = %(id)s) end
from pgcelery.why_v1(%(id)s) as w(facts);
