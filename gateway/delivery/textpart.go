package delivery

import (
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"zvonok/access/phone"
	"zvonok/gateway/carrier"
	"zvonok/ledger/pg"
)

// Limits of stored parts of long texts.
const (
	overdueTexts = 200 // handed over at a time

	// textLocks is the class of advisory locks under which parts are stored, and
	// so many there are: a transaction never takes more.
	textLocks     = 0x74657874
	textLockCount = 64
)

// StoreParts stores parts of long texts with the receipts that were asked for
// with them, in one transaction, and returns all parts of each of these texts
// that is complete now. A part that is there already stays as it is. Parts of
// one text that several processes store at once are stored one after another,
// so that the last of them sees the text complete. It is the carrier's callback.
func StoreParts(ctx context.Context, pool *pgxpool.Pool, parts []carrier.TextPart) (whole []carrier.TextPart, err error) {
	if len(parts) == 0 {
		return nil, nil
	}
	var (
		owed  []carrier.Owed
		keys  textKeys
		locks []int32
	)
	for _, p := range parts {
		owed = append(owed, p.Owed...)
		keys.add(p.TextKey)
		locks = append(locks, textLock(stored(p.TextKey)))
	}
	slices.Sort(locks)
	locks = slices.Compact(locks)
	err = pgx.BeginTxFunc(ctx, pool, pg.PlannedOnce, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1, l) FROM unnest($2::int[]) WITH ORDINALITY AS t (l, n) ORDER BY n`,
			textLocks, locks); err != nil {
			return fmt.Errorf("wait for other parts: %w", err)
		}
		if err := insertParts(ctx, tx, parts, keys); err != nil {
			return err
		}
		if err := Owe(ctx, tx, owed); err != nil {
			return err
		}
		whole, err = readParts(ctx, tx, wholeTexts, keys.args()...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("store parts of texts: %w", err)
	}
	return whole, nil
}

// textLock is the lock of a text.
func textLock(k carrier.TextKey) int32 {
	h := fnv.New32a()
	_, _ = fmt.Fprintf(h, "%s\x00%s\x00%d", k.Operator, k.Sender, k.Reference)
	return int32(h.Sum32() % textLockCount)
}

// textKeys gathers the names of texts for unnest.
type textKeys struct {
	operators, senders, recipients []string
	references                     []int32
	wide                           []bool
	counts                         []int16
}

// stored is the name of a text as the table has it: PostgreSQL holds neither
// zeros nor what is no UTF-8.
func stored(k carrier.TextKey) carrier.TextKey {
	k.Sender, k.Recipient = clean(k.Sender), clean(k.Recipient)
	return k
}

func (t *textKeys) add(k carrier.TextKey) {
	k = stored(k)
	t.operators = append(t.operators, k.Operator)
	t.senders, t.recipients = append(t.senders, k.Sender), append(t.recipients, k.Recipient)
	t.references = append(t.references, int32(k.Reference))
	t.wide = append(t.wide, k.Wide)
	t.counts = append(t.counts, int16(k.Count))
}

func (t *textKeys) args() []any {
	return []any{t.operators, t.senders, t.recipients, t.references, t.wide, t.counts}
}

func insertParts(ctx context.Context, tx pgx.Tx, parts []carrier.TextPart, keys textKeys) error {
	var (
		numbers, codings []int16
		phones           []string
		types            [4][]int16 // TON and NPI of the sender and of the recipient
		octets           [][]byte
		received         []time.Time
	)
	for _, p := range parts {
		numbers, codings = append(numbers, int16(p.Number)), append(codings, int16(p.Coding))
		phones = append(phones, string(p.From))
		for i, n := range []uint8{p.Source.TON, p.Source.NPI, p.To.TON, p.To.NPI} {
			types[i] = append(types[i], int16(n))
		}
		octets = append(octets, append([]byte{}, p.Octets...)) // never null
		received = append(received, p.ReceivedAt)
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO delivery.text_part (operator, sender, recipient, reference, wide, count, number, phone, sender_ton,
			sender_npi, recipient_ton, recipient_npi, coding, octets, received_at)
		SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::int[], $5::boolean[], $6::smallint[], $7::smallint[],
			$8::text[], $9::smallint[], $10::smallint[], $11::smallint[], $12::smallint[], $13::smallint[], $14::bytea[],
			$15::timestamptz[])
		ON CONFLICT DO NOTHING`,
		append(keys.args(), numbers, phones, types[0], types[1], types[2], types[3], codings, octets, received)...)
	if err != nil {
		return fmt.Errorf("insert parts of texts: %w", err)
	}
	return nil
}

