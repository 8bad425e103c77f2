-- Owner: ledger (the double-entry book).
--
-- One row per posting holds both legs, so an unbalanced entry cannot be
-- written. Only wallets have a running balance, since only they have a limit;
-- the totals of all other accounts are folded later (ledger.fold_postings), so
-- no row is shared by all postings of a provider or a bank.
--
-- The application has SELECT here and may EXECUTE the functions below. It
-- cannot insert, change or delete a posting in any other way.

-- +goose Up

CREATE SEQUENCE ledger.posting_id AS bigint;

-- The ids of accounts tell wallets from the few accounts of the system itself:
-- those have ids below one million.
CREATE SEQUENCE ledger.wallet_id AS bigint START 1000000 MINVALUE 1000000;
CREATE SEQUENCE ledger.system_account_id AS bigint MAXVALUE 999999;

-- An account. A wallet is a person's: a liability, raised by credits. All
-- other kinds are the system's own and have an owner: the payee's code for
-- provider (hot and subsidised meals) and buffet, the partner's code for bank
-- (its clearing account) and settled (what it has transferred), '' for the
-- city's budget, the suspense, the write-offs and the losses of offline sales.
CREATE TABLE ledger.account (
    id        bigint PRIMARY KEY CHECK (id > 0),
    kind      text NOT NULL CHECK (kind IN ('wallet', 'provider', 'buffet', 'bank', 'settled',
                                            'budget', 'suspense', 'write_off', 'offline_loss')),
    owner     text CHECK (length(owner) <= 64),
    person_id bigint UNIQUE REFERENCES ledger.person (id),
    -- The number known outside: 8 to 10 digits, leading zeros count (D4).
    number    text UNIQUE CHECK (number ~ '^[0-9]{8,10}$'),
    opened_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (kind, owner),
    CHECK ((kind = 'wallet') = (id >= 1000000)),
    CHECK ((kind = 'wallet') = (person_id IS NOT NULL)),
    CHECK ((kind = 'wallet') = (number IS NOT NULL)),
    CHECK ((kind = 'wallet') = (owner IS NULL))
);

-- The running balance of a wallet, in kopecks. policy_floor is how deep an
-- online hot meal may take it (D11); floor follows it and is lowered further
-- by forced debits alone, so that the CHECK stays on while a sale made offline
-- is never refused. closed stops top-ups and purchases. ver counts the
-- movements. low_mark is the highest lower threshold and high_mark the lowest
-- upper one: outside of them no threshold can have been crossed.
-- The free space keeps updates on their page. Nearly each visit clears the page of
-- the old version that the one before has left, and looks at all its wallets for
-- that: with thirty to a page a batch takes a sixth less than with sixty.
CREATE TABLE ledger.balance (
    account_id   bigint PRIMARY KEY,
    posted       bigint NOT NULL DEFAULT 0,
    held         bigint NOT NULL DEFAULT 0,
    policy_floor bigint NOT NULL,
    floor        bigint NOT NULL,
    low_mark     bigint,
    high_mark    bigint,
    ver          integer NOT NULL DEFAULT 0,
    closed       boolean NOT NULL DEFAULT false,
    CONSTRAINT balance_floor CHECK (posted >= floor AND floor <= policy_floor AND held >= 0)
) WITH (fillfactor = 35);

