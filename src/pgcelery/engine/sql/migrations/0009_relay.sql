-- The pool process that completed a step of a chain goes on with the next one itself.

-- install functions/relay_v1.sql
