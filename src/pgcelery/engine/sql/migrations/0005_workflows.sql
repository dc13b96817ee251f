-- Jobs know the workflow they belong to, and a freed child goes to the node that freed it.

alter table pgcelery.jobs add column workflow text collate "C";    -- id of the canvas it was sent in
alter table pgcelery.jobs add column lives_s double precision;     -- of a job with parents: from release to expiry

create index jobs_workflow on pgcelery.jobs (workflow) where workflow is not null;
create index jobs_leading on pgcelery.jobs (seq) where flags & 128 = 128;

-- install functions/enqueue_v2.sql
-- install functions/enqueue_v1.sql
-- install functions/free_v1.sql
-- install functions/advance_v1.sql
-- install functions/step_v2.sql
-- install functions/step_v1.sql
-- install functions/maintain_v1.sql
