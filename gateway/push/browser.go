package push

import (
	"context"
	"crypto/ecdh"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/ledger/pg"
)

// Subscription is what a browser's PushSubscription says, as its toJSON gives it.
type Subscription struct {
	Endpoint string // the address of its push service
	P256dh   string // keys.p256dh, base64url: the browser's public key
	Auth     string // keys.auth, base64url: 16 octets of its secret
	Device   string // what the browser is called in its owner's list, "Firefox, Windows"; may be empty
}

// ErrSubscription is a subscription no message can be sent to: the endpoint is
// not one of a known push service, or a key is not one. The error that wraps it
// says which and may be shown.
var ErrSubscription = errors.New("the browser's subscription cannot be used")

// BrowserID names a registered browser.
type BrowserID int64

// Browser is a registered browser, for its owner's list.
type Browser struct {
	ID         BrowserID
	Device     string
	Registered time.Time
	Used       *time.Time // the last message its service took, nil for none yet
}

// Register notes a browser of a recipient, or that it is still there: pages call
// it at every visit, since services change endpoints. A browser that somebody
// else had registered changes hands: whoever is signed in there now reads it. A
// recipient has at most ten browsers; an eleventh replaces the one longest
// unheard of. It returns [ErrSubscription].
func (s *Sender) Register(ctx context.Context, tx pgx.Tx, who access.RepresentativeID, sub Subscription, now time.Time) error {
	if err := s.checkURL(sub.Endpoint); err != nil {
		return fmt.Errorf("%w: %w", ErrSubscription, err)
	}
	key, err := decode(sub.P256dh)
	if err == nil {
		_, err = ecdh.P256().NewPublicKey(key)
	}
	if err != nil {
		return fmt.Errorf("%w: keys.p256dh is not a point of P-256", ErrSubscription)
	}
	auth, err := decode(sub.Auth)
	if err != nil || len(auth) != 16 {
		return fmt.Errorf("%w: keys.auth does not have 16 octets", ErrSubscription)
	}
	// The recipient's own row makes two pages of one recipient take turns.
	if _, err := tx.Exec(ctx, `SELECT FROM access.representative WHERE id = $1 FOR NO KEY UPDATE`, who); err != nil {
		return fmt.Errorf("register a browser of representative %d: %w", who, err)
	}
	if _, err := tx.Exec(ctx, `
		INSERT INTO push.endpoint (representative_id, url, p256dh, auth, device, registered_at)
		VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (url) DO UPDATE
		SET representative_id = excluded.representative_id, p256dh = excluded.p256dh, auth = excluded.auth,
		    device = excluded.device, registered_at = excluded.registered_at, refusals = 0,
		    used_at = CASE WHEN push.endpoint.representative_id = excluded.representative_id THEN push.endpoint.used_at END`,
		who, sub.Endpoint, key, auth, device(sub.Device), now); err != nil {
		return fmt.Errorf("register a browser of representative %d: %w", who, err)
	}
	if _, err := tx.Exec(ctx, `
		DELETE FROM push.endpoint
		WHERE id IN (SELECT id FROM push.endpoint WHERE representative_id = $1
		             ORDER BY greatest(registered_at, used_at) DESC, id DESC OFFSET $2)`, who, maxBrowsers); err != nil {
		return fmt.Errorf("forget the oldest browsers of representative %d: %w", who, err)
	}
	return nil
}

// decode reads base64url, with or without its padding.
func decode(text string) ([]byte, error) {
	if len(text) > 128 {
		return nil, errors.New("too long")
	}
	return base64.RawURLEncoding.DecodeString(strings.TrimRight(text, "="))
}

// device makes a line of what a browser calls itself.
func device(name string) string {
	name = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(name, ""), func(r rune) bool { return r <= ' ' || r == 0x7F }), " ")
	if runes := []rune(name); len(runes) > maxDevice {
		name = string(runes[:maxDevice])
	}
	return name
}

// Remove forgets a browser of a recipient, by its endpoint, as a page does that
// has unsubscribed or signs out. One that is not there is no error.
func Remove(ctx context.Context, q pg.Querier, who access.RepresentativeID, endpoint string) error {
	if _, err := q.Exec(ctx, `DELETE FROM push.endpoint WHERE representative_id = $1 AND url = $2`, who, endpoint); err != nil {
		return fmt.Errorf("remove a browser of representative %d: %w", who, err)
	}
	return nil
}

// RemoveID forgets a browser of a recipient, by its place in the list of [List].
// It reports whether there was one.
func RemoveID(ctx context.Context, q pg.Querier, who access.RepresentativeID, id BrowserID) (bool, error) {
	tag, err := q.Exec(ctx, `DELETE FROM push.endpoint WHERE representative_id = $1 AND id = $2`, who, id)
	if err != nil {
		return false, fmt.Errorf("remove browser %d of representative %d: %w", id, who, err)
	}
	return tag.RowsAffected() > 0, nil
}

