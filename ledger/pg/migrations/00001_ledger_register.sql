-- Owner: ledger (the register of organisations and people).
--
-- This file also makes what every later migration stands on: the role of the
-- application, the id space of facts and the monthly partitions.

-- +goose Up

-- Roles belong to the whole cluster while the lock of migrations belongs to one
-- database, so two databases migrating at once may both try to create the role.
-- +goose StatementBegin
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'zvonok_app') THEN
        CREATE ROLE zvonok_app NOLOGIN;
    END IF;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN
        NULL;
    WHEN insufficient_privilege THEN
        RAISE EXCEPTION 'the role zvonok_app does not exist and % may not create it', current_user
            USING HINT = format('As an administrator: CREATE ROLE zvonok_app NOLOGIN; GRANT zvonok_app TO %I', current_user);
END
$$;
-- +goose StatementEnd

-- Whoever migrates must be able to become that role; since version 16 being a
-- member is not enough.
-- +goose StatementBegin
DO $$
DECLARE
    becoming text := CASE WHEN current_setting('server_version_num')::integer >= 160000 THEN 'SET' ELSE 'MEMBER' END;
BEGIN
    IF NOT pg_catalog.pg_has_role(current_user, 'zvonok_app', becoming) THEN
        EXECUTE format('GRANT zvonok_app TO %I', current_user);
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE EXCEPTION '% is no member of the role zvonok_app and may not become one', current_user
            USING HINT = format('As an administrator: GRANT zvonok_app TO %I', current_user);
END
$$;
-- +goose StatementEnd

CREATE SCHEMA IF NOT EXISTS ledger;
GRANT USAGE ON SCHEMA ledger TO zvonok_app;

-- One id space for all facts: a pass, a sale, a top-up and a crossing are told
-- apart by their tables and never share an id.
CREATE SEQUENCE ledger.event_id AS bigint;
GRANT USAGE ON SEQUENCE ledger.event_id TO zvonok_app;

-- ensure_month makes the partition of one month, if it is missing, in a table
-- partitioned by range over one date or timestamptz column. Months of
-- timestamptz are those of UTC. It answers whether it made one.
--
-- Rows of that month which have already fallen into the DEFAULT partition are
-- moved over. The partition is made beside the table and attached, because
-- CREATE TABLE ... PARTITION OF would lock writers out of the whole table;
-- attaching locks only the DEFAULT partition. The advisory lock makes a second
-- caller wait and then find the work done.
-- +goose StatementBegin
CREATE FUNCTION ledger.ensure_month(parent regclass, month date) RETURNS boolean
    LANGUAGE plpgsql
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET timezone = 'UTC'
AS $$
DECLARE
    first_day date := date_trunc('month', month::timestamp)::date;
    next_month date := (date_trunc('month', month::timestamp) + interval '1 month')::date;
    schema_name name;
    part_name name;
    key_column name;
    default_part regclass;
    options text;
    columns text;
    late boolean := false;
BEGIN
    SELECT n.nspname, format('%s_%s', c.relname, to_char(first_day, 'YYYY_MM')), a.attname, nullif(p.partdefid, 0)
      INTO schema_name, part_name, key_column, default_part
      FROM pg_partitioned_table p
      JOIN pg_class c ON c.oid = p.partrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = p.partattrs[0]
     WHERE p.partrelid = parent AND p.partstrat = 'r' AND p.partnatts = 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION '% is not partitioned by range over one column', parent;
    END IF;

    PERFORM pg_advisory_xact_lock('pg_class'::regclass::int, parent::oid::int);
    IF to_regclass(format('%I.%I', schema_name, part_name)) IS NOT NULL THEN
        RETURN false;
    END IF;

    EXECUTE format('CREATE TABLE %I.%I (LIKE %s INCLUDING ALL EXCLUDING INDEXES EXCLUDING IDENTITY)', schema_name, part_name, parent);

    IF default_part IS NOT NULL THEN
        -- A partitioned table has no storage options of its own (a fillfactor
        -- that leaves room for updates): the DEFAULT partition keeps them for all.
        SELECT array_to_string(reloptions, ', ') INTO options FROM pg_class WHERE oid = default_part;
        IF options IS NOT NULL THEN
            EXECUTE format('ALTER TABLE %I.%I SET (%s)', schema_name, part_name, options);
        END IF;
        EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', default_part);
        EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE %2$I >= $1 AND %2$I < $2)', default_part, key_column)
           INTO late USING first_day, next_month;
        IF late THEN
            SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum)
              INTO columns
              FROM pg_attribute
             WHERE attrelid = parent AND attnum > 0 AND NOT attisdropped AND attgenerated = '';
            -- Triggers that guard rows against deletion must not see this move:
            -- no row leaves the table.
            EXECUTE format('ALTER TABLE %s DISABLE TRIGGER USER', default_part);
            EXECUTE format(
                'WITH moved AS (DELETE FROM %1$s WHERE %2$I >= $1 AND %2$I < $2 RETURNING %3$s)
                 INSERT INTO %4$I.%5$I (%3$s) SELECT %3$s FROM moved',
                default_part, key_column, columns, schema_name, part_name)
            USING first_day, next_month;
            EXECUTE format('ALTER TABLE %s ENABLE TRIGGER USER', default_part);
        END IF;
    END IF;

    EXECUTE format('ALTER TABLE %s ATTACH PARTITION %I.%I FOR VALUES FROM (%L) TO (%L)',
        parent, schema_name, part_name, first_day, next_month);
    RETURN true;
END
$$;
-- +goose StatementEnd
REVOKE EXECUTE ON FUNCTION ledger.ensure_month(regclass, date) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ledger.ensure_month(regclass, date) TO zvonok_app;

