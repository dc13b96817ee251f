-- The pool process that completed a step of a chain records that, and goes on with the next one.

-- install functions/relay_v1.sql
-- install functions/end_v1.sql
