-- Runs that record their completion in the transaction that holds what they did.

-- install functions/record_v1.sql
-- install functions/reschedule_v2.sql
