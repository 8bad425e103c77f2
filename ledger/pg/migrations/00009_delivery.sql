-- Owner: gateway/delivery.
-- +goose Up

CREATE SCHEMA delivery;

-- Ids are handed out in blocks of 1,000, so that a batch needs no round trip
-- to learn the ids of its rows.
CREATE SEQUENCE delivery.delivery_block INCREMENT BY 1000;

-- One message to one address. The row is the truth; River carries only ids.
--
-- No index touches a column that changes with the state, so every change of
-- state is a HOT update (fillfactor leaves it room on the page).
-- Whoever looks for unfinished rows finds them through River's jobs, which
-- name them by (id, at).
CREATE TABLE delivery.delivery (
	id                bigint      NOT NULL,
	at                timestamptz NOT NULL,
	event_id          bigint      NOT NULL,
	representative_id bigint,
	-- Whose news it is, for a recall; null for answers and codes.
	organisation_id   bigint,
	topic             text        NOT NULL,
	channel           text        NOT NULL CHECK (channel IN ('sms', 'email', 'push')),
	address           text        NOT NULL,
	priority          smallint    NOT NULL CHECK (priority BETWEEN 1 AND 3),
	-- Unknown outcomes may be sent again: never, once within the life, once after ten minutes.
	again             text        NOT NULL CHECK (again IN ('never', 'fresh', 'later')),
	expires_at        timestamptz NOT NULL,
	body              text        NOT NULL,
	-- While it waits, a sibling's news of the same family joins it; joined lists their events.
	family            text,
	joined            bigint[]    NOT NULL DEFAULT '{}',
	-- Of whom it tells: once it has waited it is sent only while its recipient may know of all of them.
	children          bigint[]    NOT NULL DEFAULT '{}',
	-- There is a row in delivery.spare.
	spare             boolean     NOT NULL DEFAULT false,
	-- Recalled while it was on its way: it is not sent a second time.
	recalled          boolean     NOT NULL DEFAULT false,
	state             text        NOT NULL DEFAULT 'queued'
	                  CHECK (state IN ('queued', 'sending', 'sent', 'delivered', 'unproved', 'partial', 'unknown', 'failed', 'stale', 'recalled')),
	operator          text,
	-- attempt numbers the tries; failures counts only those that spend the allowance.
	attempt           smallint    NOT NULL DEFAULT 0,
	failures          smallint    NOT NULL DEFAULT 0,
	resent            boolean     NOT NULL DEFAULT false,
	-- The routes tried so far, for the failover to one not tried yet.
	tried             text[]      NOT NULL DEFAULT '{}',
	-- The process that marked the row 'sending'; after its death the outcome is unknown.
	sender            text,
	-- Why it stands where it stands: an outcome class and a status code in words.
	reason            text,
	-- It was put to its route again after it had failed; once is all.
	replayed_at       timestamptz,
	sending_at        timestamptz,
	settled_at        timestamptz,
	PRIMARY KEY (id, at)
) PARTITION BY RANGE (at);

-- The timeline of a phone or mailbox, newest first.
CREATE INDEX delivery_address ON delivery.delivery (address, at);
-- Rows come in the order of time: a recall finds those since a moment, retention
-- those before one.
CREATE INDEX delivery_at ON delivery.delivery USING brin (at) WITH (pages_per_range = 32, autosummarize = on);
-- One-time codes and answers whose text has not been destroyed yet: a handful.
CREATE INDEX delivery_private ON delivery.delivery (at) WHERE topic IN ('code', 'reply') AND body <> '';

CREATE TABLE delivery.delivery_default PARTITION OF delivery.delivery DEFAULT WITH (fillfactor = 60);

-- A letter's subject and bodies, for channel 'email' only.
CREATE TABLE delivery.letter (
	delivery_id bigint      NOT NULL,
	at          timestamptz NOT NULL,
	subject     text        NOT NULL,
	text_body   text        NOT NULL,
	html_body   text        NOT NULL,
	-- The conversation a reader's program shows as one: a child's day.
	thread      text        NOT NULL DEFAULT '',
	PRIMARY KEY (delivery_id, at)
) PARTITION BY RANGE (at);
-- Letters are the bulk of what a digest writes, and lz4 costs a fraction of
-- PostgreSQL's own compression, where the server was built with it.
-- +goose StatementBegin
DO $$
BEGIN
	IF EXISTS (SELECT FROM pg_settings WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals)) THEN
		ALTER TABLE delivery.letter
			ALTER COLUMN html_body SET COMPRESSION lz4, ALTER COLUMN text_body SET COMPRESSION lz4;
	END IF;
END
$$;
-- +goose StatementEnd
CREATE TABLE delivery.letter_default PARTITION OF delivery.letter DEFAULT;