-- Each change of a wallet's policy floor, so that the verification can tell a
-- floor lowered by policy from one lowered by nothing.
CREATE TABLE ledger.floor_change (
    account_id   bigint NOT NULL,
    ver          integer NOT NULL,
    policy_floor bigint NOT NULL,
    at           timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX floor_change_account ON ledger.floor_change (account_id);

-- A wallet that went with its person to another organisation, or with its
-- organisation to another payee, and what was in it: a payee that holds the
-- parents' money hands that sum over to the next one. actor is the setting
-- zvonok.actor of the transaction; without it the registry's import did it.
CREATE TABLE ledger.move (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id bigint NOT NULL,
    person_id  bigint NOT NULL,
    from_id    bigint NOT NULL,
    to_id      bigint NOT NULL,
    from_payee text NOT NULL,
    to_payee   text NOT NULL,
    balance    bigint NOT NULL,
    actor      text NOT NULL,
    at         timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX move_at ON ledger.move (at);

-- Who cooked for an organisation, and which meals of a child the city paid for,
-- until when: a till may report days later what it sold, and is owed, and was
-- entitled to, what held at the time. What has not changed since is in the
-- register. Benefits are kept no longer than tills may be late (ledger.Pseudonymise).
CREATE TABLE ledger.payee_past (
    organisation_id bigint NOT NULL,
    payee_code      text NOT NULL,
    until           timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX payee_past_organisation ON ledger.payee_past (organisation_id, until);
CREATE TABLE ledger.benefit_past (
    person_id bigint NOT NULL,
    benefit   text NOT NULL,
    until     timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX benefit_past_person ON ledger.benefit_past (person_id, until);
GRANT SELECT ON ledger.payee_past, ledger.benefit_past TO zvonok_app;
GRANT DELETE ON ledger.benefit_past TO zvonok_app;

-- Which kinds of accounts a kind of posting may debit and credit.
CREATE TABLE ledger.posting_rule (
    kind         text NOT NULL,
    debit_kind   text NOT NULL,
    credit_kind  text NOT NULL,
    min_amount   bigint NOT NULL DEFAULT 1,
    max_amount   bigint NOT NULL DEFAULT 1000000000000000,
    -- May take a wallet that is not in debt down to its policy floor (D11).
    may_owe      boolean NOT NULL DEFAULT false,
    -- May be forced: booked whatever the balance.
    may_force    boolean NOT NULL DEFAULT false,
    -- May touch a closed wallet.
    while_closed boolean NOT NULL DEFAULT false,
    -- Is told to people as a top-up or a correction (the job Posted).
    told         boolean NOT NULL DEFAULT false,
    PRIMARY KEY (kind, debit_kind, credit_kind)
);
INSERT INTO ledger.posting_rule
    (kind, debit_kind, credit_kind, min_amount, max_amount, may_owe, may_force, while_closed, told)
VALUES
    -- Money comes in (R34: 10 to 15,000 roubles), or cannot find its wallet (D13).
    ('topup',      'bank',         'wallet',    1000, 1500000,          false, false, false, true),
    ('unclear',    'bank',         'suspense',  1,    1000000000000000, false, false, false, false),
    ('release',    'suspense',     'wallet',    1,    1000000000000000, false, false, false, true),
    ('release',    'suspense',     'bank',      1,    1000000000000000, false, false, false, false),
    ('refund',     'wallet',       'bank',      1,    1000000000000000, false, false, true,  true),
    ('transfer',   'wallet',       'wallet',    1,    1000000000000000, false, false, false, true),
    -- Meals. A subsidised one touches no wallet (D11).
    ('buffet',     'wallet',       'buffet',    1,    1000000000000000, false, true,  false, false),
    ('hot',        'wallet',       'provider',  1,    1000000000000000, true,  true,  false, false),
    ('subsidised', 'budget',       'provider',  1,    1000000000000000, false, false, false, false),
    ('lost',       'offline_loss', 'provider',  1,    1000000000000000, false, false, false, false),
    ('lost',       'offline_loss', 'buffet',    1,    1000000000000000, false, false, false, false),
    -- Accountants' entries.
    ('correction', 'write_off',    'wallet',    1,    1000000000000000, false, false, true,  true),
    ('correction', 'wallet',       'write_off', 1,    1000000000000000, false, true,  true,  true),
    ('correction', 'wallet',       'suspense',  1,    1000000000000000, false, true,  true,  true),
    ('writeoff',   'write_off',    'bank',      1,    1000000000000000, false, false, false, false),
    ('writeoff',   'bank',         'write_off', 1,    1000000000000000, false, false, false, false),
    ('writeoff',   'suspense',     'write_off', 1,    1000000000000000, false, false, false, false),
    ('writeoff',   'write_off',    'offline_loss', 1, 1000000000000000, false, false, false, false),
    -- Money moves between the settled accounts: banks transfer, and keep back what they
    -- gave back to payers; providers are paid, the city pays.
    ('settlement', 'settled',      'bank',      1,    1000000000000000, false, false, false, false),
    ('settlement', 'bank',         'settled',   1,    1000000000000000, false, false, false, false),
    ('payout',     'provider',     'settled',   1,    1000000000000000, false, false, false, false),
    ('payout',     'buffet',       'settled',   1,    1000000000000000, false, false, false, false),
    ('subsidy',    'settled',      'budget',    1,    1000000000000000, false, false, false, false);

-- sound_posting is what every posting is, whoever writes it. A CHECK is read
-- anew from its stored tree by every statement, and as an expression this one
-- took a fifth of a single posting's time; a function is compiled once.
-- +goose StatementBegin
CREATE FUNCTION ledger.sound_posting(
    kind text, amount bigint, debit_id bigint, credit_id bigint, debit_ver integer, credit_ver integer
) RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
BEGIN
    RETURN amount > 0 AND debit_id <> credit_id
           AND CASE kind WHEN 'topup' THEN amount BETWEEN 1000 AND 1500000
                         WHEN 'subsidised' THEN debit_ver IS NULL AND credit_ver IS NULL
                         ELSE true END;
END
$$;
-- +goose StatementEnd

-- A posting: amount kopecks from the debited to the credited account. For a
-- leg that is a wallet, ..._after is its balance after this posting and
-- ..._ver the number of this movement; both are null for all other accounts.
-- No foreign keys to accounts: each check would lock the provider's row.
CREATE TABLE ledger.posting (
    id           bigint NOT NULL,
    event_id     bigint NOT NULL,
    amount       bigint NOT NULL,
    debit_id     bigint NOT NULL,
    credit_id    bigint NOT NULL,
    debit_after  bigint,
    credit_after bigint,
    -- The person it is about when no leg is a wallet.
    subject_id   bigint,
    reverses_id  bigint,
    -- When it happened, as the device or the bank says.
    occurred_at  timestamptz NOT NULL,
    -- When it was booked, by the database's clock.
    posted_at    timestamptz NOT NULL,
    -- The transaction that booked it, counted on across restores (ledger.gate).
    xid          bigint NOT NULL,
    -- The accounting day; open when it was booked.
    booking_day  date NOT NULL,
    -- The day it belonged to, had that not been closed.
    late_from    date,
    debit_ver    integer,
    credit_ver   integer,
    kind         text NOT NULL,
    source       text COLLATE "C" NOT NULL,
    ext_id       text COLLATE "C" NOT NULL,
    forced       boolean NOT NULL,
    PRIMARY KEY (id, booking_day),
    CONSTRAINT posting_sound CHECK (ledger.sound_posting(kind, amount, debit_id, credit_id, debit_ver, credit_ver))
) PARTITION BY RANGE (booking_day);
CREATE INDEX posting_event ON ledger.posting (event_id);
CREATE INDEX posting_debit ON ledger.posting (debit_id, debit_ver) WHERE debit_ver IS NOT NULL;
CREATE INDEX posting_credit ON ledger.posting (credit_id, credit_ver) WHERE credit_ver IS NOT NULL;
CREATE INDEX posting_cut ON ledger.posting USING brin (xid, booking_day)
    WITH (pages_per_range = 32, autosummarize = on);
CREATE TABLE ledger.posting_default PARTITION OF ledger.posting DEFAULT;
SELECT ledger.ensure_month('ledger.posting', (date_trunc('month', now()) + make_interval(months => m))::date)
  FROM generate_series(-1, 3) AS m;

-- Every (source, ext_id) ever taken, with what was asked under it (ledger.body_of).
-- Not partitioned: a unique key that contained the day would let a bank's id
-- in twice at the end of a month. A row without a posting id is a tombstone:
-- cancelled before it came.
CREATE TABLE ledger.idem (
    source      text COLLATE "C" NOT NULL,
    ext_id      text COLLATE "C" NOT NULL,
    posting_id  bigint,
    booking_day date,
    body        text COLLATE "C",
    PRIMARY KEY (source, ext_id)
);

-- An id that was refused stays refused: its posting id was never used for a posting.
CREATE TABLE ledger.refusal (
    posting_id bigint PRIMARY KEY,
    event_id   bigint NOT NULL,
    reason     text NOT NULL CHECK (reason IN ('refused', 'over_reversed')),
    kind       text NOT NULL,
    debit_id   bigint NOT NULL,
    amount     bigint NOT NULL,
    available  bigint NOT NULL,
    at         timestamptz NOT NULL
);

-- How much of a posting has been reversed.
CREATE TABLE ledger.reversed (
    posting_id bigint PRIMARY KEY,
    amount     bigint NOT NULL,
    reversed   bigint NOT NULL DEFAULT 0,
    CHECK (reversed BETWEEN 0 AND amount)
);

-- Money of a wallet set aside, for a preorder.
CREATE TABLE ledger.hold (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id bigint NOT NULL,
    amount     bigint NOT NULL CHECK (amount > 0),
    source     text NOT NULL CHECK (source <> '' AND length(source) <= 64),
    ext_id     text NOT NULL CHECK (ext_id <> '' AND length(ext_id) <= 64),
    state      text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'taken', 'released')),
    opened_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at   timestamptz,
    UNIQUE (source, ext_id),
    CHECK ((state = 'open') = (ended_at IS NULL))
);
CREATE INDEX hold_open ON ledger.hold (account_id) WHERE state = 'open';

-- The threshold of one recipient for one wallet (D1); it holds for movements
-- after since_ver. owner is the recipient's id, opaque here.
CREATE TABLE ledger.threshold (
    account_id bigint NOT NULL,
    owner      bigint NOT NULL,
    upward     boolean NOT NULL DEFAULT false,
    amount     bigint NOT NULL,
    since_ver  integer NOT NULL,
    PRIMARY KEY (account_id, owner, upward)
);

-- Thresholds that were replaced or removed; they held for movements after
-- since_ver up to until_ver.
CREATE TABLE ledger.threshold_past (
    account_id bigint NOT NULL,
    owner      bigint NOT NULL,
    upward     boolean NOT NULL,
    amount     bigint NOT NULL,
    since_ver  integer NOT NULL,
    until_ver  integer NOT NULL,
    CHECK (since_ver < until_ver)
);
CREATE INDEX threshold_past_account ON ledger.threshold_past (account_id);

-- A threshold crossed by the movement ver of a wallet, or, without a posting,
-- found crossed when it was set at that ver. The primary key is what makes a
-- crossing happen once.
CREATE TABLE ledger.crossing (
    account_id  bigint NOT NULL,
    owner       bigint NOT NULL,
    upward      boolean NOT NULL,
    ver         integer NOT NULL,
    event_id    bigint NOT NULL UNIQUE,
    posting_id  bigint,
    threshold   bigint NOT NULL,
    balance     bigint NOT NULL,
    occurred_at timestamptz NOT NULL,
    at          timestamptz NOT NULL,
    PRIMARY KEY (account_id, owner, upward, ver)
);

-- The one row every posting reads. Days up to closed_through are closed; the
-- books begin on the day after its first value. xid_base is added to the
-- server's transaction ids, which start over in a restored cluster.
CREATE TABLE ledger.gate (
    only_row       boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    closed_through date NOT NULL,
    xid_base       bigint NOT NULL DEFAULT 0
);
INSERT INTO ledger.gate (closed_through) VALUES (current_date - 1100);

-- A closed day. All transactions that posted on it have ids below closing_xid.
-- seal is null until it has been computed; it covers the seal of the closed day
-- before and every posting of this one.
CREATE TABLE ledger.day (
    day         date PRIMARY KEY,
    closed_at   timestamptz NOT NULL,
    closing_xid bigint NOT NULL,
    postings    bigint,
    amount      bigint,
    late        bigint,
    sealed_at   timestamptz,
    seal        bytea,
    CHECK ((seal IS NULL) = (sealed_at IS NULL)),
    CHECK ((seal IS NULL) = (postings IS NULL))
);

-- The postings of a closed day in groups of neighbouring ids: the hash of each
-- group and the first four bytes of each posting's own, in order of ids, so
-- that a changed row can be named.
CREATE TABLE ledger.day_leaf (
    day    date NOT NULL,
    leaf   bigint NOT NULL,
    digest bytea NOT NULL,
    marks  bytea NOT NULL,
    PRIMARY KEY (day, leaf)
);

-- The turnover of each account that moved on a closed day.
CREATE TABLE ledger.day_account (
    account_id bigint NOT NULL,
    day        date NOT NULL,
    opening    bigint NOT NULL,
    debit      bigint NOT NULL,
    credit     bigint NOT NULL,
    closing    bigint NOT NULL,
    postings   bigint NOT NULL,
    PRIMARY KEY (account_id, day)
);
-- Rows come day by day.
CREATE INDEX day_account_day ON ledger.day_account USING brin (day) WITH (pages_per_range = 16, autosummarize = on);

-- Which wallets were closed and opened again, and by whom.
CREATE TABLE ledger.account_log (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id bigint NOT NULL,
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    closed     boolean NOT NULL,
    actor      text NOT NULL,
    reason     text NOT NULL
);
CREATE INDEX account_log_account ON ledger.account_log (account_id, id);

-- What was done to days, and by whom.
CREATE TABLE ledger.day_log (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    day    date NOT NULL,
    action text NOT NULL CHECK (action IN ('closed', 'sealed', 'reopened')),
    actor  text NOT NULL,
    reason text NOT NULL DEFAULT '',
    seal   bytea
);

-- Totals of the accounts that are not wallets, of all postings below the watermark.
CREATE TABLE ledger.fold (
    account_id  bigint NOT NULL,
    booking_day date NOT NULL,
    debit       bigint NOT NULL,
    credit      bigint NOT NULL,
    postings    bigint NOT NULL,
    PRIMARY KEY (account_id, booking_day)
) WITH (fillfactor = 70);

CREATE TABLE ledger.fold_mark (
    only_row  boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    watermark bigint NOT NULL DEFAULT 0,
    folded_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO ledger.fold_mark DEFAULT VALUES;

-- Each verification of the books that was finished: the moment of its snapshot
-- and how many violations of each invariant it found, {"I1": 0, …}. So every
-- process of a fleet knows of the one that did it.
CREATE TABLE ledger.verification (
    at          timestamptz PRIMARY KEY,
    finished_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    found       jsonb NOT NULL
);

-- What has been written in these tables stays as it is.
-- +goose StatementBegin
CREATE FUNCTION ledger.forbid_change() RETURNS trigger
    LANGUAGE plpgsql
AS $$
BEGIN
    RAISE EXCEPTION '%.% is append-only: % is not allowed', TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'insufficient_privilege';
END
$$;
-- +goose StatementEnd
-- +goose StatementBegin
DO $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['posting', 'idem', 'refusal', 'crossing', 'floor_change', 'move', 'day_log', 'account_log', 'posting_rule',
                              'verification'] LOOP
        EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ledger.%I
                        FOR EACH ROW EXECUTE FUNCTION ledger.forbid_change()', t);
        EXECUTE format('CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ledger.%I
                        FOR EACH STATEMENT EXECUTE FUNCTION ledger.forbid_change()', t);
    END LOOP;
    FOREACH t IN ARRAY ARRAY['account', 'balance'] LOOP
        EXECUTE format('CREATE TRIGGER never_deleted BEFORE DELETE ON ledger.%I
                        FOR EACH ROW EXECUTE FUNCTION ledger.forbid_change()', t);
        EXECUTE format('CREATE TRIGGER never_truncated BEFORE TRUNCATE ON ledger.%I
                        FOR EACH STATEMENT EXECUTE FUNCTION ledger.forbid_change()', t);
    END LOOP;
END
$$;
-- +goose StatementEnd

-- body_of is what was asked under an id, to tell a repeat from something else.
-- When it happened and whether it was forced are left out: a repeat may say them
-- differently. It is kept as it is: a hash is hardly shorter, and making it took a
-- sixteenth of a batch's time.
CREATE FUNCTION ledger.body_of(kind text, debit bigint, credit bigint, amount bigint, subject bigint, reverses bigint)
    RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
    RETURN concat_ws(' ', kind, debit, credit, amount, coalesce(subject, 0), coalesce(reverses, 0));

-- total is the sum of kopecks, in kopecks: sum() makes a numeric of each step, which
-- a batch can feel. Beyond a bigint it is an error.
CREATE AGGREGATE ledger.total(bigint) (SFUNC = int8pl, STYPE = bigint, PARALLEL = SAFE);

-- debit_allowed is the rule of floors for an online debit: what is left must
-- not be below zero; a kind that may owe (a hot meal) may take a wallet that is
-- not in debt down to its policy floor. before and after are without held money.
CREATE FUNCTION ledger.debit_allowed(may_owe boolean, before bigint, after bigint, policy_floor bigint)
    RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN after >= 0 OR (may_owe AND before >= 0 AND after >= policy_floor);

-- crossed is the edge of a threshold (D1): from at or above it to below it, or
-- for an upward one from at or below it to above it.
CREATE FUNCTION ledger.crossed(upward boolean, threshold bigint, before bigint, after bigint)
    RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN upward THEN before <= threshold AND after > threshold
                ELSE before >= threshold AND after < threshold END;

-- system_accounts answers the ids of accounts that are not wallets, opening those that are missing.
-- +goose StatementBegin
CREATE FUNCTION ledger.system_accounts(p_kind text[], p_owner text[]) RETURNS bigint[]
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_ids bigint[];
BEGIN
    FOR attempt IN 1..2 LOOP
        SELECT array_agg(a.id ORDER BY i.ord) INTO v_ids
          FROM unnest(p_kind, p_owner) WITH ORDINALITY AS i (kind, owner, ord)
          LEFT JOIN ledger.account a ON a.kind = i.kind AND a.owner = i.owner;
        EXIT WHEN array_position(v_ids, NULL) IS NULL;
        INSERT INTO ledger.account (id, kind, owner)
        SELECT nextval('ledger.system_account_id'), i.kind, i.owner
          FROM (SELECT DISTINCT kind, owner
                  FROM unnest(p_kind, p_owner) AS i (kind, owner)
                 WHERE kind <> 'wallet'
                   AND NOT EXISTS (SELECT FROM ledger.account a WHERE a.kind = i.kind AND a.owner = i.owner)
                 ORDER BY kind, owner) AS i
        ON CONFLICT (kind, owner) DO NOTHING;
    END LOOP;
    RETURN v_ids;
END
$$;
-- +goose StatementEnd

-- open_wallets opens a wallet per person under the given number. A person who
-- has that wallet already keeps it; another number for the same person, or a
-- number that is taken, is an error.
-- +goose StatementBegin
CREATE FUNCTION ledger.open_wallets(p_person bigint[], p_number text[]) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_opened bigint;
BEGIN
    WITH opened AS (
        INSERT INTO ledger.account (id, kind, person_id, number)
        SELECT nextval('ledger.wallet_id'), 'wallet', i.person_id, i.number
          FROM unnest(p_person, p_number) AS i (person_id, number)
         WHERE NOT EXISTS (SELECT FROM ledger.account a WHERE a.person_id = i.person_id AND a.number = i.number)
        RETURNING id, person_id
    ), balanced AS (
        INSERT INTO ledger.balance (account_id, policy_floor, floor)
        SELECT o.id, g.debt_floor, g.debt_floor
          FROM opened o
          JOIN ledger.person p ON p.id = o.person_id
          JOIN ledger.organisation g ON g.id = p.organisation_id
        RETURNING 1
    )
    SELECT count(*) INTO v_opened FROM balanced;
    RETURN v_opened;
END
$$;
-- +goose StatementEnd

-- set_closed closes or opens wallets for top-ups and purchases, and logs it.
-- +goose StatementBegin
CREATE FUNCTION ledger.set_closed(p_account bigint[], p_closed boolean, p_actor text, p_reason text) RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    WITH changed AS (
        UPDATE ledger.balance SET closed = p_closed WHERE account_id = ANY (p_account) AND closed <> p_closed
        RETURNING account_id
    )
    INSERT INTO ledger.account_log (account_id, closed, actor, reason)
    SELECT account_id, p_closed, p_actor, p_reason FROM changed
$$;
-- +goose StatementEnd

-- set_policy_floors changes how deep hot meals may take wallets.
-- +goose StatementBegin
CREATE FUNCTION ledger.set_policy_floors(p_account bigint[], p_floor bigint[]) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM ledger.balance b WHERE b.account_id = ANY (p_account) ORDER BY b.account_id FOR NO KEY UPDATE;
    WITH changed AS (
        UPDATE ledger.balance b
           SET policy_floor = i.policy_floor, floor = least(i.policy_floor, b.posted)
          FROM unnest(p_account, p_floor) AS i (account_id, policy_floor)
         WHERE b.account_id = i.account_id AND b.policy_floor <> i.policy_floor
        RETURNING b.account_id, b.ver, b.policy_floor
    )
    INSERT INTO ledger.floor_change (account_id, ver, policy_floor)
    SELECT c.account_id, c.ver, c.policy_floor FROM changed c;
END
$$;
-- +goose StatementEnd

-- A wallet's policy floor is that of its person's organisation: it follows when
-- the person moves or the organisation changes its own. Both moves are noted, and
-- so is what a change of payee or benefit ends.
-- +goose StatementBegin
CREATE FUNCTION ledger.follow_policy() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_actor text := coalesce(nullif(current_setting('zvonok.actor', true), ''), 'import');
BEGIN
    IF TG_TABLE_NAME = 'person' THEN
        INSERT INTO ledger.benefit_past (person_id, benefit)
        SELECT n.id, w.benefit FROM new_rows n JOIN old_rows w ON w.id = n.id AND w.benefit <> n.benefit;
        PERFORM ledger.set_policy_floors(array_agg(a.id), array_agg(o.debt_floor))
           FROM new_rows n
           JOIN old_rows w ON w.id = n.id AND w.organisation_id <> n.organisation_id
           JOIN ledger.organisation o ON o.id = n.organisation_id
           JOIN ledger.account a ON a.person_id = n.id
         HAVING count(*) > 0;
        -- Behind the locks: the balance that went along.
        INSERT INTO ledger.move (account_id, person_id, from_id, to_id, from_payee, to_payee, balance, actor)
        SELECT a.id, n.id, f.id, t.id, coalesce(f.payee_code, ''), coalesce(t.payee_code, ''), b.posted, v_actor
          FROM new_rows n
          JOIN old_rows w ON w.id = n.id AND w.organisation_id <> n.organisation_id
          JOIN ledger.organisation f ON f.id = w.organisation_id
          JOIN ledger.organisation t ON t.id = n.organisation_id
          JOIN ledger.account a ON a.person_id = n.id
          JOIN ledger.balance b ON b.account_id = a.id
         ORDER BY a.id;
    ELSE
        INSERT INTO ledger.payee_past (organisation_id, payee_code)
        SELECT n.id, w.payee_code FROM new_rows n JOIN old_rows w ON w.id = n.id AND w.payee_code <> coalesce(n.payee_code, '');
        PERFORM ledger.set_policy_floors(array_agg(a.id), array_agg(n.debt_floor))
           FROM new_rows n
           JOIN old_rows w ON w.id = n.id AND w.debt_floor <> n.debt_floor
           JOIN ledger.person p ON p.organisation_id = n.id
           JOIN ledger.account a ON a.person_id = p.id
         HAVING count(*) > 0;
        IF EXISTS (SELECT FROM new_rows n JOIN old_rows w ON w.id = n.id AND w.payee_code IS DISTINCT FROM n.payee_code) THEN
            PERFORM ledger.lock_wallets(array_agg(a.id))
               FROM new_rows n
               JOIN old_rows w ON w.id = n.id AND w.payee_code IS DISTINCT FROM n.payee_code
               JOIN ledger.person p ON p.organisation_id = n.id
               JOIN ledger.account a ON a.person_id = p.id;
            INSERT INTO ledger.move (account_id, person_id, from_id, to_id, from_payee, to_payee, balance, actor)
            SELECT a.id, p.id, n.id, n.id, coalesce(w.payee_code, ''), coalesce(n.payee_code, ''), b.posted, v_actor
              FROM new_rows n
              JOIN old_rows w ON w.id = n.id AND w.payee_code IS DISTINCT FROM n.payee_code
              JOIN ledger.person p ON p.organisation_id = n.id
              JOIN ledger.account a ON a.person_id = p.id
              JOIN ledger.balance b ON b.account_id = a.id
             WHERE b.posted <> 0
             ORDER BY a.id;
        END IF;
    END IF;
    RETURN NULL;
END
$$;
-- +goose StatementEnd
CREATE TRIGGER follow_policy AFTER UPDATE ON ledger.person
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.follow_policy();
CREATE TRIGGER follow_policy AFTER UPDATE ON ledger.organisation
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.follow_policy();

-- enter_days holds the accounting days open that postings meant for p_days will
-- be booked on, until the transaction ends: closing a day waits for the same
-- locks, exclusively, so nothing can be booked on it after the cut. It answers
-- the gate as it stands behind the locks.
-- +goose StatementBegin
CREATE FUNCTION ledger.enter_days(p_days date[]) RETURNS ledger.gate
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_gate ledger.gate;
    v_closed date;
    v_day date;
BEGIN
    -- Mostly all are of one day, and it is open: it is held, and then the gate read.
    -- As an expression the lock costs a tenth of what it costs as a statement.
    IF p_days[1] = ALL (p_days) AND pg_advisory_xact_lock_shared(1819239273, p_days[1] - date '2000-01-01') IS NOT NULL THEN
        SELECT * INTO v_gate FROM ledger.gate;
        IF p_days[1] > v_gate.closed_through THEN
            RETURN v_gate;
        END IF;
    ELSE
        SELECT * INTO v_gate FROM ledger.gate;
    END IF;
    LOOP
        v_closed := v_gate.closed_through;
        FOR v_day IN SELECT DISTINCT greatest(d, v_closed + 1) AS day FROM unnest(p_days) AS d ORDER BY day LOOP
            PERFORM pg_advisory_xact_lock_shared(1819239273, v_day - date '2000-01-01');
        END LOOP;
        SELECT * INTO v_gate FROM ledger.gate;
        EXIT WHEN v_gate.closed_through = v_closed;
    END LOOP;
    RETURN v_gate;
END
$$;
-- +goose StatementEnd

-- post_batch books a batch. It answers at most two rows, whose arrays have an
-- element per item, told apart by ord (from 1): a row of the items that were
-- posted, with the event ids of the thresholds that were crossed, and a row of
-- all others. A row per item would be more work for both sides. Each says how many
-- seconds the call waited for its wallets and days. Verdicts:
-- posted; duplicate (the same was booked under this id before); conflict
-- (something else was); cancelled (the id has a tombstone); refused (a floor);
-- over_reversed; unknown_account; closed_account; bad_legs (this kind does not go
-- between these accounts, or may not be forced); bad_amount; no_original;
-- not_reversible. Refusals by a floor and of too great a reversal are kept under
-- the id: it stays refused.
--
-- All arrays are of one length. p_amount 0 of a reversal means the whole
-- original. p_of_source and p_of_ext name what a reversal reverses; both arrays
-- are null when the batch has none.
--
-- Order of locks, the same in every call: wallets by id, days by date, reversed
-- postings by id, ids by (source, ext_id) in the order of their bytes, whatever the
-- database's own order of text is.
--
-- Each statement is planned once per session for an unknown number of items.
-- The planner then expects few, which gives index lookups in the tables (right
-- for one item and for a thousand) and nested loops between sets of items,
-- which must not be: no statement joins one set of items with another. Where
-- many arrays are read by place, only one is unnested: each further one would be
-- put into a table of its own first.
-- +goose StatementBegin
CREATE FUNCTION ledger.post_batch(
    p_event bigint[], p_kind text[], p_debit bigint[], p_credit bigint[], p_amount bigint[],
    p_source text[], p_ext text[], p_forced boolean[], p_occurred timestamptz[], p_day date[],
    p_subject bigint[], p_of_source text[], p_of_ext text[]
) RETURNS TABLE (
    ord integer[], verdict text[], posting_id bigint[], event_id bigint[], booking_day date[],
    debit_after bigint[], credit_after bigint[], told boolean[], crossings bigint[], waited double precision
)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    v_gate     ledger.gate;
    v_xid      bigint;
    v_wallet   bigint[];   -- the wallets of the batch, ascending, as they are when locked
    v_row      tid[];      -- where their rows lie: nothing moves them while they are locked
    v_posted   bigint[];
    v_held     bigint[];
    v_policy   bigint[];
    v_low      bigint[];
    v_high     bigint[];
    v_ver      integer[];
    v_closed   boolean[];
    v_system   bigint[];   -- the other accounts of the batch, ascending, and their kinds
    v_kind     text[];
    v_of_id    bigint[];   -- of reversals: the original
    v_of_kind  text[];
    v_of_told  boolean[];
    v_orig     bigint[];   -- originals being reversed, ascending, and what is left of each
    v_left     bigint[];
    v_id       bigint[];   -- of each item: posting id, verdict, places of its wallets in v_wallet
    v_verdict  text[];
    v_debit_at integer[];
    v_credit_at integer[];
    v_owe      boolean[];
    v_told     boolean[];
    v_body     text[];
    v_between  boolean;    -- whether any item goes from wallet to wallet
    v_taken    integer;    -- how many ids were free
    v_sound    integer;    -- how many items had nothing wrong with them
    v_tight    integer[];  -- places of wallets whose debits may not all fit
    v_run      bigint[];   -- running balances of those
    v_has      bigint;
    v_of       integer;
    v_reason   text;
    v_asked    timestamptz; -- when the first lock was asked for, and how long they took
    v_waited   double precision;
    r          record;
BEGIN
    IF p_of_ext IS NOT NULL THEN
        SELECT array_agg(CASE WHEN i.kind = 'reversal' THEN i.o_credit ELSE i.debit END),
               array_agg(CASE WHEN i.kind = 'reversal' THEN i.o_debit ELSE i.credit END),
               array_agg(CASE WHEN i.kind = 'reversal' AND i.amount = 0 THEN i.o_amount ELSE i.amount END),
               array_agg(i.o_id), array_agg(i.o_kind),
               array_agg((SELECT u.told
                            FROM ledger.account d, ledger.account c, ledger.posting_rule u
                           WHERE d.id = i.o_debit AND c.id = i.o_credit
                             AND (u.kind, u.debit_kind, u.credit_kind) = (i.o_kind, d.kind, c.kind)))
          INTO p_debit, p_credit, p_amount, v_of_id, v_of_kind, v_of_told
          FROM (SELECT i.*, o.id AS o_id, o.kind AS o_kind, o.debit_id AS o_debit, o.credit_id AS o_credit,
                       o.amount AS o_amount
                  FROM unnest(p_kind, p_debit, p_credit, p_amount, p_of_source, p_of_ext)
                       WITH ORDINALITY AS i (kind, debit, credit, amount, of_source, of_ext, ord)
                  LEFT JOIN ledger.idem k ON k.source = i.of_source AND k.ext_id = i.of_ext
                  LEFT JOIN ledger.posting o ON o.id = k.posting_id AND o.booking_day = k.booking_day
                 ORDER BY i.ord) AS i;
    END IF;

    v_asked := clock_timestamp();
    SELECT array_agg(b.account_id), array_agg(b.ctid), array_agg(b.posted), array_agg(b.held), array_agg(b.policy_floor),
           array_agg(b.low_mark), array_agg(b.high_mark), array_agg(b.ver), array_agg(b.closed)
      INTO v_wallet, v_row, v_posted, v_held, v_policy, v_low, v_high, v_ver, v_closed
      FROM (SELECT b.ctid, b.*
              FROM ledger.balance b
             WHERE b.account_id = ANY (p_debit || p_credit)
             ORDER BY b.account_id
               FOR NO KEY UPDATE) AS b;
    v_gate := ledger.enter_days(p_day);
    v_xid := v_gate.xid_base + pg_current_xact_id()::text::bigint;

    IF p_of_ext IS NOT NULL THEN
        INSERT INTO ledger.reversed (posting_id, amount)
        SELECT DISTINCT o.id, o.amount
          FROM unnest(p_of_source, p_of_ext) AS i (of_source, of_ext)
          JOIN ledger.idem k ON k.source = i.of_source AND k.ext_id = i.of_ext
          JOIN ledger.posting o ON o.id = k.posting_id AND o.booking_day = k.booking_day AND o.kind <> 'reversal'
         ORDER BY o.id
        ON CONFLICT (posting_id) DO NOTHING;
        SELECT array_agg(l.posting_id), array_agg(l.remains) INTO v_orig, v_left
          FROM (SELECT x.posting_id, x.amount - x.reversed AS remains
                  FROM ledger.reversed x
                 WHERE x.posting_id = ANY (v_of_id)
                 ORDER BY x.posting_id
                   FOR UPDATE) AS l;
    END IF;

    v_waited := date_part('epoch', clock_timestamp() - v_asked);

    SELECT array_agg(a.id), array_agg(a.kind) INTO v_system, v_kind
      FROM (SELECT a.id, a.kind
              FROM ledger.account a
             WHERE a.id = ANY (p_debit || p_credit) AND a.id < 1000000
             ORDER BY a.id) AS a;

    -- Look at each item.
    WITH place AS (
        SELECT i.ord, p_kind[i.ord] AS kind, i.debit, p_credit[i.ord] AS credit, p_amount[i.ord] AS amount,
               p_forced[i.ord] AS forced, p_subject[i.ord] AS subject, v_of_id[i.ord] AS of_id, v_of_kind[i.ord] AS of_kind,
               v_of_told[i.ord] AS of_told, nextval('ledger.posting_id') AS id,
               width_bucket(i.debit, CASE WHEN i.debit >= 1000000 THEN v_wallet ELSE v_system END) AS d,
               width_bucket(p_credit[i.ord], CASE WHEN p_credit[i.ord] >= 1000000 THEN v_wallet ELSE v_system END) AS c
          FROM unnest(p_debit) WITH ORDINALITY AS i (debit, ord)
    ), leg AS (
        SELECT p.*,
               CASE WHEN p.debit < 1000000 THEN CASE WHEN v_system[p.d] = p.debit THEN v_kind[p.d] END
                    WHEN v_wallet[p.d] = p.debit THEN 'wallet' END AS debit_kind,
               CASE WHEN p.credit < 1000000 THEN CASE WHEN v_system[p.c] = p.credit THEN v_kind[p.c] END
                    WHEN v_wallet[p.c] = p.credit THEN 'wallet' END AS credit_kind
          FROM place p
    ), item AS MATERIALIZED (
        SELECT i.ord, i.id,
               CASE
                   WHEN i.kind = 'reversal' AND i.of_id IS NULL THEN 'no_original'
                   WHEN i.kind = 'reversal' AND i.of_kind = 'reversal' THEN 'not_reversible'
                   WHEN i.amount IS NULL OR i.amount <= 0 THEN 'bad_amount'
                   WHEN i.debit_kind IS NULL OR i.credit_kind IS NULL THEN 'unknown_account'
                   WHEN i.kind = 'reversal' THEN CASE WHEN i.forced THEN 'bad_legs' ELSE 'posted' END
                   WHEN u.kind IS NULL OR i.debit = i.credit OR (i.forced AND NOT u.may_force) THEN 'bad_legs'
                   WHEN i.amount NOT BETWEEN u.min_amount AND u.max_amount THEN 'bad_amount'
                   WHEN NOT (u.while_closed OR i.forced)
                        AND ((i.debit_kind = 'wallet' AND v_closed[i.d])
                             OR (i.credit_kind = 'wallet' AND v_closed[i.c]))
                        THEN 'closed_account'
                   ELSE 'posted'
               END AS verdict,
               CASE WHEN i.debit_kind = 'wallet' THEN i.d END AS debit_at,
               CASE WHEN i.credit_kind = 'wallet' THEN i.c END AS credit_at,
               coalesce(u.may_owe, false) AS may_owe, coalesce(u.told, i.of_told, false) AS told,
               ledger.body_of(i.kind, i.debit, i.credit, i.amount, i.subject, i.of_id) AS body
          FROM leg i
          LEFT JOIN ledger.posting_rule u
            ON u.kind = i.kind AND u.debit_kind = i.debit_kind AND u.credit_kind = i.credit_kind
         ORDER BY i.ord
    )
    SELECT array_agg(i.id), array_agg(i.verdict), array_agg(i.debit_at), array_agg(i.credit_at),
           array_agg(i.may_owe), array_agg(i.told), array_agg(i.body), count(*) FILTER (WHERE i.verdict = 'posted'),
           bool_or(i.debit_at IS NOT NULL AND i.credit_at IS NOT NULL)
      INTO v_id, v_verdict, v_debit_at, v_credit_at, v_owe, v_told, v_body, v_sound, v_between
      FROM item i;

    -- Take the ids of the sound ones. An id that another transaction is taking
    -- right now makes this wait for the outcome. Mostly all ids are new: they are
    -- taken without looking for each of them first, and if one was not new after
    -- all, once more with looking.
    BEGIN
        INSERT INTO ledger.idem (source, ext_id, posting_id, booking_day, body)
        SELECT p_source[i.ord], p_ext[i.ord], v_id[i.ord], greatest(p_day[i.ord], v_gate.closed_through + 1), v_body[i.ord]
          FROM unnest(v_verdict) WITH ORDINALITY AS i (verdict, ord)
         WHERE i.verdict = 'posted'
         ORDER BY p_source[i.ord] COLLATE "C", p_ext[i.ord] COLLATE "C", i.ord;
        v_taken := v_sound;
    EXCEPTION WHEN unique_violation THEN
        INSERT INTO ledger.idem (source, ext_id, posting_id, booking_day, body)
        SELECT p_source[i.ord], p_ext[i.ord], v_id[i.ord], greatest(p_day[i.ord], v_gate.closed_through + 1), v_body[i.ord]
          FROM unnest(v_verdict) WITH ORDINALITY AS i (verdict, ord)
         WHERE i.verdict = 'posted'
         ORDER BY p_source[i.ord] COLLATE "C", p_ext[i.ord] COLLATE "C", i.ord
        ON CONFLICT (source, ext_id) DO NOTHING;
        GET DIAGNOSTICS v_taken = ROW_COUNT;
    END;
    IF v_taken < v_sound THEN
        SELECT array_agg(CASE WHEN i.verdict <> 'posted' OR i.posting_id = i.id THEN i.verdict ELSE 'duplicate' END)
          INTO v_verdict
          FROM (SELECT i.verdict, i.id, k.posting_id
                  FROM unnest(v_id, v_verdict, p_source, p_ext) WITH ORDINALITY AS i (id, verdict, source, ext_id, ord)
                  LEFT JOIN ledger.idem k ON k.source = i.source AND k.ext_id = i.ext_id
                 ORDER BY i.ord) AS i;
    END IF;

    -- Wallets that have enough for all their online debits of this batch need
    -- no closer look: credits and refusals could only leave them more.
    SELECT array_agg(s.debit_at) INTO v_tight
      FROM (SELECT i.debit_at
              FROM unnest(v_debit_at) WITH ORDINALITY AS i (debit_at, ord)
             WHERE v_verdict[i.ord] = 'posted' AND i.debit_at IS NOT NULL
             GROUP BY i.debit_at
            HAVING NOT bool_and(p_forced[i.ord])
               AND v_posted[i.debit_at] - v_held[i.debit_at] < ledger.total(p_amount[i.ord])) AS s;
    IF v_tight IS NOT NULL OR v_orig IS NOT NULL THEN
        v_run := v_posted;
        FOR r IN
            SELECT i.ord::integer AS ord, i.kind, i.debit_at, i.credit_at, i.debit, i.amount, i.forced, i.may_owe,
                   i.of_id
              FROM unnest(p_kind, v_debit_at, v_credit_at, p_debit, p_amount, p_forced, v_owe, v_of_id, v_verdict)
                   WITH ORDINALITY AS i (kind, debit_at, credit_at, debit, amount, forced, may_owe, of_id, verdict, ord)
             WHERE i.verdict = 'posted'
               AND (i.kind = 'reversal' OR i.debit_at = ANY (v_tight) OR i.credit_at = ANY (v_tight))
             ORDER BY i.ord
        LOOP
            v_reason := NULL;
            v_has := v_run[r.debit_at] - v_held[r.debit_at];
            v_of := array_position(v_orig, r.of_id);
            IF v_left[v_of] < r.amount THEN
                v_reason := 'over_reversed';
            ELSIF r.debit_at = ANY (v_tight) AND NOT r.forced
                  AND NOT ledger.debit_allowed(r.may_owe, v_has, v_has - r.amount, v_policy[r.debit_at]) THEN
                v_reason := 'refused';
            END IF;
            IF v_reason IS NOT NULL THEN
                v_verdict[r.ord] := v_reason;
                INSERT INTO ledger.refusal (posting_id, event_id, reason, kind, debit_id, amount, available, at)
                VALUES (v_id[r.ord], p_event[r.ord], v_reason, r.kind, r.debit, r.amount,
                        CASE WHEN v_reason = 'refused' THEN v_has ELSE v_left[v_of] END, clock_timestamp());
                CONTINUE;
            END IF;
            IF r.debit_at IS NOT NULL THEN
                v_run[r.debit_at] := v_run[r.debit_at] - r.amount;
            END IF;
            IF r.credit_at IS NOT NULL THEN
                v_run[r.credit_at] := v_run[r.credit_at] + r.amount;
            END IF;
            IF v_of IS NOT NULL THEN
                v_left[v_of] := v_left[v_of] - r.amount;
                UPDATE ledger.reversed x SET reversed = x.reversed + r.amount WHERE x.posting_id = r.of_id;
            END IF;
        END LOOP;
    END IF;

    -- Write what is accepted: postings with running balances, one update per
    -- wallet, the edges of thresholds on the running balance. An item is one
    -- leg, on its only wallet or on none; a transfer between wallets is two.
    RETURN QUERY
    WITH leg AS (
        SELECT i.ord::integer AS ord, v_credit_at[i.ord] IS NULL OR i.debit_at IS NOT NULL AS debited,
               p_forced[i.ord] OR i.debit_at IS NULL AS may_lower, coalesce(i.debit_at, v_credit_at[i.ord]) AS at,
               CASE WHEN i.debit_at IS NULL THEN p_amount[i.ord] ELSE -p_amount[i.ord] END AS delta
          FROM unnest(v_debit_at) WITH ORDINALITY AS i (debit_at, ord)
         WHERE v_verdict[i.ord] = 'posted'
        UNION ALL
        SELECT i.ord::integer, false, true, v_credit_at[i.ord], p_amount[i.ord]
          FROM unnest(v_debit_at) WITH ORDINALITY AS i (debit_at, ord)
         WHERE v_between AND v_verdict[i.ord] = 'posted' AND i.debit_at IS NOT NULL AND v_credit_at[i.ord] IS NOT NULL
    ), move AS MATERIALIZED (
        SELECT l.ord, l.debited, l.may_lower, l.at, l.delta,
               v_posted[l.at] + ledger.total(l.delta) OVER w AS after,
               (v_ver[l.at] + row_number() OVER w)::integer AS ver
          FROM leg l
        WINDOW w AS (PARTITION BY l.at ORDER BY l.ord)
    ), kept AS (
        UPDATE ledger.balance b
           SET posted = b.posted + m.delta,
               ver = b.ver + m.moves,
               floor = CASE WHEN m.may_lower THEN least(b.policy_floor, b.posted + m.delta) ELSE b.floor END
          FROM (SELECT v_row[at] AS place, ledger.total(delta) AS delta, count(*)::integer AS moves,
                       bool_or(may_lower) AS may_lower
                  FROM move
                 WHERE at IS NOT NULL
                 GROUP BY at) AS m
         WHERE b.ctid = m.place
    ), item AS MATERIALIZED (
        SELECT m.ord,
               CASE WHEN m.debited THEN m.after END AS debit_after, CASE WHEN m.debited THEN m.ver END AS debit_ver,
               CASE WHEN NOT m.debited THEN m.after END AS credit_after, CASE WHEN NOT m.debited THEN m.ver END AS credit_ver
          FROM move m
         WHERE NOT v_between
        UNION ALL
        SELECT m.ord,
               min(m.after) FILTER (WHERE m.debited), min(m.ver) FILTER (WHERE m.debited),
               min(m.after) FILTER (WHERE NOT m.debited), min(m.ver) FILTER (WHERE NOT m.debited)
          FROM move m
         WHERE v_between
         GROUP BY m.ord
    ), booked AS (
        INSERT INTO ledger.posting (id, event_id, amount, debit_id, credit_id, debit_after, credit_after,
                                    subject_id, reverses_id, occurred_at, posted_at, xid, booking_day, late_from,
                                    debit_ver, credit_ver, kind, source, ext_id, forced)
        SELECT v_id[i.ord], p_event[i.ord], p_amount[i.ord], p_debit[i.ord], p_credit[i.ord],
               i.debit_after, i.credit_after,
               p_subject[i.ord], v_of_id[i.ord], p_occurred[i.ord], clock_timestamp(),
               v_xid,
               greatest(p_day[i.ord], v_gate.closed_through + 1),
               CASE WHEN p_day[i.ord] <= v_gate.closed_through THEN p_day[i.ord] END,
               i.debit_ver, i.credit_ver, p_kind[i.ord], p_source[i.ord], p_ext[i.ord], p_forced[i.ord]
          FROM item i
    ), crossed AS (
        INSERT INTO ledger.crossing (account_id, owner, upward, ver, event_id, posting_id, threshold, balance,
                                     occurred_at, at)
        SELECT t.account_id, t.owner, t.upward, m.ver, nextval('ledger.event_id'), v_id[m.ord], t.amount, m.after,
               p_occurred[m.ord], clock_timestamp()
          FROM move m
          JOIN ledger.threshold t ON t.account_id = v_wallet[m.at]
         WHERE (m.after < v_low[m.at] OR m.after > v_high[m.at])
           AND ledger.crossed(t.upward, t.amount, m.after - m.delta, m.after)
        RETURNING event_id
    )
    SELECT array_agg(i.ord), array_agg('posted'::text), array_agg(v_id[i.ord]), array_agg(p_event[i.ord]),
           array_agg(greatest(p_day[i.ord], v_gate.closed_through + 1)),
           array_agg(coalesce(i.debit_after, 0)), array_agg(coalesce(i.credit_after, 0)), array_agg(v_told[i.ord]),
           (SELECT array_agg(x.event_id) FROM crossed x), v_waited
      FROM item i
    HAVING count(*) > 0;

    IF 'posted' = ALL (v_verdict) THEN
        RETURN;
    END IF;

    -- The others: what their id was taken for decides before what is wrong with
    -- them now. What a later item of this batch took it for does not count.
    RETURN QUERY
    SELECT array_agg(i.ord::integer),
           array_agg(CASE WHEN k.source IS NULL OR (i.verdict <> 'duplicate' AND k.posting_id > i.id) THEN i.verdict
                          WHEN k.posting_id IS NULL THEN 'cancelled'
                          WHEN k.body <> ledger.body_of(i.kind, i.debit, i.credit, i.amount, i.subject, i.of_id)
                               THEN 'conflict'
                          WHEN f.posting_id IS NOT NULL THEN f.reason
                          ELSE 'duplicate' END),
           array_agg(coalesce(k.posting_id, 0)), array_agg(coalesce(p.event_id, f.event_id, i.event)),
           array_agg(k.booking_day), array_agg(coalesce(p.debit_after, 0)), array_agg(coalesce(p.credit_after, 0)),
           array_agg(false), NULL::bigint[], v_waited
      FROM unnest(v_id, p_event, p_kind, p_debit, p_credit, p_amount, p_source, p_ext, p_subject, v_of_id, v_verdict)
           WITH ORDINALITY AS i (id, event, kind, debit, credit, amount, source, ext_id, subject, of_id, verdict, ord)
      LEFT JOIN ledger.idem k ON k.source = i.source AND k.ext_id = i.ext_id
      LEFT JOIN ledger.refusal f ON f.posting_id = k.posting_id
      LEFT JOIN ledger.posting p ON p.id = k.posting_id AND p.booking_day = k.booking_day
     WHERE i.verdict <> 'posted';
END
$$;
-- +goose StatementEnd

-- lock_wallets locks wallets in the order in which all others lock them.
-- +goose StatementBegin
CREATE FUNCTION ledger.lock_wallets(p_account bigint[]) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM ledger.balance b WHERE b.account_id = ANY (p_account) ORDER BY b.account_id FOR NO KEY UPDATE;
END
$$;
-- +goose StatementEnd

-- post_one books one item and answers one row. The plain case, one wallet, an
-- open day and everything in order, goes by the straight road below at half the
-- cost; any other item is handed to post_batch, with nothing written. Its first
-- statement is what waits for locks, so waited is how long that took.
-- +goose StatementBegin
CREATE FUNCTION ledger.post_one(
    p_event bigint, p_kind text, p_debit bigint, p_credit bigint, p_amount bigint,
    p_source text, p_ext text, p_forced boolean, p_occurred timestamptz, p_day date, p_subject bigint
) RETURNS TABLE (
    verdict text, posting_id bigint, event_id bigint, booking_day date,
    debit_after bigint, credit_after bigint, told boolean, crossings bigint[], waited double precision
)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    debited  boolean := p_debit >= 1000000;
    v_wallet bigint := CASE WHEN debited THEN p_debit ELSE p_credit END;
    v_system bigint := CASE WHEN debited THEN p_credit ELSE p_debit END;
    v_delta  bigint := CASE WHEN debited THEN -p_amount ELSE p_amount END;
    v_has    record;
    v_id     bigint;
    v_asked  timestamptz := clock_timestamp();
BEGIN
    <<straight>>
    BEGIN
        -- Each statement costs as much to begin as to do, so there are two.
        -- The first moves the wallet, if all is in order, and then holds the day open.
        UPDATE ledger.balance b
           SET posted = b.posted + v_delta, ver = b.ver + 1,
               floor = CASE WHEN p_forced OR NOT debited THEN least(b.policy_floor, b.posted + v_delta) ELSE b.floor END
          FROM ledger.account a
          JOIN ledger.posting_rule u
            ON u.kind = p_kind
           AND u.debit_kind = CASE WHEN debited THEN 'wallet' ELSE a.kind END
           AND u.credit_kind = CASE WHEN debited THEN a.kind ELSE 'wallet' END
         WHERE b.account_id = v_wallet AND a.id = v_system AND a.kind <> 'wallet'
           AND p_amount BETWEEN u.min_amount AND u.max_amount
           AND (u.may_force OR NOT p_forced)
           AND (u.while_closed OR p_forced OR NOT b.closed)
           AND (p_forced OR NOT debited OR ledger.debit_allowed(u.may_owe,
                    b.posted - b.held, b.posted - b.held - p_amount, b.policy_floor))
        RETURNING b.posted, b.ver, b.low_mark, b.high_mark, u.told,
                  pg_advisory_xact_lock_shared(1819239273, p_day - date '2000-01-01') IS NULL
          INTO v_has;
        waited := date_part('epoch', clock_timestamp() - v_asked);
        EXIT straight WHEN NOT FOUND;

        IF debited THEN
            debit_after := v_has.posted;
        ELSE
            credit_after := v_has.posted;
        END IF;
        WITH taken AS (
            INSERT INTO ledger.idem (source, ext_id, posting_id, booking_day, body)
            SELECT p_source, p_ext, nextval('ledger.posting_id'), p_day,
                   ledger.body_of(p_kind, p_debit, p_credit, p_amount, p_subject, NULL)
              FROM ledger.gate g
             WHERE p_day > g.closed_through
            ON CONFLICT (source, ext_id) DO NOTHING
            RETURNING posting_id
        )
        INSERT INTO ledger.posting (id, event_id, amount, debit_id, credit_id, debit_after, credit_after,
                                    subject_id, occurred_at, posted_at, xid, booking_day,
                                    debit_ver, credit_ver, kind, source, ext_id, forced)
        SELECT t.posting_id, p_event, p_amount, p_debit, p_credit, debit_after, credit_after,
               p_subject, p_occurred, clock_timestamp(), g.xid_base + pg_current_xact_id()::text::bigint, p_day,
               CASE WHEN debited THEN v_has.ver END, CASE WHEN NOT debited THEN v_has.ver END,
               p_kind, p_source, p_ext, p_forced
          FROM taken t, ledger.gate g
        RETURNING id INTO v_id;
        IF NOT FOUND THEN
            -- The id is taken or the day closed: put the wallet back as it was.
            UPDATE ledger.balance b
               SET posted = b.posted - v_delta, ver = b.ver - 1, floor = least(b.policy_floor, b.posted - v_delta)
             WHERE b.account_id = v_wallet;
            EXIT straight;
        END IF;

        IF v_has.posted < v_has.low_mark OR v_has.posted > v_has.high_mark THEN
            WITH crossed AS (
                INSERT INTO ledger.crossing (account_id, owner, upward, ver, event_id, posting_id, threshold, balance,
                                             occurred_at, at)
                SELECT t.account_id, t.owner, t.upward, v_has.ver, nextval('ledger.event_id'), v_id, t.amount,
                       v_has.posted, p_occurred, clock_timestamp()
                  FROM ledger.threshold t
                 WHERE t.account_id = v_wallet
                   AND ledger.crossed(t.upward, t.amount, v_has.posted - v_delta, v_has.posted)
                RETURNING event_id
            )
            SELECT array_agg(x.event_id) INTO crossings FROM crossed x;
        END IF;
        verdict := 'posted';
        posting_id := v_id;
        event_id := p_event;
        booking_day := p_day;
        told := v_has.told;
        RETURN NEXT;
        RETURN;
    END;
    RETURN QUERY
    SELECT b.verdict[1], b.posting_id[1], b.event_id[1], b.booking_day[1], b.debit_after[1], b.credit_after[1],
           b.told[1], b.crossings, b.waited + post_one.waited
      FROM ledger.post_batch(ARRAY[p_event], ARRAY[p_kind], ARRAY[p_debit], ARRAY[p_credit], ARRAY[p_amount],
                             ARRAY[p_source], ARRAY[p_ext], ARRAY[p_forced], ARRAY[p_occurred], ARRAY[p_day],
                             ARRAY[p_subject], NULL, NULL) AS b;
END
$$;
-- +goose StatementEnd

-- cancel_ids makes sure that nothing will ever be booked under these ids. It
-- answers, per id, the posting that was booked before, or null.
-- +goose StatementBegin
CREATE FUNCTION ledger.cancel_ids(p_source text[], p_ext text[]) RETURNS TABLE (ord integer, posting_id bigint)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    INSERT INTO ledger.idem (source, ext_id)
    SELECT DISTINCT i.source COLLATE "C", i.ext_id COLLATE "C"
      FROM unnest(p_source, p_ext) AS i (source, ext_id)
     ORDER BY 1, 2
    ON CONFLICT (source, ext_id) DO NOTHING;
    RETURN QUERY
    SELECT i.ord::integer, p.id
      FROM unnest(p_source, p_ext) WITH ORDINALITY AS i (source, ext_id, ord)
      JOIN ledger.idem k ON k.source = i.source AND k.ext_id = i.ext_id
      LEFT JOIN ledger.posting p ON p.id = k.posting_id AND p.booking_day = k.booking_day;
END
$$;
-- +goose StatementEnd

-- hold_money sets money of wallets aside. Verdicts: held, duplicate, conflict,
-- refused, unknown_account, closed_account. Items of one wallet are counted in
-- their order; one that does not fit leaves no room for the later ones either.
-- +goose StatementBegin
CREATE FUNCTION ledger.hold_money(p_account bigint[], p_amount bigint[], p_source text[], p_ext text[])
    RETURNS TABLE (ord integer, verdict text)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    PERFORM FROM ledger.balance b WHERE b.account_id = ANY (p_account) ORDER BY b.account_id FOR NO KEY UPDATE;
    RETURN QUERY
    WITH item AS (
        SELECT i.*, b.closed, b.posted - b.held AS free, h.account_id AS old_account, h.amount AS old_amount,
               row_number() OVER (PARTITION BY i.source, i.ext_id ORDER BY i.ord) > 1 AS again
          FROM unnest(p_account, p_amount, p_source, p_ext)
               WITH ORDINALITY AS i (account_id, amount, source, ext_id, ord)
          LEFT JOIN ledger.balance b ON b.account_id = i.account_id
          LEFT JOIN ledger.hold h ON h.source = i.source AND h.ext_id = i.ext_id
    ), judged AS (
        SELECT i.*,
               CASE WHEN i.old_account = i.account_id AND i.old_amount = i.amount THEN 'duplicate'
                    WHEN i.old_account IS NOT NULL OR i.again THEN 'conflict'
                    WHEN i.free IS NULL THEN 'unknown_account'
                    WHEN i.closed THEN 'closed_account'
                    WHEN i.free < sum(i.amount) FILTER (WHERE i.old_account IS NULL AND NOT i.again)
                                  OVER (PARTITION BY i.account_id ORDER BY i.ord) THEN 'refused'
                    ELSE 'held' END AS verdict
          FROM item i
    ), held AS (
        INSERT INTO ledger.hold (account_id, amount, source, ext_id)
        SELECT j.account_id, j.amount, j.source, j.ext_id
          FROM judged j
         WHERE j.verdict = 'held'
         ORDER BY j.source, j.ext_id
        RETURNING account_id, amount
    ), kept AS (
        UPDATE ledger.balance b
           SET held = b.held + h.amount
          FROM (SELECT account_id, sum(amount)::bigint AS amount FROM held GROUP BY account_id) AS h
         WHERE b.account_id = h.account_id
    )
    SELECT j.ord::integer, j.verdict FROM judged j;
END
$$;
-- +goose StatementEnd

-- end_holds ends open holds, as taken (the money is about to be posted) or
-- released, and answers how many it ended. Holds that have ended stay as they are.
-- +goose StatementBegin
CREATE FUNCTION ledger.end_holds(p_source text[], p_ext text[], p_state text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_ended bigint;
BEGIN
    IF p_state NOT IN ('taken', 'released') THEN
        RAISE EXCEPTION 'a hold ends taken or released, not %', p_state;
    END IF;
    PERFORM FROM ledger.balance b
      WHERE b.account_id IN (SELECT h.account_id
                               FROM unnest(p_source, p_ext) AS i (source, ext_id)
                               JOIN ledger.hold h ON h.source = i.source AND h.ext_id = i.ext_id)
      ORDER BY b.account_id
        FOR NO KEY UPDATE;
    WITH ended AS (
        UPDATE ledger.hold h
           SET state = p_state, ended_at = clock_timestamp()
          FROM (SELECT DISTINCT source, ext_id FROM unnest(p_source, p_ext) AS u (source, ext_id)) AS i
         WHERE h.source = i.source AND h.ext_id = i.ext_id AND h.state = 'open'
        RETURNING h.account_id, h.amount
    ), kept AS (
        UPDATE ledger.balance b
           SET held = b.held - e.amount
          FROM (SELECT account_id, sum(amount)::bigint AS amount FROM ended GROUP BY account_id) AS e
         WHERE b.account_id = e.account_id
    )
    SELECT count(*) INTO v_ended FROM ended;
    RETURN v_ended;
END
$$;
-- +goose StatementEnd

-- set_thresholds sets (or, with a null amount, removes) thresholds. With
-- p_evaluate each new one is held against the present balance once: who is
-- beyond it now, and was not beyond the one before, gets a crossing; the answer
-- is their event ids. Several items for one threshold are an error.
-- +goose StatementBegin
CREATE FUNCTION ledger.set_thresholds(
    p_account bigint[], p_owner bigint[], p_upward boolean[], p_amount bigint[], p_evaluate boolean
) RETURNS bigint[]
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_crossings bigint[];
BEGIN
    PERFORM FROM ledger.balance b WHERE b.account_id = ANY (p_account) ORDER BY b.account_id FOR NO KEY UPDATE;

    WITH item AS MATERIALIZED (
        SELECT i.account_id, i.owner, i.upward, i.amount, b.posted, b.ver, t.amount AS old_amount, t.since_ver
          FROM unnest(p_account, p_owner, p_upward, p_amount) AS i (account_id, owner, upward, amount)
          JOIN ledger.balance b ON b.account_id = i.account_id
          LEFT JOIN ledger.threshold t ON t.account_id = i.account_id AND t.owner = i.owner AND t.upward = i.upward
         WHERE t.amount IS DISTINCT FROM i.amount
    ), past AS (
        INSERT INTO ledger.threshold_past (account_id, owner, upward, amount, since_ver, until_ver)
        SELECT i.account_id, i.owner, i.upward, i.old_amount, i.since_ver, i.ver
          FROM item i
         WHERE i.since_ver < i.ver
    ), removed AS (
        DELETE FROM ledger.threshold t
         USING item i
         WHERE t.account_id = i.account_id AND t.owner = i.owner AND t.upward = i.upward AND i.amount IS NULL
    ), written AS (
        INSERT INTO ledger.threshold (account_id, owner, upward, amount, since_ver)
        SELECT i.account_id, i.owner, i.upward, i.amount, i.ver
          FROM item i
         WHERE i.amount IS NOT NULL
        ON CONFLICT (account_id, owner, upward) DO UPDATE SET amount = excluded.amount, since_ver = excluded.since_ver
    ), crossed AS (
        INSERT INTO ledger.crossing (account_id, owner, upward, ver, event_id, threshold, balance, occurred_at, at)
        SELECT i.account_id, i.owner, i.upward, i.ver, nextval('ledger.event_id'), i.amount, i.posted,
               clock_timestamp(), clock_timestamp()
          FROM item i
         WHERE p_evaluate
           AND CASE WHEN i.upward THEN i.posted > i.amount AND (i.old_amount IS NULL OR i.posted <= i.old_amount)
                    ELSE i.posted < i.amount AND (i.old_amount IS NULL OR i.posted >= i.old_amount) END
        ON CONFLICT DO NOTHING
        RETURNING event_id
    )
    SELECT array_agg(c.event_id) INTO v_crossings FROM crossed c;

    UPDATE ledger.balance b
       SET low_mark = m.low, high_mark = m.high
      FROM (SELECT i.account_id,
                   max(t.amount) FILTER (WHERE NOT t.upward) AS low, min(t.amount) FILTER (WHERE t.upward) AS high
              FROM (SELECT DISTINCT u AS account_id FROM unnest(p_account) AS u) AS i
              LEFT JOIN ledger.threshold t ON t.account_id = i.account_id
             GROUP BY i.account_id) AS m
     WHERE b.account_id = m.account_id
       AND (b.low_mark, b.high_mark) IS DISTINCT FROM (m.low, m.high);
    RETURN coalesce(v_crossings, '{}');
END
$$;
-- +goose StatementEnd

-- posting_digest is the hash of everything a posting says. The caller has set
-- the time zone to UTC and the date style to ISO.
CREATE FUNCTION ledger.posting_digest(p ledger.posting) RETURNS bytea LANGUAGE sql STABLE PARALLEL SAFE
    RETURN sha256(convert_to(concat_ws('|', p.id, p.event_id, p.amount, p.debit_id, p.credit_id,
        coalesce(p.debit_after::text, '-'), coalesce(p.credit_after::text, '-'),
        coalesce(p.subject_id::text, '-'), coalesce(p.reverses_id::text, '-'),
        p.occurred_at, p.posted_at, p.xid, p.booking_day,
        coalesce(p.late_from::text, '-'), coalesce(p.debit_ver::text, '-'), coalesce(p.credit_ver::text, '-'),
        p.kind, p.source, p.ext_id, p.forced), 'UTF8'));

-- close_day makes the cut: from its commit on nothing is booked on p_day or
-- before. It waits for the postings under way. Days between the last closed one
-- and p_day must be empty, or be closed first.
-- +goose StatementBegin
CREATE FUNCTION ledger.close_day(p_day date, p_actor text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_gate ledger.gate;
    v_first date;
BEGIN
    SELECT * INTO v_gate FROM ledger.gate FOR UPDATE;
    IF p_day <= v_gate.closed_through THEN
        RAISE EXCEPTION 'the day % is closed already', p_day USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    PERFORM pg_advisory_xact_lock(1819239273, d)
       FROM generate_series(v_gate.closed_through + 1 - date '2000-01-01', p_day - date '2000-01-01') AS d;
    IF p_day > v_gate.closed_through + 1 THEN
        SELECT min(p.booking_day) INTO v_first FROM ledger.posting p
         WHERE p.booking_day > v_gate.closed_through AND p.booking_day < p_day;
    END IF;
    IF v_first IS NOT NULL THEN
        RAISE EXCEPTION 'the day % is still open and is to be closed before %', v_first, p_day
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    UPDATE ledger.gate SET closed_through = p_day;
    -- Whoever posted on the day has finished: its id is below the snapshot's end.
    INSERT INTO ledger.day (day, closed_at, closing_xid)
    VALUES (p_day, clock_timestamp(), v_gate.xid_base + pg_snapshot_xmax(pg_current_snapshot())::text::bigint);
    INSERT INTO ledger.day_log (day, action, actor) VALUES (p_day, 'closed', p_actor);
END
$$;
-- +goose StatementEnd

-- leaves_of computes the leaves of a day from its postings.
-- +goose StatementBegin
CREATE FUNCTION ledger.leaves_of(p_day date) RETURNS TABLE (leaf bigint, digest bytea, marks bytea)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO'
AS $$
    SELECT d.id / 1024, sha256(string_agg(d.digest, ''::bytea)), string_agg(substring(d.digest FOR 4), ''::bytea)
      FROM (SELECT p.id, ledger.posting_digest(p) AS digest
              FROM ledger.posting p
             WHERE p.booking_day = p_day
             ORDER BY p.id) AS d
     GROUP BY d.id / 1024
$$;
-- +goose StatementEnd

-- seal_over is the seal of a day: the hash of the seal before, the day and its leaves.
CREATE FUNCTION ledger.seal_over(p_before bytea, p_day date, p_leaves bytea) RETURNS bytea
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN sha256(coalesce(p_before, ''::bytea) || int4send(p_day - date '2000-01-01')
                  || coalesce(p_leaves, ''::bytea));

-- turnover_of is what each account moved on a day.
-- +goose StatementBegin
CREATE FUNCTION ledger.turnover_of(p_day date)
    RETURNS TABLE (account_id bigint, debit bigint, credit bigint, postings bigint)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT l.account_id, sum(l.debit)::bigint, sum(l.credit)::bigint, count(*)
      FROM (SELECT p.debit_id AS account_id, p.amount AS debit, 0::bigint AS credit
              FROM ledger.posting p WHERE p.booking_day = p_day
            UNION ALL
            SELECT p.credit_id, 0, p.amount FROM ledger.posting p WHERE p.booking_day = p_day) AS l
     GROUP BY l.account_id
$$;
-- +goose StatementEnd

-- seal_day writes the turnovers and the seal of a closed day. The closed day
-- before must be sealed. Its postings cannot change any more, so it needs no locks.
-- +goose StatementBegin
CREATE FUNCTION ledger.seal_day(p_day date, p_actor text) RETURNS bytea
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_custom_plan
    SET work_mem = '64MB'
AS $$
DECLARE
    v_day ledger.day;
    v_before ledger.day;
    v_seal bytea;
BEGIN
    SELECT * INTO v_day FROM ledger.day WHERE day = p_day FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the day % is not closed', p_day USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    IF v_day.seal IS NOT NULL THEN
        RETURN v_day.seal;
    END IF;
    SELECT * INTO v_before FROM ledger.day WHERE day < p_day ORDER BY day DESC LIMIT 1;
    IF FOUND AND v_before.seal IS NULL THEN
        RAISE EXCEPTION 'the day % is to be sealed before %', v_before.day, p_day
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    INSERT INTO ledger.day_leaf (day, leaf, digest, marks)
    SELECT p_day, l.leaf, l.digest, l.marks FROM ledger.leaves_of(p_day) AS l;
    INSERT INTO ledger.day_account (account_id, day, opening, debit, credit, closing, postings)
    SELECT t.account_id, p_day, coalesce(o.closing, 0), t.debit, t.credit,
           coalesce(o.closing, 0) + t.credit - t.debit, t.postings
      FROM ledger.turnover_of(p_day) AS t
      LEFT JOIN LATERAL (SELECT a.closing
                           FROM ledger.day_account a
                          WHERE a.account_id = t.account_id AND a.day < p_day
                          ORDER BY a.day DESC
                          LIMIT 1) AS o ON true
     -- Sorted, so that every lookup is done before the table grows.
     ORDER BY t.account_id;
    SELECT ledger.seal_over(v_before.seal, p_day, string_agg(l.digest, ''::bytea ORDER BY l.leaf)) INTO v_seal
      FROM ledger.day_leaf l
     WHERE l.day = p_day;
    UPDATE ledger.day d
       SET seal = v_seal, sealed_at = clock_timestamp(), postings = s.postings, amount = s.amount, late = s.late
      FROM (SELECT count(*) AS postings, coalesce(sum(p.amount), 0)::bigint AS amount, count(p.late_from) AS late
              FROM ledger.posting p
             WHERE p.booking_day = p_day) AS s
     WHERE d.day = p_day;
    INSERT INTO ledger.day_log (day, action, actor, seal) VALUES (p_day, 'sealed', p_actor, v_seal);
    RETURN v_seal;
END
$$;
-- +goose StatementEnd

-- reopen_day opens p_day and all days after it again. Their seals are gone but
-- for the log.
-- +goose StatementBegin
CREATE FUNCTION ledger.reopen_day(p_day date, p_actor text, p_reason text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_gate ledger.gate;
BEGIN
    SELECT * INTO v_gate FROM ledger.gate FOR UPDATE;
    IF NOT EXISTS (SELECT FROM ledger.day WHERE day = p_day) THEN
        RAISE EXCEPTION 'the day % is not closed', p_day USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    PERFORM pg_advisory_xact_lock(1819239273, d)
       FROM generate_series(p_day - date '2000-01-01', v_gate.closed_through + 1 - date '2000-01-01') AS d;
    INSERT INTO ledger.day_log (day, action, actor, reason, seal)
    SELECT d.day, 'reopened', p_actor, p_reason, d.seal FROM ledger.day d WHERE d.day >= p_day ORDER BY d.day;
    DELETE FROM ledger.day_leaf WHERE day >= p_day;
    DELETE FROM ledger.day_account WHERE day >= p_day;
    DELETE FROM ledger.day WHERE day >= p_day;
    UPDATE ledger.gate SET closed_through = p_day - 1;
END
$$;
-- +goose StatementEnd

-- fold_postings adds the postings of finished transactions to the totals of the
-- accounts that are not wallets, and answers how many it added. A transaction
-- is finished when its id is below the snapshot's xmin; a cursor over posting
-- ids would lose those that commit late.
--
-- Transaction ids start over when a dump is restored into a new cluster. The
-- first fold there finds its watermark ahead of the server, waits for the
-- postings under way, counts everything anew and moves the base of ids past all
-- that were ever written.
-- +goose StatementBegin
CREATE FUNCTION ledger.fold_postings() RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_from bigint;
    v_base bigint;
    v_to bigint;
    v_added bigint;
BEGIN
    SELECT watermark INTO v_from FROM ledger.fold_mark FOR UPDATE;
    SELECT xid_base INTO v_base FROM ledger.gate;
    IF v_from > v_base + pg_snapshot_xmax(pg_current_snapshot())::text::bigint THEN
        LOCK TABLE ledger.balance IN EXCLUSIVE MODE;
        UPDATE ledger.gate
           SET xid_base = (SELECT max(p.xid) FROM ledger.posting p) + 1
        RETURNING xid_base INTO v_base;
        DELETE FROM ledger.fold;
        v_from := 0;
    END IF;
    WITH cut AS MATERIALIZED (
        SELECT v_base + pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xid
    ), fresh AS (
        SELECT p.debit_id, p.credit_id, p.debit_ver, p.credit_ver, p.booking_day, p.amount
          FROM ledger.posting p
         WHERE p.xid >= v_from AND p.xid < (SELECT xid FROM cut)
    ), total AS (
        SELECT l.account_id, l.booking_day, sum(l.debit)::bigint AS debit, sum(l.credit)::bigint AS credit,
               count(*) AS postings
          FROM (SELECT f.debit_id AS account_id, f.booking_day, f.amount AS debit, 0::bigint AS credit
                  FROM fresh f WHERE f.debit_ver IS NULL
                UNION ALL
                SELECT f.credit_id, f.booking_day, 0, f.amount FROM fresh f WHERE f.credit_ver IS NULL) AS l
         GROUP BY l.account_id, l.booking_day
    ), added AS (
        INSERT INTO ledger.fold AS o (account_id, booking_day, debit, credit, postings)
        SELECT t.account_id, t.booking_day, t.debit, t.credit, t.postings FROM total t
        ON CONFLICT (account_id, booking_day) DO UPDATE
           SET debit = o.debit + excluded.debit, credit = o.credit + excluded.credit,
               postings = o.postings + excluded.postings
    )
    SELECT c.xid, (SELECT count(*) FROM fresh) INTO v_to, v_added FROM cut c;
    UPDATE ledger.fold_mark SET watermark = v_to, folded_at = clock_timestamp();
    RETURN v_added;
END
$$;
-- +goose StatementEnd

GRANT SELECT ON
    ledger.account, ledger.balance, ledger.floor_change, ledger.move, ledger.posting_rule, ledger.posting, ledger.idem,
    ledger.refusal, ledger.reversed, ledger.hold, ledger.threshold, ledger.threshold_past, ledger.crossing,
    ledger.gate, ledger.day, ledger.day_leaf, ledger.day_account, ledger.day_log, ledger.account_log, ledger.fold, ledger.fold_mark
    TO zvonok_app;
GRANT SELECT, INSERT ON ledger.verification TO zvonok_app;

-- Functions may be executed by PUBLIC unless that is taken away.
-- +goose StatementBegin
DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN
        SELECT p.oid FROM pg_proc p
         WHERE p.pronamespace = 'ledger'::regnamespace AND p.prosecdef AND p.proname <> 'ensure_month'
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO zvonok_app', f);
    END LOOP;
END
$$;
-- +goose StatementEnd
