-- Owner: ledger/topup.

-- +goose Up

CREATE SCHEMA topup;
GRANT USAGE ON SCHEMA topup TO zvonok_app;

-- A bank or a network of terminals that tops accounts up. A payment is booked
-- from the partner's clearing account (kind bank, owner name) under the source
-- bank/NAME.
CREATE TABLE topup.partner (
    id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name              text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9][a-z0-9_-]{0,31}$'),
    dialect           text NOT NULL CHECK (dialect IN ('osmp', 'sber')),
    -- The payees it takes money for, by the payment codes that payers know (R36).
    payment_codes     text[] NOT NULL CHECK (cardinality(payment_codes) > 0),
    -- The networks it calls from.
    allow             cidr[] NOT NULL CHECK (cardinality(allow) > 0),
    -- Basic authentication, '' for none.
    login             text NOT NULL DEFAULT '',
    password_salt     bytea,
    password_hash     bytea,
    -- What the partner's signature is made with, '' for none. It is needed in
    -- clear, since the signature is a hash over it.
    secret            text NOT NULL DEFAULT '',
    -- How much of a name a check shows (D5).
    show              text NOT NULL DEFAULT 'masked' CHECK (show IN ('masked', 'short', 'full')),
    min_amount        bigint NOT NULL DEFAULT 1000,
    max_amount        bigint NOT NULL DEFAULT 1500000,
    -- Where the partner's numbers differ from its dialect's: {"not_found": 2}.
    codes             jsonb NOT NULL DEFAULT '{}',
    -- The columns of its registry; null for our own format.
    layout            jsonb,
    may_cancel        boolean NOT NULL DEFAULT false,
    -- The zone of the times it sends.
    time_zone         text NOT NULL DEFAULT 'Europe/Moscow',
    -- Limits of checks in a minute: all of them; wrong account numbers; wrong
    -- ones and different ones within ten thousand neighbouring numbers.
    max_checks        integer NOT NULL CHECK (max_checks > 0),
    max_wrong         integer NOT NULL CHECK (max_wrong > 0),
    max_range_wrong   integer NOT NULL CHECK (max_range_wrong > 0),
    max_range_numbers integer NOT NULL CHECK (max_range_numbers > 0),
    -- Its clearing account and what it has settled, in ledger.account.
    clearing_id       bigint NOT NULL,
    settled_id        bigint NOT NULL,
    -- Its requests are refused; what it took before is still reconciled and settled.
    disabled          boolean NOT NULL DEFAULT false,
    added_at          timestamptz NOT NULL,
    CHECK (min_amount BETWEEN 1000 AND max_amount),
    CHECK (max_amount <= 1500000),
    CHECK ((login = '') = (password_hash IS NULL)),
    CHECK ((password_salt IS NULL) = (password_hash IS NULL))
);
GRANT SELECT, INSERT ON topup.partner TO zvonok_app;
GRANT UPDATE (payment_codes, allow, login, password_salt, password_hash, secret, show, min_amount, max_amount, codes, layout,
              may_cancel, time_zone, disabled) ON topup.partner TO zvonok_app;

-- What was changed of partners, when and by whom: the names of the settings, and
-- never what they were set to, since secrets are among them.
CREATE TABLE topup.partner_log (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    partner_id bigint NOT NULL REFERENCES topup.partner (id),
    at         timestamptz NOT NULL,
    action     text NOT NULL CHECK (action IN ('changed', 'disabled', 'enabled')),
    settings   text[] NOT NULL,
    actor      text NOT NULL CHECK (actor <> '' AND length(actor) <= 128),
    CHECK ((action = 'changed') = (cardinality(settings) > 0))
);
CREATE INDEX partner_log_partner ON topup.partner_log (partner_id, id);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON topup.partner_log
    FOR EACH ROW EXECUTE FUNCTION ledger.forbid_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON topup.partner_log
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.forbid_change();
GRANT SELECT, INSERT ON topup.partner_log TO zvonok_app;

