-- Bring a book up to date; how its schedules stand.
select e.name, e.last_run_at, e.total_run_count
from pgcelery.enter_schedules_v1(%(book)s, %(names)s, %(last_runs)s, %(counts)s) e;
