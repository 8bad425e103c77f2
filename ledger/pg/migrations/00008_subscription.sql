-- Owner: gateway/subscription.

-- +goose Up

CREATE SCHEMA subscription;
GRANT USAGE ON SCHEMA subscription TO zvonok_app;

-- One wish: a recipient wants the news of one topic about one child by one
-- channel in one mode (R52, R53). A row is a wish, its absence is silence, and
-- nothing in it ever changes. The key is in the order in which the wishes for a
-- batch of facts are asked. A city has millions of rows, written at once; there
-- are no foreign keys, since people and representatives are never deleted and the
-- check of a key costs more than the row.
CREATE TABLE subscription.subscription (
    child_id          bigint NOT NULL, -- ledger.person
    topic             text NOT NULL CHECK (topic IN ('pass', 'hot', 'buffet', 'subsidised', 'topup', 'threshold')),
    mode              text NOT NULL CHECK (mode IN ('now', 'day', 'week')),
    representative_id bigint NOT NULL, -- access.representative
    channel           text NOT NULL CHECK (channel IN ('sms', 'email', 'push')),
    PRIMARY KEY (child_id, topic, mode, representative_id, channel)
);
-- What one recipient wants: the settings page, and digests by recipient.
CREATE INDEX subscription_representative ON subscription.subscription (representative_id, child_id);

-- Who wants digests: few, among all who want news at once, and asked batch by
-- batch in the order of recipients.
CREATE INDEX subscription_digest ON subscription.subscription (mode, representative_id, child_id, channel)
    WHERE mode IN ('day', 'week');

-- The pairs whose wishes the recipient has chosen in the cabinet. Imports leave
-- them as they are, also when nothing is wanted any more.
CREATE TABLE subscription.choice (
    child_id          bigint NOT NULL REFERENCES ledger.person (id),
    representative_id bigint NOT NULL REFERENCES access.representative (id),
    chosen_at         timestamptz NOT NULL,
    PRIMARY KEY (child_id, representative_id)
);
CREATE INDEX choice_representative ON subscription.choice (representative_id);

-- A recipient's order of channels for messages that did not get through (D2):
-- a message that has failed on one, or has no proof of delivery after patience,
-- goes to the next.
CREATE TABLE subscription.fallback (
    representative_id bigint NOT NULL REFERENCES access.representative (id),
    position          smallint NOT NULL CHECK (position BETWEEN 1 AND 3),
    channel           text NOT NULL CHECK (channel IN ('sms', 'email', 'push')),
    patience          interval NOT NULL CHECK (patience BETWEEN interval '1 minute' AND interval '1 hour'),
    PRIMARY KEY (representative_id, position),
    UNIQUE (representative_id, channel)
);

-- How long a message to a recipient of several children waits for a sibling's
-- news (spec/notices.md); without a row as long as the organisation says.
CREATE TABLE subscription.merge (
    representative_id bigint PRIMARY KEY REFERENCES access.representative (id),
    wait              interval NOT NULL CHECK (wait BETWEEN interval '0' AND interval '90 seconds')
);

GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA subscription TO zvonok_app;
