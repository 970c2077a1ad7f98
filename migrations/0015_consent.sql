-- Consents that people were asked for: by OAuth, for a connection. Verifier and code are secrets of the consent.
create table consent (
    workspace_id uuid not null references workspace (id),
    id uuid primary key,
    connection_id uuid not null,
    -- SHA-256 of the state that has to come back.
    state_hash bytea not null constraint consent_state_length check (octet_length(state_hash) = 32),
    redirect_url text not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    -- It is good once.
    returned_at timestamptz,
    constraint consent_in_workspace unique (workspace_id, id),
    constraint consent_of_connection foreign key (workspace_id, connection_id) references connection (workspace_id, id)
);
create unique index consent_by_state on consent (state_hash);
create index consent_by_connection on consent (workspace_id, connection_id);

alter table consent enable row level security;
alter table consent force row level security;
create policy tenant on consent
    using (workspace_id = (select current_workspace()))
    with check (workspace_id = (select current_workspace()));
create policy dispatcher on consent to current_user using (true) with check (true);
grant select, insert, delete on consent to freshet_app;

-- Finds a consent before its workspace is known, once, while it is good: only who has the state can ask.
create function take_consent(state bytea)
returns table (workspace_id uuid, id uuid, connection_id uuid)
language sql volatile security definer set search_path = public, pg_temp
begin atomic
    update consent as c set returned_at = now()
    where c.state_hash = state and c.returned_at is null and c.expires_at > now()
    returning c.workspace_id, c.id, c.connection_id;
end;
revoke all on function take_consent(bytea) from public;
grant execute on function take_consent(bytea) to freshet_app;