-- A payment, written in the transaction that books it. The key is the
-- partner's id alone: with the account in it, a resend to another account would
-- be booked twice. event_id is the fact, and the number we give the bank
-- (prv_txn, EXT_ID). No foreign key to the partner: each would lock its row.
CREATE TABLE topup.payment (
    partner_id    bigint NOT NULL,
    txn_id        text NOT NULL CHECK (txn_id ~ '^[0-9]{1,20}$'),
    event_id      bigint NOT NULL UNIQUE,
    amount        bigint NOT NULL CHECK (amount > 0),
    -- Where it went; null when it went to the suspense account.
    wallet_id     bigint,
    -- When the bank took the money, by its clock, and when we booked it, by ours.
    bank_at       timestamptz NOT NULL,
    booked_at     timestamptz NOT NULL,
    -- The date of booked_at in the partner's zone.
    day           date NOT NULL,
    -- The account number as the bank gave it.
    account       text NOT NULL CHECK (length(account) BETWEEN 1 AND 64),
    -- The payee it was taken for; '' when the account is not known.
    payee_code    text NOT NULL,
    terminal      text NOT NULL CHECK (length(terminal) <= 64),
    origin        text NOT NULL CHECK (origin IN ('pay', 'registry')),
    state         text NOT NULL CHECK (state IN ('credited', 'suspense', 'released', 'cancelled')),
    -- Why it went to the suspense account.
    reason        text NOT NULL CHECK (reason IN ('', 'closed', 'left', 'payee', 'unknown', 'amount')),
    -- Who moved it out of the suspense account to a wallet.
    released_by   text CHECK (released_by <> '' AND length(released_by) <= 128),
    released_at   timestamptz,
    -- What the bank was told, and what it is told again; null when that is the same.
    answer        bytea NOT NULL,
    repeat_answer bytea,
    PRIMARY KEY (partner_id, txn_id),
    CHECK ((reason = '') = (wallet_id IS NOT NULL)),
    CHECK (released_by IS NULL OR state = 'released'),
    CHECK ((released_by IS NULL) = (released_at IS NULL))
);
CREATE INDEX payment_day ON topup.payment (partner_id, day);
CREATE INDEX payment_suspense ON topup.payment (booked_at) WHERE state = 'suspense';
GRANT SELECT, INSERT ON topup.payment TO zvonok_app;
GRANT UPDATE (state, reason, wallet_id, released_by, released_at) ON topup.payment TO zvonok_app;

-- Money that is to go back to who paid it, out of a wallet or, with a txn_id,
-- out of the suspense account, through the partner's clearing account. One
-- person asks, another decides; the posting is written with the decision. From
-- then on the bank's clearing account is short of it, until somebody says how it
-- ended: given (the bank kept it back from what it transfers, or was sent it) or
-- returned (it could not be given, and is again where it was taken from).
CREATE TABLE topup.refund (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    partner_id bigint NOT NULL REFERENCES topup.partner (id),
    wallet_id  bigint,
    txn_id     text,
    amount     bigint NOT NULL CHECK (amount > 0),
    reason     text NOT NULL CHECK (reason <> '' AND length(reason) <= 400),
    state      text NOT NULL DEFAULT 'asked' CHECK (state IN ('asked', 'paid', 'declined', 'given', 'returned')),
    asked_by   text NOT NULL CHECK (asked_by <> '' AND length(asked_by) <= 128),
    asked_at   timestamptz NOT NULL,
    decided_by text CHECK (decided_by <> '' AND length(decided_by) <= 128),
    decided_at timestamptz,
    event_id   bigint,
    -- Who said how it ended, and the event of that.
    ended_by   text CHECK (ended_by <> '' AND length(ended_by) <= 128),
    ended_at   timestamptz,
    end_event  bigint,
    CHECK ((wallet_id IS NULL) <> (txn_id IS NULL)),
    CHECK ((state = 'asked') = (decided_by IS NULL)),
    CHECK ((state = 'asked') = (decided_at IS NULL)),
    CHECK ((state IN ('paid', 'given', 'returned')) = (event_id IS NOT NULL)),
    CHECK ((state IN ('given', 'returned')) = (end_event IS NOT NULL)),
    CHECK ((end_event IS NULL) = (ended_by IS NULL)),
    CHECK ((end_event IS NULL) = (ended_at IS NULL)),
    -- By their names: after a name stands the account of the system, " (os:…)".
    CONSTRAINT two_persons CHECK (event_id IS NULL OR lower(split_part(decided_by, ' (os:', 1)) <> lower(split_part(asked_by, ' (os:', 1)))
);
CREATE UNIQUE INDEX refund_of_payment ON topup.refund (partner_id, txn_id) WHERE state = 'asked';
CREATE INDEX refund_open ON topup.refund (decided_at) WHERE state = 'paid';
GRANT SELECT, INSERT ON topup.refund TO zvonok_app;
GRANT UPDATE (state, decided_by, decided_at, event_id, ended_by, ended_at, end_event) ON topup.refund TO zvonok_app;

