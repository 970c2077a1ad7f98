-- A workspace: the tenant.
create table workspace (
    id uuid primary key,
    workspace_id uuid not null generated always as (id) stored,   -- So that every tenant table has the column.
    slug text not null constraint workspace_slug_shape check (slug ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    name text not null constraint workspace_name_length check (char_length(name) between 1 and 200),
    -- How many runs of this workspace may work at once.
    runs_max integer not null default 4 constraint workspace_runs_max_range check (runs_max between 1 and 1000),
    created_at timestamptz not null default now()
);
create unique index workspace_slug_taken on workspace (slug);

alter table workspace enable row level security;
alter table workspace force row level security;
create policy tenant on workspace
    using (id = (select current_workspace()))
    with check (id = (select current_workspace()));
-- The owner's functions below look across workspaces; the application's role never does.
create policy dispatcher on workspace to current_user using (true) with check (true);
grant select, insert, update on workspace to freshet_app;

-- Which workspace a slug names; for the command line alone, which has the database's password.
create function find_workspace(wanted text) returns uuid
language sql stable security definer set search_path = public, pg_temp
return (select id from workspace where slug = wanted);
revoke all on function find_workspace(text) from public;
grant execute on function find_workspace(text) to freshet_app;