// List returns the browsers of a recipient, the last registered first.
func List(ctx context.Context, q pg.Querier, who access.RepresentativeID) ([]Browser, error) {
	rows, err := q.Query(ctx, `
		SELECT id, device, registered_at, used_at FROM push.endpoint
		WHERE representative_id = $1 ORDER BY registered_at DESC, id DESC`, who)
	if err != nil {
		return nil, fmt.Errorf("list the browsers of representative %d: %w", who, err)
	}
	browsers, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Browser])
	if err != nil {
		return nil, fmt.Errorf("list the browsers of representative %d: %w", who, err)
	}
	return browsers, nil
}

// Forget deletes the browsers of representatives whom access.Forget has erased,
// and returns how many there were.
func Forget(ctx context.Context, tx pgx.Tx) (int64, error) {
	tag, err := tx.Exec(ctx, `
		DELETE FROM push.endpoint e USING access.representative r
		 WHERE r.id = e.representative_id AND r.erased_at IS NOT NULL`)
	if err != nil {
		return 0, fmt.Errorf("forget the browsers of the erased: %w", err)
	}
	return tag.RowsAffected(), nil
}

// Address is how a delivery names a recipient's browsers, all of them together.
func Address(who access.RepresentativeID) string { return "r" + strconv.FormatInt(int64(who), 10) }

// owner reads an Address.
func owner(address string) (access.RepresentativeID, bool) {
	digits, ok := strings.CutPrefix(address, "r")
	id, err := strconv.ParseInt(digits, 10, 64)
	return access.RepresentativeID(id), ok && err == nil
}

// Reachable returns those of some recipients who have a browser.
func Reachable(ctx context.Context, q pg.Querier, who []access.RepresentativeID) (map[access.RepresentativeID]bool, error) {
	reachable := map[access.RepresentativeID]bool{}
	if len(who) == 0 {
		return reachable, nil
	}
	rows, err := q.Query(ctx, `SELECT DISTINCT representative_id FROM push.endpoint WHERE representative_id = ANY ($1)`, who)
	if err != nil {
		return nil, fmt.Errorf("find who has a browser: %w", err)
	}
	var id access.RepresentativeID
	if _, err := pgx.ForEachRow(rows, []any{&id}, func() error { reachable[id] = true; return nil }); err != nil {
		return nil, fmt.Errorf("find who has a browser: %w", err)
	}
	return reachable, nil
}

// Endpoint is where and how a browser is reached.
type Endpoint struct {
	ID           BrowserID
	URL          string
	P256dh, Auth []byte
}

// Endpoints returns the browsers of recipients, by their [Address], in one query.
func Endpoints(ctx context.Context, q pg.Querier, addresses []string) (map[string][]Endpoint, error) {
	who := make([]int64, 0, len(addresses))
	for _, address := range addresses {
		if id, ok := owner(address); ok {
			who = append(who, int64(id))
		}
	}
	slices.Sort(who)
	rows, err := q.Query(ctx, `
		SELECT representative_id, id, url, p256dh, auth FROM push.endpoint
		WHERE representative_id = ANY ($1) ORDER BY representative_id, id`, slices.Compact(who))
	if err != nil {
		return nil, fmt.Errorf("read browsers: %w", err)
	}
	endpoints := map[string][]Endpoint{}
	for rows.Next() {
		var (
			id access.RepresentativeID
			e  Endpoint
		)
		if err := rows.Scan(&id, &e.ID, &e.URL, &e.P256dh, &e.Auth); err != nil {
			rows.Close()
			return nil, fmt.Errorf("read browsers: %w", err)
		}
		endpoints[Address(id)] = append(endpoints[Address(id)], e)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read browsers: %w", err)
	}
	return endpoints, nil
}

// Outcomes are what sending has taught about browsers.
type Outcomes struct {
	Taken, Gone, Refused []BrowserID
}

// Learn notes outcomes: what is gone is forgotten, and so is what has refused
// five messages in a row.
func Learn(ctx context.Context, tx pgx.Tx, o Outcomes, now time.Time) error {
	if len(o.Gone) > 0 {
		if _, err := tx.Exec(ctx, `DELETE FROM push.endpoint WHERE id = ANY ($1)`, o.Gone); err != nil {
			return fmt.Errorf("forget browsers that are gone: %w", err)
		}
	}
	if len(o.Refused) > 0 {
		if _, err := tx.Exec(ctx, `
			WITH counted AS (
				SELECT id, count(*) AS n FROM unnest($1::bigint[]) AS id GROUP BY id
			), forgotten AS (
				DELETE FROM push.endpoint AS e USING counted AS c WHERE e.id = c.id AND e.refusals + c.n >= $2
			)
			UPDATE push.endpoint AS e SET refusals = e.refusals + c.n FROM counted AS c
			WHERE e.id = c.id AND e.refusals + c.n < $2`, o.Refused, maxRefusals); err != nil {
			return fmt.Errorf("count refusals of browsers: %w", err)
		}
	}
	if len(o.Taken) > 0 {
		// A minute's difference is not worth a write.
		if _, err := tx.Exec(ctx, `
			UPDATE push.endpoint SET used_at = $2, refusals = 0
			WHERE id = ANY ($1) AND (refusals > 0 OR used_at IS NULL OR used_at < $2::timestamptz - interval '1 minute')`,
			o.Taken, now); err != nil {
			return fmt.Errorf("note browsers that took a message: %w", err)
		}
	}
	return nil
}
