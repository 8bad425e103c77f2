-- Owner: access/door.

-- +goose Up

CREATE SCHEMA door;
GRANT USAGE ON SCHEMA door TO zvonok_app;

-- One passage, or one repeated tap of it. 400,000 people make some 160 million
-- rows a year, so the row is lean: what is usually absent is null and costs
-- nothing, what has few values is a smallint, and there are no foreign keys
-- (people, buildings and devices are never deleted; a key check per row costs
-- more than the row).
--
--   direction  1 in, 2 out
--   kind       1 by the person's card, 2 with a companion's card, 3 let in by staff (D9)
--   merged     the pass before it was the same person's in the same direction
--              within ledger.organisation.same_pass: one passage (D8)
--   suspected  the same card turned the door twice within seconds: perhaps a
--              second child passed on it; for staff only
--   inferred   the reader did not know the direction; it was taken from the time of day
--   silent     the device's clock was off by hours: recorded, told to nobody
--
-- "at" is the corrected time, raw_at what the device's clock said where that differs.
CREATE TABLE door.pass (
    event_id        bigint      NOT NULL,
    at              timestamptz NOT NULL,
    received_at     timestamptz NOT NULL,
    person_id       bigint      NOT NULL,
    organisation_id bigint      NOT NULL,
    building_id     bigint      NOT NULL,
    device_id       bigint      NOT NULL,
    direction       smallint    NOT NULL CHECK (direction IN (1, 2)),
    kind            smallint    NOT NULL CHECK (kind IN (1, 2, 3)),
    merged          boolean     NOT NULL,
    suspected       boolean     NOT NULL,
    inferred        boolean     NOT NULL,
    silent          boolean     NOT NULL,
    raw_at          timestamptz,
    card_id         bigint, -- access.card
    companion_id    bigint, -- access.representative
    admitted_by     bigint, -- ledger.person
    -- A fact is found by its id and its time: the id alone would visit every month.
    PRIMARY KEY (event_id, at)
) PARTITION BY RANGE (at);

-- History of a person, and attendance of an organisation through its people:
-- the included columns make both index-only, so a school's month is a few
-- thousand pages wherever its rows lie. An index by building or organisation
-- would cost another 4 GB a year and answer nothing that this one does not.
CREATE INDEX pass_person ON door.pass (person_id, at) INCLUDE (direction, merged, building_id);
-- Rows arrive nearly in the order of time, so a few pages of BRIN find the days
-- that retention and reports over whole cities ask for.
CREATE INDEX pass_at ON door.pass USING brin (at);

CREATE TABLE door.pass_default PARTITION OF door.pass DEFAULT;
SELECT ledger.ensure_month('door.pass', (date_trunc('month', now()) + n * interval '1 month')::date)
  FROM generate_series(-1, 3) n;

-- Where each person was last seen, and the last day with a pass: what a USSD
-- screen or an evacuation list asks for, one row each. It is a fold of door.pass
-- that does not depend on the order of arrival.
--
-- Each pass changes the row, so pages keep room for the new version and no
-- index holds a changing column: every change is a heap-only tuple.
CREATE TABLE door.presence (
    person_id        bigint PRIMARY KEY,
    -- The latest pass; all null until the first one.
    last_at          timestamptz,
    last_direction   smallint CHECK (last_direction IN (1, 2)),
    last_building_id bigint,
    last_device_id   bigint,
    -- The last day with a pass, in the organisation's zone: first entry and last exit of it.
    day              date,
    day_first_in     timestamptz,
    day_last_out     timestamptz,
    CHECK ((last_at IS NULL) = (last_direction IS NULL) AND (last_at IS NULL) = (day IS NULL))
) WITH (fillfactor = 70);

-- What staff must look at: a kindergarten child who left without a listed
-- companion (D10), a tap that was refused to somebody who tried again.
CREATE TABLE door.alarm (
    event_id        bigint      PRIMARY KEY,
    at              timestamptz NOT NULL,
    person_id       bigint      NOT NULL REFERENCES ledger.person (id),
    organisation_id bigint      NOT NULL REFERENCES ledger.organisation (id),
    building_id     bigint      NOT NULL REFERENCES ledger.building (id),
    kind            text        NOT NULL CHECK (kind IN ('no_companion', 'unlisted_companion', 'young_companion')),
    raised_at       timestamptz NOT NULL,
    settled_at      timestamptz,
    settled_by      text,
    CHECK ((settled_at IS NULL) = (settled_by IS NULL))
);
CREATE INDEX alarm_organisation ON door.alarm (organisation_id, at);

-- A door refused somebody. Nobody is told; staff see it. The card's identifier
-- is kept because most refused cards belong to nobody we know.
CREATE TABLE door.denial (
    event_id        bigint      PRIMARY KEY,
    at              timestamptz NOT NULL,
    received_at     timestamptz NOT NULL,
    organisation_id bigint      NOT NULL,
    building_id     bigint      NOT NULL,
    device_id       bigint      NOT NULL,
    card_uid        text        NOT NULL,
    person_id       bigint,
    direction       smallint    CHECK (direction IN (1, 2)),
    reason          text        NOT NULL
);
CREATE INDEX denial_organisation ON door.denial (organisation_id, at);

