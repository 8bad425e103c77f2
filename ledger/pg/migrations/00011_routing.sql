-- Owner: gateway/routing.
-- +goose Up

CREATE SCHEMA routing;

-- The imported table of ported numbers: which of our operators has the number.
-- Numbers are kept as integers; a country has tens of millions of them.
CREATE TABLE routing.ported (
	number   bigint PRIMARY KEY,
	operator text   NOT NULL
);

-- Every import, so that processes see that there was one.
CREATE TABLE routing.import (
	id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	at      timestamptz NOT NULL,
	file    text        NOT NULL,
	numbers bigint      NOT NULL
);

-- What refusals and acceptances have taught, until its time to live is over.
CREATE TABLE routing.learned (
	number     bigint      PRIMARY KEY,
	operator   text,                 -- has it
	refused_by text,                 -- has it not
	until      timestamptz NOT NULL,
	changed_at timestamptz NOT NULL
);
CREATE INDEX learned_changed ON routing.learned (changed_at);

-- The moving share of messages that reached the phone within a minute, by
-- operator and prefix (carrier.EvidenceStep and the like); seen and timely count
-- since the beginning.
CREATE TABLE routing.evidence (
	operator text             NOT NULL,
	prefix   text             NOT NULL,
	share    double precision NOT NULL,
	at       timestamptz      NOT NULL,
	seen     bigint           NOT NULL,
	timely   bigint           NOT NULL,
	PRIMARY KEY (operator, prefix)
) WITH (fillfactor = 50);

-- Up to when missing receipts have been looked for; one row.
CREATE TABLE routing.watched (until timestamptz NOT NULL);
INSERT INTO routing.watched VALUES (now());

GRANT USAGE ON SCHEMA routing TO zvonok_app;
GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA routing TO zvonok_app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA routing TO zvonok_app;
