-- Of jobs of which there may be only one at a time: those that another one stands for, and which one
-- that is. The others stand for what is like them from now on. What stood before and is over does not
-- count: over by its time, or because it has ended or (mode 1) been claimed. Waits for transactions
-- that are just sending one like it. What these did is seen by the statement after the lock only: hence
-- several.
create function pgcelery.stand_for_v1(
    ids text[], rules text[], out existing text[], out holders text[]
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    wanted text[];
    there integer;
begin
    wanted := array(select distinct u.rule::jsonb->'u'->>0
                    from unnest(rules) as u(rule)
                    where u.rule like '%"u":%' and u.rule::jsonb ? 'u');
    loop
        insert into pgcelery.uniques as x (key, job_id, mode, until)
        select g.key, g.id, g.mode, g.until
        from (select distinct on (r.key) r.key, r.id, r.mode, r.until
              from (select u.id, u.place, u.rule::jsonb->'u'->>0 as key,
                           (u.rule::jsonb->'u'->>1)::smallint as mode,
                           now() + make_interval(secs => (u.rule::jsonb->'u'->>2)::double precision)
                               as until
                    from unnest(ids, rules) with ordinality as u(id, rule, place)
                    where u.rule like '%"u":%' and u.rule::jsonb ? 'u') r
              order by r.key, r.place) g
        order by g.key collate "C"
        on conflict (key) do nothing;
        perform from pgcelery.uniques x where x.key = any (wanted) order by x.key for update;
        get diagnostics there = row_count;
        exit when there >= cardinality(wanted);  -- upkeep may have deleted one in between
    end loop;

    update pgcelery.uniques x
    set job_id = g.id, mode = g.mode, until = g.until
    from (select distinct on (r.key) r.key, r.id, r.mode, r.until
          from (select u.id, u.place, u.rule::jsonb->'u'->>0 as key,
                       (u.rule::jsonb->'u'->>1)::smallint as mode,
                       now() + make_interval(secs => (u.rule::jsonb->'u'->>2)::double precision)
                           as until
                from unnest(ids, rules) with ordinality as u(id, rule, place)
                where u.rule like '%"u":%' and u.rule::jsonb ? 'u') r
          order by r.key, r.place) g
    where x.key = g.key and x.job_id <> g.id
      and (x.until <= now()
           or (x.mode < 2
               and (not exists (select from pgcelery.jobs j where j.id = x.job_id)
                    or exists (select from pgcelery.results s
                               where s.id = x.job_id and s.finished_at is not null)
                    or (x.mode = 1
                        and (exists (select from pgcelery.running r where r.job_id = x.job_id)
                             or exists (select from pgcelery.jobs j where j.id = x.job_id
                                        and (j.last_token is not null or j.parked)))))));

    select array_agg(r.id), array_agg(x.job_id) into existing, holders
    from (select u.id, u.rule::jsonb->'u'->>0 as key
          from unnest(ids, rules) as u(id, rule)
          where u.rule like '%"u":%' and u.rule::jsonb ? 'u') r
    join pgcelery.uniques x on x.key = r.key
    where x.job_id <> r.id;
    existing := coalesce(existing, '{}'::text[]);
    holders := coalesce(holders, '{}'::text[]);
end
$$;