-- When a group's day begins; '' stands for every group without lessons of its own.
-- weekday as Go counts: 0 is Sunday.
CREATE TABLE door.timetable (
    organisation_id bigint   NOT NULL REFERENCES ledger.organisation (id),
    group_name      text     NOT NULL,
    weekday         smallint NOT NULL CHECK (weekday BETWEEN 0 AND 6),
    begins          time     NOT NULL,
    PRIMARY KEY (organisation_id, group_name, weekday)
);
CREATE TABLE door.holiday (
    organisation_id bigint NOT NULL REFERENCES ledger.organisation (id),
    day             date   NOT NULL,
    PRIMARY KEY (organisation_id, day)
);

-- Why somebody does not come, as a parent or a teacher says.
CREATE TABLE door.excuse (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    person_id    bigint      NOT NULL REFERENCES ledger.person (id),
    first_day    date        NOT NULL,
    last_day     date        NOT NULL,
    reason       text        NOT NULL CHECK (reason <> '' AND length(reason) <= 200),
    actor        text        NOT NULL,
    created_at   timestamptz NOT NULL,
    withdrawn_at timestamptz,
    CHECK (first_day <= last_day)
);
CREATE INDEX excuse_person ON door.excuse (person_id, last_day);

-- By when an organisation wants its pupils to have come, to tell the parents of
-- those who have not; no row: nobody is told.
CREATE TABLE door.absence_rule (
    organisation_id bigint PRIMARY KEY REFERENCES ledger.organisation (id),
    by_time         time   NOT NULL
);

-- The pupils of an organisation who had not come on a day and have no excuse.
-- A held batch waits for a person: too few came, or a reader is silent, so the
-- fault may be ours.
CREATE TABLE door.absence_batch (
    id              bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    organisation_id bigint      NOT NULL REFERENCES ledger.organisation (id),
    day             date        NOT NULL,
    made_at         timestamptz NOT NULL,
    state           text        NOT NULL CHECK (state IN ('held', 'released', 'cancelled')),
    cause           text        NOT NULL CHECK (cause IN ('', 'few_arrivals', 'silent_reader')),
    arrived         integer     NOT NULL,
    usual           integer     NOT NULL,
    decided_at      timestamptz,
    decided_by      text,
    UNIQUE (organisation_id, day)
);
CREATE INDEX absence_held ON door.absence_batch (made_at) WHERE state = 'held';

-- A pupil of a batch: a fact, of which the parents learn when the batch is released.
CREATE TABLE door.absence (
    event_id  bigint      PRIMARY KEY,
    batch_id  bigint      NOT NULL REFERENCES door.absence_batch (id),
    person_id bigint      NOT NULL REFERENCES ledger.person (id),
    at        timestamptz NOT NULL
);
CREATE INDEX absence_of_batch ON door.absence (batch_id);

-- forget deletes what doors have recorded before a moment, and the excuses, which
-- may tell of illness, that ended before it; it answers how many passes and how
-- many other rows they were. It is the only way: the application deletes neither,
-- and not even by this function what is younger than a year.
-- +goose StatementBegin
CREATE FUNCTION door.forget(before timestamptz, OUT passes bigint, OUT others bigint)
    LANGUAGE sql
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
    WITH bound AS MATERIALIZED (SELECT least($1, now() - interval '1 year') AS at),
         gone AS (DELETE FROM door.pass p USING bound b WHERE p.at < b.at RETURNING 1),
         refused AS (DELETE FROM door.denial d USING bound b WHERE d.at < b.at RETURNING 1),
         alarms AS (DELETE FROM door.alarm a USING bound b WHERE a.at < b.at RETURNING 1),
         excuses AS (DELETE FROM door.excuse e USING bound b WHERE e.last_day < b.at::date RETURNING 1),
         absences AS (DELETE FROM door.absence a USING bound b WHERE a.at < b.at RETURNING 1)
    SELECT (SELECT count(*) FROM gone),
           (SELECT count(*) FROM refused) + (SELECT count(*) FROM alarms) + (SELECT count(*) FROM excuses)
           + (SELECT count(*) FROM absences)
$$;
-- +goose StatementEnd
REVOKE EXECUTE ON FUNCTION door.forget(timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION door.forget(timestamptz) TO zvonok_app;

GRANT SELECT, INSERT, UPDATE, DELETE ON door.absence_rule TO zvonok_app;
GRANT SELECT, INSERT, UPDATE ON door.absence_batch TO zvonok_app;
GRANT SELECT, INSERT ON door.absence TO zvonok_app;
GRANT SELECT, INSERT, DELETE ON door.timetable, door.holiday TO zvonok_app;
GRANT SELECT, INSERT, UPDATE ON door.excuse TO zvonok_app;
GRANT SELECT, INSERT, UPDATE ON door.pass, door.presence, door.alarm TO zvonok_app;
GRANT SELECT, INSERT ON door.denial TO zvonok_app;
