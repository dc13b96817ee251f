-- Take a latch away that nothing waits for.
with gone as (
    delete from pgcelery.nodes n where n.job_id = %(id)s
)
delete from pgcelery.edges e where e.parent = 'latch ' || %(id)s::text and e.child = %(id)s;
