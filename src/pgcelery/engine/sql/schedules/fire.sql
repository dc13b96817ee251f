-- The slot of a claimed schedule is done.
update pgcelery.schedules
set last_run_at = %(last_run_at)s, total_run_count = total_run_count + 1, retired_at = null
where book = %(book)s and name = %(name)s;
