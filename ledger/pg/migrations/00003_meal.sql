-- Owner: ledger/meal.

-- +goose Up

CREATE SCHEMA meal;
GRANT USAGE ON SCHEMA meal TO zvonok_app;

-- A sale in a canteen. It is written in the transaction that books it, under
-- the id (device/ID, seq) of the book, so that one sale of a device is one row.
-- day is its date in the organisation's zone, for the meals of a day; booked_on is
-- the accounting day it was booked on, a later one when that was closed, for
-- what providers are owed. booked says who paid: the wallet,
-- the budget (subsidised meals) or the offline losses. balance is what was left
-- in the wallet just after; null when it was not touched.
CREATE TABLE meal.sale (
    event_id        bigint NOT NULL,
    posting_id      bigint NOT NULL,
    person_id       bigint NOT NULL,
    organisation_id bigint NOT NULL,
    building_id     bigint,
    device_id       bigint NOT NULL,
    seq             bigint NOT NULL,
    total           bigint NOT NULL CHECK (total > 0),
    balance         bigint,
    -- The event that took the sale back.
    reversed_by     bigint,
    at              timestamptz NOT NULL,
    -- A till that was offline reports late: digests tell of what has come since the last one.
    received_at     timestamptz NOT NULL DEFAULT now(),
    day             date NOT NULL,
    booked_on       date NOT NULL,
    offline         boolean NOT NULL,
    kind            text NOT NULL CHECK (kind IN ('buffet', 'hot', 'subsidised')),
    meal            text NOT NULL,
    booked          text NOT NULL CHECK (booked IN ('wallet', 'budget', 'loss')),
    payee_code      text NOT NULL,
    -- [{"code":…, "name":…, "quantity":…, "price":kopecks}, …]
    items           jsonb,
    PRIMARY KEY (event_id, day),
    CHECK ((booked = 'wallet') = (balance IS NOT NULL))
) PARTITION BY RANGE (day);
CREATE INDEX sale_person ON meal.sale (person_id, day);
CREATE INDEX sale_organisation ON meal.sale (organisation_id, day);
-- Rows come day by day.
CREATE INDEX sale_booked_on ON meal.sale USING brin (booked_on) WITH (pages_per_range = 16, autosummarize = on);
CREATE TABLE meal.sale_default PARTITION OF meal.sale DEFAULT;
SELECT ledger.ensure_month('meal.sale', (date_trunc('month', now()) + make_interval(months => m))::date)
  FROM generate_series(-1, 3) AS m;
GRANT SELECT, INSERT, UPDATE ON meal.sale TO zvonok_app;

-- A sale that was taken back. It is news of its own and keeps the device's number.
CREATE TABLE meal.reversal (
    event_id      bigint PRIMARY KEY,
    sale_event_id bigint NOT NULL UNIQUE,
    person_id     bigint NOT NULL,
    device_id     bigint NOT NULL,
    seq           bigint NOT NULL,
    total         bigint NOT NULL,
    balance       bigint,
    at            timestamptz NOT NULL,
    day           date NOT NULL,
    -- The accounting day.
    booked_on     date NOT NULL
);
CREATE INDEX reversal_person ON meal.reversal (person_id, day);
CREATE INDEX reversal_booked_on ON meal.reversal (booked_on);
GRANT SELECT, INSERT ON meal.reversal TO zvonok_app;

