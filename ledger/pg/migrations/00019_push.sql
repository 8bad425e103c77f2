-- Owner: gateway/push.
-- +goose Up

CREATE SCHEMA push;
GRANT USAGE ON SCHEMA push TO zvonok_app;

-- A browser that its owner has allowed to show notifications (RFC 8030): where
-- its push service takes them, and the keys only the browser can read with
-- (RFC 8291). A browser belongs to whoever registered it last.
CREATE TABLE push.endpoint (
	id                bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	representative_id bigint      NOT NULL REFERENCES access.representative (id),
	url               text        NOT NULL CHECK (length(url) <= 1024),
	p256dh            bytea       NOT NULL CHECK (length(p256dh) = 65),
	auth              bytea       NOT NULL CHECK (length(auth) = 16),
	-- What the browser calls itself, for the list from which its owner removes it.
	device            text        NOT NULL CHECK (length(device) <= 200),
	registered_at     timestamptz NOT NULL,
	-- The last message its service took.
	used_at           timestamptz,
	-- Refusals in a row that are neither "gone" nor "later".
	refusals          smallint    NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX endpoint_url ON push.endpoint (url);
CREATE INDEX endpoint_representative ON push.endpoint (representative_id);

GRANT SELECT, INSERT, UPDATE, DELETE ON push.endpoint TO zvonok_app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA push TO zvonok_app;
