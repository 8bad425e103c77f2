package reader

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/ledger/pg"
)

// ErrKey is a key that is nobody's, or no longer.
var ErrKey = errKey

// Identify returns the device whose key stands in a request, or [ErrKey], and
// remembers from where it was heard. It asks the database each time: it is for
// what staff do by hand, in other packages' routes.
func (in *Intake) Identify(ctx context.Context, q pg.Querier, r *http.Request) (Device, error) {
	scheme, key, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || key == "" {
		return Device{}, ErrKey
	}
	hash := hashKey(key)
	var d Device
	var profile string
	err := q.QueryRow(ctx, `
		SELECT d.id, d.name, d.kind, b.code, d.building_id, b.organisation_id, d.profile
		  FROM reader.device d
		  JOIN ledger.building b ON b.id = d.building_id
		 WHERE d.key_hash = $1 AND d.revoked_at IS NULL`, hash[:]).
		Scan(&d.ID, &d.Name, &d.Kind, &d.Building, &d.BuildingID, &d.Organisation, &profile)
	if errors.Is(err, pgx.ErrNoRows) {
		return Device{}, ErrKey
	}
	if err != nil {
		return Device{}, fmt.Errorf("look up a device key: %w", err)
	}
	in.see(d.ID, r)
	d.Profile, err = access.ParseProfile(profile)
	return d, err
}