-- The same message for the recipient's next channel (notices.md, Fall-back),
-- stored with the message it stands in for. taken_at is set once; next_id is
-- the delivery it became, null when that address takes nothing either.
CREATE TABLE delivery.spare (
	delivery_id bigint      NOT NULL,
	at          timestamptz NOT NULL,
	channel     text        NOT NULL CHECK (channel IN ('sms', 'email', 'push')),
	address     text        NOT NULL,
	patience    interval    NOT NULL,
	body        text        NOT NULL,
	subject     text,
	text_body   text,
	html_body   text,
	thread      text        NOT NULL DEFAULT '',
	taken_at    timestamptz,
	next_id     bigint,
	next_at     timestamptz,
	PRIMARY KEY (delivery_id, at)
) PARTITION BY RANGE (at);
CREATE TABLE delivery.spare_default PARTITION OF delivery.spare DEFAULT;

-- What went over the air: one row per SMS part and attempt (or one per letter
-- handed to the relay), with the operator's id and what became of it.
CREATE TABLE delivery.part (
	delivery_id  bigint      NOT NULL,
	delivery_at  timestamptz NOT NULL,
	attempt      smallint    NOT NULL,
	number       smallint    NOT NULL,
	count        smallint    NOT NULL,
	operator     text        NOT NULL,
	-- The id as the operator gave it, and its canonical key (see receipt.go).
	message_id   text        NOT NULL,
	message_key  text        NOT NULL,
	status       bigint      NOT NULL,
	state        text        NOT NULL CHECK (state IN
	             ('refused', 'accepted', 'enroute', 'unknown', 'delivered', 'undelivered', 'expired', 'deleted', 'rejected')),
	error        text,
	submitted_at timestamptz NOT NULL,
	done_at      timestamptz,
	PRIMARY KEY (delivery_id, submitted_at, attempt, number)
) PARTITION BY RANGE (submitted_at);
CREATE INDEX part_message ON delivery.part (operator, message_key) WHERE message_key <> '';
CREATE INDEX part_submitted ON delivery.part USING brin (submitted_at) WITH (pages_per_range = 32, autosummarize = on);
CREATE TABLE delivery.part_default PARTITION OF delivery.part DEFAULT WITH (fillfactor = 70);

-- Every receipt as it came, written before it is acknowledged.
CREATE TABLE delivery.receipt (
	id          bigint GENERATED BY DEFAULT AS IDENTITY,
	received_at timestamptz NOT NULL,
	operator    text        NOT NULL,
	message_id  text        NOT NULL,
	address     text        NOT NULL,
	state       text        NOT NULL,
	error       text        NOT NULL,
	submit_at   timestamptz,
	done_at     timestamptz,
	raw         text        NOT NULL,
	PRIMARY KEY (id, received_at)
) PARTITION BY RANGE (received_at);
CREATE INDEX receipt_received ON delivery.receipt USING brin (received_at) WITH (pages_per_range = 32, autosummarize = on);
CREATE TABLE delivery.receipt_default PARTITION OF delivery.receipt DEFAULT;

-- Receipts whose message is not known (yet): kept 72 hours, matched from the
-- other side when the part is written.
CREATE TABLE delivery.orphan (
	receipt_id  bigint      NOT NULL PRIMARY KEY,
	received_at timestamptz NOT NULL,
	operator    text        NOT NULL,
	message_id  text        NOT NULL,
	keys        text[]      NOT NULL,
	address     text        NOT NULL,
	state       text        NOT NULL,
	error       text        NOT NULL,
	route       boolean     NOT NULL, -- it speaks of the route, not of the phone
	done_at     timestamptz
);
CREATE INDEX orphan_keys ON delivery.orphan USING gin (keys);
CREATE INDEX orphan_received ON delivery.orphan (received_at);

-- Messages whose last news was a receipt that settles nothing: at due_at they are
-- closed without a proof, unless a final receipt has come. It is as long as what
-- came in a day.
CREATE TABLE delivery.doubt (
	delivery_id bigint      NOT NULL,
	delivery_at timestamptz NOT NULL,
	due_at      timestamptz NOT NULL,
	PRIMARY KEY (delivery_id, delivery_at)
);
CREATE INDEX doubt_due ON delivery.doubt (due_at);

-- Two final receipts for one part that disagree, for the operator's engineer.
CREATE TABLE delivery.receipt_conflict (
	receipt_id  bigint      NOT NULL,
	received_at timestamptz NOT NULL,
	operator    text        NOT NULL,
	message_id  text        NOT NULL,
	had         text        NOT NULL,
	got         text        NOT NULL
);

