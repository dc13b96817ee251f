-- Runs that may not begin yet for their worker's own rates, to where they wait; the places that got some.
select unnest(pgcelery.withhold_v1($1, $2, $3))
