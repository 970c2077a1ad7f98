-- The last progress record that was written down: what of the batch in hand the runs have counted so far. A run that takes
-- a batch over counts what they have not.
alter table sync_position add column progress jsonb;
