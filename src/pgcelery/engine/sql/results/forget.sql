-- Delete what is kept of ended jobs, and results that belong to no job.
with gone as (
    delete from pgcelery.results s where s.id = any (%(ids)s) returning s.id, s.state
), jobs as (
    delete from pgcelery.jobs j using gone g where j.id = g.id and g.state >= 10
)
select count(*)::integer from gone;
