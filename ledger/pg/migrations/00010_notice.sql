-- Owner: gateway/notice.
-- +goose Up

CREATE SCHEMA notice;

-- What each recipient was told of each fact, or why not. The primary key is
-- the promise that a fact, a recipient, a child and a topic name at most one
-- message per channel, whatever is repeated.
CREATE TABLE notice.notice (
	event_id          bigint      NOT NULL,
	event_at          timestamptz NOT NULL,
	child_id          bigint      NOT NULL,
	-- 0: nobody is listening at all.
	representative_id bigint      NOT NULL,
	topic             text        NOT NULL,
	channel           text        NOT NULL,
	-- 'told', or the stage's reason (notice.Reason).
	verdict           text        NOT NULL,
	-- What each stage has decided, in order, some 30 characters (notice/stage.go).
	stages            text        NOT NULL,
	delivery_id       bigint,
	delivery_at       timestamptz,
	decided_at        timestamptz NOT NULL,
	PRIMARY KEY (event_id, representative_id, child_id, topic, channel, event_at)
) PARTITION BY RANGE (event_at);
CREATE TABLE notice.notice_default PARTITION OF notice.notice DEFAULT;
-- What was kept back for the digests of a recipient: who is to get one whatever
-- he wants, and thresholds, of which no other table knows that they were not told.
CREATE INDEX notice_capped ON notice.notice (representative_id, decided_at) WHERE verdict = 'capped';
CREATE INDEX notice_threshold ON notice.notice (representative_id, decided_at) WHERE topic = 'threshold';

-- A digest of a kind, a day and the moment at which organisations wanted it when
-- it came; it is made in batches of recipients, in the order of their ids, up to
-- position. An organisation is in one of a kind and day, whatever becomes of its
-- setting on that day. Rows of two months are kept.
CREATE TABLE notice.digest_run (
	kind          text        NOT NULL CHECK (kind IN ('day', 'week')),
	day           date        NOT NULL,
	moment        timestamptz NOT NULL,
	organisations bigint[]    NOT NULL,
	position      bigint      NOT NULL DEFAULT 0,
	finished_at   timestamptz,
	PRIMARY KEY (kind, day, moment)
);

-- Passes and sales that came so late that a digest does not look as far back for
-- them: by the child and when they came. Rows of a month are kept.
CREATE TABLE notice.late (
	child_id bigint      NOT NULL,
	known_at timestamptz NOT NULL,
	event_id bigint      NOT NULL,
	topic    text        NOT NULL,
	event_at timestamptz NOT NULL,
	PRIMARY KEY (child_id, event_id, topic)
);
CREATE INDEX late_known_at ON notice.late (known_at);

-- What became of each recipient's digest. The primary key is the promise that
-- it is sent once per recipient, kind and day, whatever restarts.
CREATE TABLE notice.digest (
	representative_id bigint      NOT NULL,
	kind              text        NOT NULL,
	day               date        NOT NULL,
	-- 'told', or why not (notice.Reason).
	verdict           text        NOT NULL,
	deliveries        integer     NOT NULL,
	made_at           timestamptz NOT NULL,
	-- It tells of what was known by then; what came later is told by the next one.
	known_until       timestamptz NOT NULL,
	PRIMARY KEY (representative_id, kind, day)
) PARTITION BY RANGE (day);
CREATE TABLE notice.digest_default PARTITION OF notice.digest DEFAULT;

-- +goose StatementBegin
DO $$
DECLARE
	month date;
BEGIN
	FOR month IN SELECT (date_trunc('month', now()) + n * interval '1 month')::date FROM generate_series(-1, 3) n LOOP
		PERFORM ledger.ensure_month('notice.notice', month);
		PERFORM ledger.ensure_month('notice.digest', month);
	END LOOP;
END
$$;
-- +goose StatementEnd

GRANT USAGE ON SCHEMA notice TO zvonok_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA notice TO zvonok_app;