-- A registry of a partner: what it says it took on a day for a payee. No file
-- is taken twice, neither the same bytes nor the same number, unless it is taken
-- in the place of the first, which is replaced then: its settlement is reversed
-- and none of its lines counts.
CREATE TABLE topup.registry_file (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    partner_id  bigint NOT NULL REFERENCES topup.partner (id),
    name        text NOT NULL,
    sha256      bytea NOT NULL,
    -- '' when the file is of all payees.
    payee_code  text NOT NULL,
    day         date NOT NULL,
    number      integer NOT NULL,
    received_at timestamptz NOT NULL,
    lines       integer NOT NULL,
    total       bigint NOT NULL,
    -- The event of the settlement booked for it; null for an empty file.
    event_id    bigint,
    -- Closed when no line of it is open.
    state       text NOT NULL CHECK (state IN ('parsed', 'matched', 'closed', 'replaced')),
    -- Who took it.
    taken_by    text NOT NULL CHECK (length(taken_by) <= 128),
    replaced_by bigint REFERENCES topup.registry_file (id),
    replaced_at timestamptz,
    CHECK (state = 'replaced' OR replaced_by IS NULL),
    CHECK ((state = 'replaced') = (replaced_at IS NOT NULL))
);
CREATE UNIQUE INDEX registry_file_bytes ON topup.registry_file (partner_id, sha256) WHERE state <> 'replaced';
CREATE UNIQUE INDEX registry_file_number ON topup.registry_file (partner_id, payee_code, day, number) WHERE state <> 'replaced';
GRANT SELECT, INSERT ON topup.registry_file TO zvonok_app;
GRANT UPDATE (state, event_id, replaced_by, replaced_at) ON topup.registry_file TO zvonok_app;

-- A line of a registry with what became of it, or, with a null line, a payment
-- of ours that the registry should have had. event_id is our payment.
CREATE TABLE topup.registry_line (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- No foreign key: a hundred thousand lines would be a hundred thousand look-ups of one row.
    file_id     bigint NOT NULL,
    line        integer,
    event_id    bigint NOT NULL,
    txn_id      text NOT NULL,
    at          timestamptz NOT NULL,
    amount      bigint NOT NULL,
    fee         bigint NOT NULL,
    -- Our sum less the bank's: what the clearing account is off by.
    difference  bigint NOT NULL,
    account     text NOT NULL,
    terminal    text NOT NULL,
    -- Replaced: of a file that another has replaced.
    state       text NOT NULL CHECK (state IN ('matched', 'other_day', 'amount_differs', 'account_differs',
                                               'bank_only', 'ledger_only', 'duplicate', 'replaced')),
    -- An open line waits for someone; one of ledger_only is in dispute after hold_until.
    open        boolean NOT NULL,
    hold_until  date,
    -- How it was settled: by a posting, by a later file, or by hand with a posting or none.
    resolution  text CHECK (resolution IN ('posted', 'carried_over', 'reversed', 'written_off', 'agreed')),
    resolved_by text,
    resolved_at timestamptz,
    UNIQUE (file_id, line),
    CHECK (CASE state WHEN 'replaced' THEN NOT open WHEN 'ledger_only' THEN line IS NULL ELSE line IS NOT NULL END),
    CHECK ((line IS NULL) = (hold_until IS NOT NULL)),
    CHECK (NOT (open AND resolution IS NOT NULL))
);
-- A payment is claimed by one line of the bank's.
CREATE UNIQUE INDEX registry_line_claim ON topup.registry_line (event_id) WHERE state NOT IN ('duplicate', 'ledger_only', 'replaced');
CREATE UNIQUE INDEX registry_line_missing ON topup.registry_line (event_id) WHERE state = 'ledger_only';
CREATE INDEX registry_line_open ON topup.registry_line (file_id) WHERE open;
GRANT SELECT, INSERT ON topup.registry_line TO zvonok_app;
GRANT UPDATE (state, open, resolution, resolved_by, resolved_at) ON topup.registry_line TO zvonok_app;

-- A place of a bank where accounts are topped up (R36); point is the way to pay.
CREATE TABLE topup.office (
    point   text NOT NULL,
    name    text NOT NULL CHECK (name <> ''),
    address text NOT NULL CHECK (address <> ''),
    phone   text NOT NULL DEFAULT '',
    metro   text NOT NULL DEFAULT '',
    hours   text NOT NULL,
    break   text NOT NULL DEFAULT '',
    weekend text NOT NULL DEFAULT '',
    PRIMARY KEY (point, name, address)
);
GRANT SELECT, INSERT, DELETE ON topup.office TO zvonok_app;
