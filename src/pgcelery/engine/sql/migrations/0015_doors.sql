-- What producers do is all behind functions, so that a role may be given these and no table: see
-- roles/statements.sql.

-- install functions/intern_v1.sql
-- install functions/intern_place_v1.sql
-- install functions/open_latch_v1.sql
-- install functions/close_latch_v1.sql
-- install functions/drop_latch_v1.sql
-- install functions/fetch_v1.sql
-- install functions/await_v1.sql
