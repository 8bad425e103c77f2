package reader

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"zvonok/access"
	"zvonok/ledger/pg"
)

// errKey is a key that is nobody's, or no longer.
var errKey = errors.New("the key is unknown or revoked")

// keyring turns keys into devices. Known keys are remembered for keyLife and
// unknown ones for a moment, so that neither a busy device nor a guesser costs a
// query each time; lookups that meet are one query. Revocation does not rely on
// it: see storing.gate.
type keyring struct {
	pool   *pgxpool.Pool
	now    func() time.Time
	lookup *pg.Gatherer[keyHash, *Device]

	mu      sync.Mutex
	known   map[keyHash]known
	unknown map[keyHash]time.Time // until when
}

type known struct {
	device *Device
	until  time.Time
}

func newKeyring(pool *pgxpool.Pool, now func() time.Time) *keyring {
	k := &keyring{pool: pool, now: now, known: map[keyHash]known{}, unknown: map[keyHash]time.Time{}}
	k.lookup = pg.NewGatherer(pg.GathererConfig{Max: maxGathered, Wait: gatherWait, Parallel: 1}, k.read)
	return k
}

// device returns the device of a request's key, or errKey.
func (k *keyring) device(ctx context.Context, authorization string) (*Device, error) {
	scheme, key, _ := strings.Cut(authorization, " ")
	if !strings.EqualFold(scheme, "Bearer") || key == "" {
		return nil, errKey
	}
	hash, now := hashKey(key), k.now()
	k.mu.Lock()
	entry, isKnown := k.known[hash]
	until, isUnknown := k.unknown[hash]
	k.mu.Unlock()
	if isKnown && now.Before(entry.until) {
		return entry.device, nil
	}
	if isUnknown && now.Before(until) {
		return nil, errKey
	}
	device, err := k.lookup.Do(ctx, hash)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if device == nil {
		delete(k.known, hash)
		if len(k.unknown) >= maxUnknown {
			clear(k.unknown)
		}
		k.unknown[hash] = now.Add(unknownLife)
		return nil, errKey
	}
	delete(k.unknown, hash)
	k.known[hash] = known{device, now.Add(keyLife)}
	return device, nil
}

// forget drops what is remembered of a device whose key turned out to be revoked.
func (k *keyring) forget(id DeviceID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for hash, entry := range k.known {
		if entry.device.ID == id {
			delete(k.known, hash)
		}
	}
}

func (k *keyring) close() { k.lookup.Close() }

// read looks up keys; a key that is nobody's, or revoked, gives nil.
func (k *keyring) read(ctx context.Context, hashes []keyHash) ([]*Device, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	keys := make([][]byte, len(hashes))
	for i := range hashes {
		keys[i] = hashes[i][:]
	}
	rows, err := k.pool.Query(ctx, `
		SELECT d.key_hash, d.id, d.name, d.kind, b.code, d.building_id, b.organisation_id, d.profile
		  FROM reader.device d
		  JOIN ledger.building b ON b.id = d.building_id
		 WHERE d.key_hash = ANY($1) AND d.revoked_at IS NULL`, keys)
	if err != nil {
		return nil, fmt.Errorf("look up device keys: %w", err)
	}
	var (
		found   = make(map[keyHash]*Device, len(hashes))
		hash    []byte
		d       Device
		profile string
	)
	_, err = pgx.ForEachRow(rows, []any{
		&hash, &d.ID, &d.Name, &d.Kind, &d.Building, &d.BuildingID, &d.Organisation, &profile,
	}, func() error {
		device := d
		var err error
		device.Profile, err = access.ParseProfile(profile)
		found[keyHash(hash)] = &device
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look up device keys: %w", err)
	}
	devices := make([]*Device, len(hashes))
	for i, hash := range hashes {
		devices[i] = found[hash]
	}
	return devices, nil
}
