package reader

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"zvonok/access"
	"zvonok/ledger"
	"zvonok/ledger/pg"
)

// DeviceID names a device.
type DeviceID int64

// DeviceKind is what a device is for.
type DeviceKind string

// The kinds.
const (
	Door        DeviceKind = "door"
	Till        DeviceKind = "till"
	StaffTablet DeviceKind = "staff-tablet"
)

// Device is a door, a till or a staff tablet.
type Device struct {
	ID           DeviceID              `json:"id"`
	Name         string                `json:"name"`
	Kind         DeviceKind            `json:"kind"`
	Building     string                `json:"building"` // the registry's id
	BuildingID   ledger.BuildingID     `json:"-"`
	Organisation ledger.OrganisationID `json:"-"`
	Profile      access.Profile        `json:"profile"`
	CreatedAt    time.Time             `json:"created_at"`
	RevokedAt    time.Time             `json:"revoked_at,omitzero"`
	// SeenAt is when it was last heard, zero when never. Skew is server time
	// minus device time as last measured; SkewedFrom is since when it is more
	// than two minutes, zero while it is not. They may lag by some seconds.
	SeenAt     time.Time     `json:"seen_at,omitzero"`
	Skew       time.Duration `json:"skew_ns,omitzero"`
	SkewedFrom time.Time     `json:"skewed_from,omitzero"`
	// ListedAt is when it last took the list for offline decisions, zero when
	// never: a card that was blocked since still opens it while it is offline.
	ListedAt time.Time `json:"listed_at,omitzero"`
	// Alarms are those that nobody has settled.
	Alarms []RaisedAlarm `json:"alarms,omitempty"`
}

// keyPrefix lets people and secret scanners recognise a key of ours.
const keyPrefix = "zvk_"

// Key is the secret of a device: the prefix "zvk_" and 256 random bits. It is
// shown once, when it is made. It never prints itself.
type Key string

func newKey() Key {
	secret := make([]byte, sha256.Size)
	rand.Read(secret)
	return Key(keyPrefix + base64.RawURLEncoding.EncodeToString(secret))
}

// String keeps keys out of logs and messages.
func (Key) String() string { return "[key]" }

// MarshalText keeps keys out of documents.
func (Key) MarshalText() ([]byte, error) { return []byte("[key]"), nil }

// Reveal returns the secret itself.
func (k Key) Reveal() string { return string(k) }

// keyHash is what is stored of a key.
type keyHash [sha256.Size]byte

func hashKey(key string) keyHash { return sha256.Sum256([]byte(key)) }

// ErrNoBuilding is a building that is not in the register.
var ErrNoBuilding = errors.New("no such building")

// ErrNoDevice is a device that does not exist.
var ErrNoDevice = errors.New("no such device")

// NewDevice is a device to be added.
type NewDevice struct {
	Name     string
	Kind     DeviceKind
	Building string // the registry's id
	Profile  access.Profile
}

// AddDevice adds a device and makes its key, which is returned once and stored
// hashed. It returns [ErrNoBuilding], or an error that names the wrong field.
func AddDevice(ctx context.Context, q pg.Querier, device NewDevice, now time.Time) (Device, Key, error) {
	device.Name = strings.TrimSpace(device.Name)
	switch n := utf8.RuneCountInString(device.Name); {
	case n == 0 || n > maxText:
		return Device{}, "", fmt.Errorf("the name of a device has 1 to %d characters", maxText)
	case device.Kind != Door && device.Kind != Till && device.Kind != StaffTablet:
		return Device{}, "", fmt.Errorf("the kind of device %.20q: want door, till or staff-tablet", device.Kind)
	}
	key := newKey()
	hash := hashKey(key.Reveal())
	added := Device{
		Name: device.Name, Kind: device.Kind, Building: device.Building, Profile: device.Profile, CreatedAt: now,
	}
	err := q.QueryRow(ctx, `
		INSERT INTO reader.device (name, kind, building_id, profile, key_hash, created_at)
		SELECT $1, $2, id, $4, $5, $6 FROM ledger.building WHERE code = $3
		RETURNING id, building_id, (SELECT organisation_id FROM ledger.building b WHERE b.id = building_id)`,
		device.Name, device.Kind, device.Building, device.Profile.String(), hash[:], now,
	).Scan(&added.ID, &added.BuildingID, &added.Organisation)
	if errors.Is(err, pgx.ErrNoRows) {
		return Device{}, "", ErrNoBuilding
	}
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == "22021" {
		return Device{}, "", errors.New("the name of a device is not text")
	}
	if err != nil {
		return Device{}, "", fmt.Errorf("add a device: %w", err)
	}
	return added, key, nil
}

// ListDevices lists all devices, revoked ones too, by id, with their open alarms.
func ListDevices(ctx context.Context, q pg.Querier) ([]Device, error) {
	rows, err := q.Query(ctx, `
		SELECT d.id, d.name, d.kind, b.code, d.building_id, b.organisation_id, d.profile, d.created_at, d.revoked_at,
		       c.seen_at, coalesce(c.skew_ms, 0), c.skewed_from, c.listed_at
		  FROM reader.device d
		  JOIN ledger.building b ON b.id = d.building_id
		  LEFT JOIN reader.contact c ON c.device_id = d.id
		 ORDER BY d.id`)
	if err != nil {
		return nil, fmt.Errorf("list the devices: %w", err)
	}
	devices, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Device, error) {
		var (
			d                             Device
			profile                       string
			revoked, seen, skewed, listed *time.Time
			skew                          int64
		)
		err := row.Scan(&d.ID, &d.Name, &d.Kind, &d.Building, &d.BuildingID, &d.Organisation, &profile, &d.CreatedAt,
			&revoked, &seen, &skew, &skewed, &listed)
		if err != nil {
			return d, err
		}
		d.RevokedAt, d.SeenAt, d.SkewedFrom = orZero(revoked), orZero(seen), orZero(skewed)
		d.ListedAt = orZero(listed)
		d.Skew = time.Duration(skew) * time.Millisecond
		d.Profile, err = access.ParseProfile(profile)
		return d, err
	})
	if err != nil {
		return nil, fmt.Errorf("list the devices: %w", err)
	}
	alarms, err := OpenAlarms(ctx, q, 0)
	if err != nil {
		return nil, err
	}
	of := map[DeviceID][]RaisedAlarm{}
	for _, a := range alarms {
		of[a.Device] = append(of[a.Device], a)
	}
	for i := range devices {
		devices[i].Alarms = of[devices[i].ID]
	}
	return devices, nil
}

// RevokeDevice ends a device's key: for uploads at once and in every process,
// since the transaction that stores them looks at the device itself; for
// questions and lists within half a minute. Revoking it again changes nothing.
// It returns [ErrNoDevice].
func RevokeDevice(ctx context.Context, q pg.Querier, id DeviceID, now time.Time) error {
	tag, err := q.Exec(ctx, `UPDATE reader.device SET revoked_at = coalesce(revoked_at, $2) WHERE id = $1`, id, now)
	if err != nil {
		return fmt.Errorf("revoke the key of device %d: %w", id, err)
	}
	if tag.RowsAffected() == 0 {
		return ErrNoDevice
	}
	return nil
}

func orZero(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}