-- ensure_months does so for every such table that has a DEFAULT partition, from
-- the month before the given day to the third after it, and answers how many
-- partitions it made.
-- +goose StatementBegin
CREATE FUNCTION ledger.ensure_months(today date) RETURNS integer
    LANGUAGE sql
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT count(*) FILTER (WHERE ledger.ensure_month(t.parent, t.month))::integer
      FROM (SELECT p.partrelid::regclass AS parent, (date_trunc('month', today::timestamp) + make_interval(months => m))::date AS month
              FROM pg_partitioned_table p
              CROSS JOIN generate_series(-1, 3) AS m
             WHERE p.partstrat = 'r' AND p.partnatts = 1 AND p.partdefid <> 0
             ORDER BY p.partrelid, m) AS t
$$;
-- +goose StatementEnd
REVOKE EXECUTE ON FUNCTION ledger.ensure_months(date) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ledger.ensure_months(date) TO zvonok_app;

-- A payee of top-ups: a meal provider with a tax number and a payment code (R8, R35, R36).
CREATE TABLE ledger.payee (
    code         text PRIMARY KEY CHECK (code <> '' AND length(code) <= 64),
    name         text NOT NULL CHECK (name <> ''),
    inn          text NOT NULL CHECK (inn ~ '^([0-9]{10}|[0-9]{12})$'),
    payment_code text NOT NULL UNIQUE DEFERRABLE CHECK (payment_code ~ '^[0-9]{1,10}$')
);

-- A school, college or kindergarten (R7) with the settings that may differ between organisations.
CREATE TABLE ledger.organisation (
    id             bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    code           text NOT NULL UNIQUE CHECK (code <> '' AND length(code) <= 64),
    kind           text NOT NULL CHECK (kind IN ('school', 'college', 'kindergarten')),
    name           text NOT NULL CHECK (name <> ''),
    short_name     text NOT NULL CHECK (short_name <> ''),
    payee_code     text REFERENCES ledger.payee (code),
    time_zone      text NOT NULL CHECK (time_zone <> ''),
    -- The leading digits of the account numbers made here; '' when all numbers are given from outside.
    account_prefix text NOT NULL DEFAULT '' CHECK (account_prefix ~ '^[0-9]{0,6}$'),
    -- The serial of the last account number made here (D4).
    account_serial bigint NOT NULL DEFAULT 0 CHECK (account_serial >= 0),
    -- How deep a hot meal may take a wallet, in kopecks (D11).
    debt_floor     bigint NOT NULL DEFAULT -30000 CHECK (debt_floor <= 0),
    -- How long "just entered" is news (D6).
    pass_life      interval NOT NULL DEFAULT '15 minutes' CHECK (pass_life > interval '0'),
    -- Same card and direction within this time is one passage (D8).
    same_pass      interval NOT NULL DEFAULT '60 seconds' CHECK (same_pass >= interval '0'),
    -- When a day's visits are closed, on the organisation's clock (D8).
    close_at       time NOT NULL DEFAULT '22:00',
    -- Quiet hours on the organisation's clock (D7); equal times mean none.
    quiet_from     time NOT NULL DEFAULT '21:00',
    quiet_until    time NOT NULL DEFAULT '08:00',
    -- When digests are made, on the organisation's clock; the week's is on Friday.
    digest_at      time NOT NULL DEFAULT '19:00',
    -- How long a message to a phone of several children waits for a sibling.
    merge_wait     interval NOT NULL DEFAULT '0' CHECK (merge_wait BETWEEN interval '0' AND interval '90 seconds'),
    -- How long "left" waits for an entry to a sister building.
    leave_wait     interval NOT NULL DEFAULT '0' CHECK (leave_wait BETWEEN interval '0' AND interval '15 minutes'),
    -- The youngest companion who may collect a child from a kindergarten, in years (D10).
    companion_age  smallint NOT NULL DEFAULT 18 CHECK (companion_age BETWEEN 0 AND 99)
);
CREATE INDEX organisation_payee ON ledger.organisation (payee_code);

CREATE TABLE ledger.building (
    id              bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    code            text NOT NULL UNIQUE CHECK (code <> '' AND length(code) <= 64),
    organisation_id bigint NOT NULL REFERENCES ledger.organisation (id),
    address         text NOT NULL CHECK (address <> '')
);
CREATE INDEX building_organisation ON ledger.building (organisation_id);

-- A pupil or a member of staff (R3, R4). group_name is a class or a kindergarten group;
-- benefit is which meals of a pupil the city pays for; from left_on the person no longer belongs here.
CREATE TABLE ledger.person (
    id              bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    code            text NOT NULL UNIQUE CHECK (code <> '' AND length(code) <= 64),
    organisation_id bigint NOT NULL REFERENCES ledger.organisation (id),
    kind            text NOT NULL CHECK (kind IN ('pupil', 'staff')),
    family_name     text NOT NULL CHECK (family_name <> ''),
    given_name      text NOT NULL CHECK (given_name <> ''),
    patronymic      text NOT NULL DEFAULT '',
    group_name      text NOT NULL DEFAULT '',
    benefit         text NOT NULL DEFAULT 'none' CHECK (benefit IN ('none', 'breakfast', 'lunch', 'full')),
    left_on         date,
    CHECK (kind = 'pupil' OR benefit = 'none')
);
CREATE INDEX person_organisation ON ledger.person (organisation_id);

GRANT SELECT, INSERT, UPDATE ON ledger.payee, ledger.organisation, ledger.building, ledger.person TO zvonok_app;
