-- Note that a workflow is cancelled; its id.
insert into pgcelery.stopped as t (workflow)
select coalesce((select j.workflow from pgcelery.jobs j where j.id = %(id)s), %(id)s)
on conflict (workflow) do update set at = now()
returning t.workflow;