-- A subsidised meal that was eaten: once per child, meal and day. Its row goes
-- when the meal is taken back.
CREATE TABLE meal.ration (
    person_id bigint NOT NULL,
    day       date NOT NULL,
    meal      text NOT NULL,
    event_id  bigint NOT NULL,
    device_id bigint NOT NULL,
    seq       bigint NOT NULL,
    PRIMARY KEY (person_id, day, meal)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON meal.ration TO zvonok_app;

-- A subsidised meal that a till has served and that was refused, since one had been
-- served. It is sold after all when that one is taken back. sale is what was asked for.
CREATE TABLE meal.waiting (
    event_id  bigint PRIMARY KEY,
    person_id bigint NOT NULL,
    day       date NOT NULL,
    meal      text NOT NULL,
    device_id bigint NOT NULL,
    seq       bigint NOT NULL,
    sale      jsonb NOT NULL
);
CREATE INDEX waiting_ration ON meal.waiting (person_id, day, meal);
CREATE INDEX waiting_device ON meal.waiting (device_id, seq);
CREATE INDEX waiting_day ON meal.waiting (day);
GRANT SELECT, INSERT, DELETE ON meal.waiting TO zvonok_app;

-- What a canteen offers on a day (R46): the columns of menu.csv.
CREATE TABLE meal.menu (
    organisation_id bigint NOT NULL REFERENCES ledger.organisation (id),
    day             date NOT NULL,
    meal            text NOT NULL,
    dish            text NOT NULL CHECK (dish <> ''),
    category        text NOT NULL DEFAULT '',
    portion_g       numeric(9, 3),
    kcal            numeric(9, 3),
    protein_g       numeric(9, 3),
    fat_g           numeric(9, 3),
    carbohydrate_g  numeric(9, 3),
    -- Lower-case words.
    allergens       text[] NOT NULL DEFAULT '{}',
    price           bigint NOT NULL CHECK (price >= 0),
    PRIMARY KEY (organisation_id, day, meal, dish)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON meal.menu TO zvonok_app;

-- How much a child may spend in the buffet on a day.
CREATE TABLE meal.spending_limit (
    person_id bigint PRIMARY KEY REFERENCES ledger.person (id),
    amount    bigint NOT NULL CHECK (amount >= 0),
    -- The representative who set it.
    set_by    bigint NOT NULL,
    set_at    timestamptz NOT NULL
);
GRANT SELECT, INSERT, UPDATE, DELETE ON meal.spending_limit TO zvonok_app;

-- What a child is not to be sold: a dish by its code or name, a category or an
-- allergen, in lower case.
CREATE TABLE meal.ban (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    person_id bigint NOT NULL REFERENCES ledger.person (id),
    kind      text NOT NULL CHECK (kind IN ('dish', 'category', 'allergen')),
    value     text NOT NULL CHECK (value <> '' AND value = lower(value)),
    set_by    bigint NOT NULL,
    set_at    timestamptz NOT NULL,
    UNIQUE (person_id, kind, value)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON meal.ban TO zvonok_app;

-- What a buffet sells, so that a ban of a category or an allergen can be told
-- from an item's code.
CREATE TABLE meal.product (
    organisation_id bigint NOT NULL REFERENCES ledger.organisation (id),
    code            text NOT NULL CHECK (code <> ''),
    name            text NOT NULL CHECK (name <> ''),
    category        text NOT NULL DEFAULT '',
    allergens       text[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (organisation_id, code)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON meal.product TO zvonok_app;

-- A purchase that a limit (over_limit) or a ban (banned) of the parents stopped:
-- a fact they may be told.
CREATE TABLE meal.blocked (
    event_id  bigint PRIMARY KEY,
    person_id bigint NOT NULL,
    device_id bigint NOT NULL,
    reason    text NOT NULL,
    -- The banned dish, category or allergen.
    value     text NOT NULL DEFAULT '',
    total     bigint NOT NULL,
    at        timestamptz NOT NULL
);
CREATE INDEX blocked_person ON meal.blocked (person_id, at);
GRANT SELECT, INSERT ON meal.blocked TO zvonok_app;

-- A meal ordered ahead: a whole meal (dish is empty) or one dish of it.
CREATE TABLE meal.preorder (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    person_id       bigint NOT NULL REFERENCES ledger.person (id),
    organisation_id bigint NOT NULL REFERENCES ledger.organisation (id),
    day             date NOT NULL,
    meal            text NOT NULL,
    dish            text NOT NULL DEFAULT '',
    price           bigint NOT NULL CHECK (price >= 0),
    state           text NOT NULL DEFAULT 'placed' CHECK (state IN ('placed', 'cancelled', 'served', 'lapsed')),
    ordered_by      bigint NOT NULL,
    ordered_at      timestamptz NOT NULL
);
CREATE UNIQUE INDEX preorder_placed ON meal.preorder (person_id, day, meal, dish) WHERE state IN ('placed', 'served');
CREATE INDEX preorder_person ON meal.preorder (person_id, day);
CREATE INDEX preorder_sheet ON meal.preorder (organisation_id, day);
CREATE INDEX preorder_open ON meal.preorder (day) WHERE state = 'placed';
GRANT SELECT, INSERT, UPDATE ON meal.preorder TO zvonok_app;
