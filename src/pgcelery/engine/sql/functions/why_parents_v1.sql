-- What a job waits for still: the first ten, each with where it is (numbers of engine/job.State; null
-- for a latch). Part of why_v1, in its snapshot. Edges are found from the parents' side, which has an
-- index; all of them are looked through only for parents outside of the job's own workflow.
create function pgcelery.why_parents_v1(of_id text, of_workflow text, pending integer)
returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
declare
    ids text[] := array[]::text[];
begin
    if of_workflow is not null then
        ids := array(
            select m.id from pgcelery.jobs m
            where m.workflow = of_workflow
              and exists (select from pgcelery.edges e where e.parent = m.id and e.child = of_id)
            limit 10);
    end if;
    if cardinality(ids) < least(pending, 10) then
        ids := array(select e.parent from pgcelery.edges e where e.child = of_id limit 10);
    end if;
    return (
        select jsonb_agg(jsonb_build_object(
                   'id', u.id, 'name', j.name,
                   'state', case when j.id is null then null
                                 when r.job_id is not null then 3
                                 when j.parked or n.job_id is not null then 5
                                 when s.state = 4 then 4
                                 when exists (select from pgcelery.scheduled d
                                              where d.queue_id = j.queue_id and d.due_at = j.due_at
                                                and d.seq = j.seq) then 1
                                 else 2 end) order by j.seq)
        from unnest(ids) as u(id)
        left join pgcelery.jobs j on j.id = u.id
        left join pgcelery.results s on s.id = u.id
        left join (select distinct i.job_id from pgcelery.running i where i.job_id = any (ids)) r
            on r.job_id = u.id
        left join pgcelery.nodes n on n.job_id = u.id and n.joined is null);
end
$$;
