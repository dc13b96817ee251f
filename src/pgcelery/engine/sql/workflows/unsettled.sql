-- Whether runs of a workflow are just being ended, by transactions that may not have seen that it is
-- cancelled: their rows are locked. Waits for none of them.
with mine as (
    select r.token
    from pgcelery.running r
    join pgcelery.jobs j on j.id = r.job_id
    where coalesce(j.workflow, j.id) = %(id)s
), free as (
    select r.token
    from pgcelery.running r
    where r.token = any (array(select m.token from mine m))
    for share skip locked
)
select exists (select m.token from mine m except select f.token from free f);
