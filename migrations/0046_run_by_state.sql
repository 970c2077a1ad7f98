-- The runs of one state, newest first: what failed, of a long history.
create index run_by_state on run (workspace_id, state, id desc);