-- Receipts that gateways bound to us asked for with their texts and dials, until
-- they have acknowledged them. Nothing stays: it is as long as what waits.
CREATE TABLE delivery.owed (
	id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	operator        text        NOT NULL,
	message_id      text        NOT NULL,
	source_ton      smallint    NOT NULL,
	source_npi      smallint    NOT NULL,
	source          text        NOT NULL,
	destination_ton smallint    NOT NULL,
	destination_npi smallint    NOT NULL,
	destination     text        NOT NULL,
	accepted_at     timestamptz NOT NULL,
	due_at          timestamptz NOT NULL,
	-- How often it may have been written, and how often it surely was not taken.
	writes          smallint    NOT NULL DEFAULT 0,
	refusals        smallint    NOT NULL DEFAULT 0
);
CREATE INDEX owed_due ON delivery.owed (operator, due_at);
CREATE INDEX owed_accepted ON delivery.owed (accepted_at);

-- Parts of long texts from subscribers that were acknowledged before the others
-- came. They go in the transaction that stores the text, after a minute or so
-- without the parts that are missing: it is as long as what came in that time.
CREATE TABLE delivery.text_part (
	operator        text        NOT NULL,
	sender          text        NOT NULL,
	recipient       text        NOT NULL,
	reference       integer     NOT NULL,
	wide            boolean     NOT NULL, -- a reference of 16 bits
	count           smallint    NOT NULL,
	number          smallint    NOT NULL CHECK (number BETWEEN 1 AND count),
	phone           text        NOT NULL, -- the sender's; empty for a name or a short code
	sender_ton      smallint    NOT NULL,
	sender_npi      smallint    NOT NULL,
	recipient_ton   smallint    NOT NULL,
	recipient_npi   smallint    NOT NULL,
	coding          smallint    NOT NULL,
	octets          bytea       NOT NULL,
	received_at     timestamptz NOT NULL,
	PRIMARY KEY (operator, sender, recipient, reference, wide, count, number)
);
CREATE INDEX text_part_received ON delivery.text_part (received_at);

-- What is known of an address: who asked us to stop, and its health.
CREATE TABLE delivery.address (
	channel       text        NOT NULL,
	address       text        NOT NULL,
	opted_out_at  timestamptz,
	suppressed_at timestamptz,
	reason        text,
	-- Permanent refusals in a row, and the last of them; a proof of delivery clears them.
	refusals      smallint    NOT NULL DEFAULT 0,
	refused_at    timestamptz,
	PRIMARY KEY (channel, address)
);

-- A phone that counts as dead may change hands: whoever dials it has no right any
-- more to what its owner saw (access.RightsChanges).
-- +goose StatementBegin
CREATE FUNCTION delivery.tell_dead() RETURNS trigger
	LANGUAGE plpgsql
AS $$
BEGIN
	PERFORM pg_notify('zvonok_rights', 'p' || new.address);
	RETURN NULL;
END
$$;
-- +goose StatementEnd
CREATE TRIGGER told_new AFTER INSERT ON delivery.address
	FOR EACH ROW WHEN (new.channel = 'sms' AND new.suppressed_at IS NOT NULL) EXECUTE FUNCTION delivery.tell_dead();
CREATE TRIGGER told AFTER UPDATE ON delivery.address
	FOR EACH ROW WHEN (new.channel = 'sms' AND new.suppressed_at IS DISTINCT FROM old.suppressed_at)
	EXECUTE FUNCTION delivery.tell_dead();

-- Messages per address and day, for the cap (notices.md).
CREATE TABLE delivery.quota (
	day     date     NOT NULL,
	channel text     NOT NULL,
	address text     NOT NULL,
	-- How many have their place; how many of those whatever the cap says; and how many found none.
	sent    integer  NOT NULL,
	forced  integer  NOT NULL DEFAULT 0,
	held    integer  NOT NULL DEFAULT 0,
	PRIMARY KEY (day, channel, address)
) WITH (fillfactor = 70);

-- Up to when the texts of messages have been destroyed (retention.go): one row,
-- null before the first run.
CREATE TABLE delivery.erasure (
	done_until timestamptz
);
INSERT INTO delivery.erasure VALUES (NULL);

-- +goose StatementBegin
DO $$
DECLARE
	parent regclass;
	month  date;
BEGIN
	FOREACH parent IN ARRAY ARRAY['delivery.delivery', 'delivery.letter', 'delivery.spare', 'delivery.part', 'delivery.receipt']::regclass[] LOOP
		FOR month IN SELECT (date_trunc('month', now()) + n * interval '1 month')::date FROM generate_series(-1, 3) n LOOP
			PERFORM ledger.ensure_month(parent, month);
		END LOOP;
	END LOOP;
END
$$;
-- +goose StatementEnd

GRANT USAGE ON SCHEMA delivery TO zvonok_app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA delivery TO zvonok_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA delivery TO zvonok_app;
