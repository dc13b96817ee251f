-- Delete what is kept of ended jobs, and results that belong to no job.
with gone as (
    delete from pgcelery.results s where s.id = any (%(ids)s) returning s.id, s.state, s.token
), jobs as (
    delete from pgcelery.jobs j using gone g
    where j.id = g.id and g.state >= 10
      -- A result written by hand: the job itself may not have ended, and hold slots.
      and (j.flags & 2 = 0 or g.token is not null or not pgcelery.at_large_v1(j))
)
select count(*)::integer from gone;