// The statements that look at stored parts. Each finds them by index; a text is
// looked at once, whatever its number of parts.
const (
	wholeTexts = `
		WITH wanted AS (
			SELECT DISTINCT * FROM unnest($1::text[], $2::text[], $3::text[], $4::int[], $5::boolean[], $6::smallint[])
				AS k (operator, sender, recipient, reference, wide, count)
		)
		SELECT p.* FROM (
			SELECT p.*, count(*) OVER (PARTITION BY p.operator, p.sender, p.recipient, p.reference, p.wide, p.count) AS have
			FROM wanted JOIN delivery.text_part AS p USING (operator, sender, recipient, reference, wide, count)
		) AS p
		WHERE p.have = p.count
		ORDER BY p.operator, p.sender, p.recipient, p.reference, p.wide, p.count, p.number`
	overdueParts = `
		WITH old AS (
			SELECT operator, sender, recipient, reference, wide, count FROM delivery.text_part
			WHERE received_at < $1 ORDER BY received_at LIMIT $2
		)
		SELECT p.*, 0::bigint FROM (SELECT DISTINCT * FROM old) AS o
		JOIN delivery.text_part AS p USING (operator, sender, recipient, reference, wide, count)
		ORDER BY p.operator, p.sender, p.recipient, p.reference, p.wide, p.count, p.number`
	claimTexts = `
		WITH wanted AS (
			SELECT DISTINCT * FROM unnest($1::text[], $2::text[], $3::text[], $4::int[], $5::boolean[], $6::smallint[])
				AS k (operator, sender, recipient, reference, wide, count)
		), held AS MATERIALIZED (
			SELECT p.operator, p.sender, p.recipient, p.reference, p.wide, p.count, p.number
			FROM wanted JOIN delivery.text_part AS p USING (operator, sender, recipient, reference, wide, count)
			ORDER BY p.operator, p.sender, p.recipient, p.reference, p.wide, p.count, p.number
			FOR UPDATE OF p
		)
		DELETE FROM delivery.text_part AS p USING held AS h
		WHERE p.operator = h.operator AND p.sender = h.sender AND p.recipient = h.recipient AND p.reference = h.reference
		  AND p.wide = h.wide AND p.count = h.count AND p.number = h.number
		RETURNING p.operator, p.sender, p.recipient, p.reference, p.wide, p.count`
)

// readParts runs a statement whose columns are those of delivery.text_part and one more.
func readParts(ctx context.Context, q pg.Querier, statement string, args ...any) ([]carrier.TextPart, error) {
	rows, err := q.Query(ctx, statement, args...)
	if err != nil {
		return nil, fmt.Errorf("read parts of texts: %w", err)
	}
	parts, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (carrier.TextPart, error) {
		var (
			p    carrier.TextPart
			from string
			have int64
		)
		err := row.Scan(&p.Operator, &p.Sender, &p.Recipient, &p.Reference, &p.Wide, &p.Count, &p.Number, &from,
			&p.Source.TON, &p.Source.NPI, &p.To.TON, &p.To.NPI, &p.Coding, &p.Octets, &p.ReceivedAt, &have)
		p.From, p.Source.Addr, p.To.Addr = phone.Number(from), p.Sender, p.Recipient
		return p, err
	})
	if err != nil {
		return nil, fmt.Errorf("read parts of texts: %w", err)
	}
	return parts, nil
}

// OverdueParts returns the stored parts of some texts of which a part came
// before a time, the oldest texts first. It is the carrier's callback.
func OverdueParts(ctx context.Context, q pg.Querier, before time.Time) ([]carrier.TextPart, error) {
	return readParts(ctx, q, overdueParts, before, overdueTexts)
}

// ClaimTexts deletes the stored parts of a batch of texts, in the transaction
// that stores the texts. It returns the batch without the texts that were read
// from stored parts which are gone: another process has stored those texts, or
// the same batch has them twice.
func ClaimTexts(ctx context.Context, tx pgx.Tx, batch []carrier.MO) ([]carrier.MO, error) {
	var keys textKeys
	for _, mo := range batch {
		if mo.Parts.Count > 0 {
			keys.add(mo.Parts)
		}
	}
	if len(keys.counts) == 0 {
		return batch, nil
	}
	rows, err := tx.Query(ctx, claimTexts, keys.args()...)
	if err != nil {
		return nil, fmt.Errorf("take the stored parts of texts: %w", err)
	}
	had := map[carrier.TextKey]bool{}
	var k carrier.TextKey
	if _, err := pgx.ForEachRow(rows, []any{&k.Operator, &k.Sender, &k.Recipient, &k.Reference, &k.Wide, &k.Count}, func() error {
		had[k] = true
		return nil
	}); err != nil {
		return nil, fmt.Errorf("take the stored parts of texts: %w", err)
	}
	// What was completed in memory goes first: it is whole whatever was stored.
	for _, mo := range batch {
		if !mo.Claimed {
			delete(had, stored(mo.Parts))
		}
	}
	kept := make([]carrier.MO, 0, len(batch))
	for _, mo := range batch {
		if mo.Claimed {
			if !had[stored(mo.Parts)] {
				continue
			}
			delete(had, stored(mo.Parts))
		}
		kept = append(kept, mo)
	}
	return kept, nil
}
