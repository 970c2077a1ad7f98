-- The life of a key: who made it, what it was rolled from; service accounts that are gone keep their names' history.
alter table service_account add column archived_at timestamptz;
drop index service_account_name_taken;
create unique index service_account_name_taken on service_account (workspace_id, lower(name)) where archived_at is null;

alter table api_key
    -- Null for one made on the command line.
    add column created_by uuid,
    -- The key that this one takes the place of.
    add column rolled_from uuid,
    add constraint api_key_rolled_from foreign key (workspace_id, rolled_from) references api_key (workspace_id, id);
create index api_key_by_account on api_key (workspace_id, service_account_id, id desc);
