-- What waits and what is under way, over all workspaces: numbers alone.
create function queue_depth()
returns table (state text, runs bigint, oldest_s double precision)
language sql stable security definer set search_path = public, pg_temp
begin atomic
    select r.state, count(*),
           coalesce(max(extract(epoch from now() - r.due_at)) filter (where r.due_at <= now()), 0)::double precision
    from run as r
    where r.state in ('queued', 'claimed', 'extracting', 'publishing', 'finalizing', 'retry_wait', 'cancelling')
    group by r.state;
end;
revoke all on function queue_depth() from public;
grant execute on function queue_depth() to freshet_app;
