-- `ORDERS`: the 12 columns of orders.sql, in Snowflake's words.
create table ORDERS (
    ID number(38,0) primary key,
    CUSTOMER_ID number(18,0) not null,
    EMAIL varchar not null,
    NAME varchar,
    STATUS varchar not null,
    AMOUNT number(12,2) not null,
    TAX number(12,4),
    QUANTITY number(9,0) not null,
    IS_PAID boolean not null,
    CREATED_AT timestamp_tz not null,
    UPDATED_AT timestamp_ntz not null,
    ATTRIBUTES variant
);
