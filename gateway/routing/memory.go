// Package routing keeps in the database what routing by the carrier's Exchange
// has to remember over a restart and to share among processes: the imported
// table of ported numbers, what refusals have taught, and how well each operator
// serves each prefix (smpp.md, "Evidence routing").
//
// The Exchange routes from its own memory, since every message asks it. This
// package brings that memory and the database together every few seconds: what
// this process has seen is added, what all have seen comes back. A process that
// dies loses the last seconds of it, which costs a few messages their best
// route and nothing else.
package routing

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"zvonok/access/phone"
	"zvonok/gateway/carrier"
	"zvonok/gateway/delivery"
	"zvonok/ledger/pg"
)

// Limits of the memory.
const (
	syncInterval = 5 * time.Second
	syncTimeout  = 2 * time.Minute // an import of tens of millions is read whole
	mostWaiting  = 20_000          // learned numbers and pairs of operator and prefix not stored yet; more are dropped
	mostLearned  = 100_000         // learned numbers read at the start, the latest
	overlap      = time.Minute     // of the changes read again: a transaction may have taken its time
	oldest       = 10 * time.Minute
)

// Config is what a Memory needs.
type Config struct {
	Pool     *pgxpool.Pool
	Exchange *carrier.Exchange
	Log      *slog.Logger
	Now      func() time.Time
}

// Memory brings an Exchange's memory and the database together.
type Memory struct {
	cfg Config

	mu      sync.Mutex
	learned map[phone.Number]carrier.Ported
	counts  map[pair]count

	// The rest is that of Sync, which is not called twice at once.
	imported int64     // the last import that was read
	read     time.Time // up to when learned numbers were read
}

type pair struct{ operator, prefix string }

type count struct{ seen, timely int64 }

// New returns a Memory. [Memory.Sync] should be called once before messages are
// routed, [Memory.Run] keeps it up.
func New(cfg Config) *Memory {
	return &Memory{cfg: cfg, learned: make(map[phone.Number]carrier.Ported), counts: make(map[pair]count)}
}

// Learn takes what an answer taught; it is the carrier's callback.
func (m *Memory) Learn(p carrier.Ported) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.learned[p.Phone]; ok || len(m.learned) < mostWaiting {
		m.learned[p.Phone] = p
	}
}

// Delivered takes note whether a message to an address reached the phone within
// a minute.
func (m *Memory) Delivered(operator, address string, timely bool) {
	key := pair{operator, m.cfg.Exchange.Prefix(phone.Number(address))}
	m.mu.Lock()
	defer m.mu.Unlock()
	c, ok := m.counts[key]
	if !ok && len(m.counts) >= mostWaiting {
		return
	}
	c.seen++
	if timely {
		c.timely++
	}
	m.counts[key] = c
}

// Run syncs every few seconds until ctx ends, and once more then.
func (m *Memory) Run(ctx context.Context) {
	ticker := time.NewTicker(syncInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), syncInterval)
			defer cancel()
			m.say(m.store(last))
			return
		case <-ticker.C:
		}
		if err := m.Sync(ctx); ctx.Err() == nil {
			m.say(err)
		}
	}
}

func (m *Memory) say(err error) {
	if err != nil {
		m.cfg.Log.Warn("remember routes", "error", err)
	}
}

// Sync stores what this process has seen and reads what all have.
func (m *Memory) Sync(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	if err := m.missing(ctx); err != nil {
		return err
	}
	if err := m.store(ctx); err != nil {
		return err
	}
	if err := m.readLearned(ctx); err != nil {
		return err
	}
	if err := m.readEvidence(ctx); err != nil {
		return err
	}
	return m.readImported(ctx)
}

// store writes what has gathered; what could not be written gathers on.
func (m *Memory) store(ctx context.Context) error {
	m.mu.Lock()
	learned, counts := m.learned, m.counts
	m.learned, m.counts = make(map[phone.Number]carrier.Ported), make(map[pair]count)
	m.mu.Unlock()
	if len(learned) == 0 && len(counts) == 0 {
		return nil
	}
	err := pgx.BeginFunc(ctx, m.cfg.Pool, func(tx pgx.Tx) error {
		if err := storeLearned(ctx, tx, m.cfg.Now(), learned); err != nil {
			return err
		}
		return storeCounts(ctx, tx, m.cfg.Now(), counts)
	})
	if err == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for number, p := range learned {
		if _, newer := m.learned[number]; !newer && len(m.learned) < mostWaiting {
			m.learned[number] = p
		}
	}
	for key, c := range counts {
		sum := m.counts[key]
		m.counts[key] = count{sum.seen + c.seen, sum.timely + c.timely}
	}
	return err
}

func storeLearned(ctx context.Context, tx pgx.Tx, now time.Time, learned map[phone.Number]carrier.Ported) error {
	var (
		numbers             []int64
		operators, refusals []string
		untils              []time.Time
	)
	for number, p := range learned {
		n, err := strconv.ParseInt(string(number), 10, 64)
		if err != nil {
			continue
		}
		until := p.Until
		if until.IsZero() {
			until = now // taken back: read once more by the others, then gone
		}
		numbers, untils = append(numbers, n), append(untils, until)
		operators, refusals = append(operators, p.Operator), append(refusals, p.Not)
	}
	if len(numbers) == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, `
		INSERT INTO routing.learned (number, operator, refused_by, until, changed_at)
		SELECT number, nullif(operator, ''), nullif(refused_by, ''), until, $1
		FROM unnest($2::bigint[], $3::text[], $4::text[], $5::timestamptz[]) AS l (number, operator, refused_by, until)
		ORDER BY number
		ON CONFLICT (number) DO UPDATE SET operator = excluded.operator, refused_by = excluded.refused_by,
			until = excluded.until, changed_at = excluded.changed_at`,
		now, numbers, operators, refusals, untils); err != nil {
		return fmt.Errorf("store learned numbers: %w", err)
	}
	if _, err := tx.Exec(ctx, `DELETE FROM routing.learned WHERE until < $1`, now.Add(-oldest)); err != nil {
		return fmt.Errorf("forget learned numbers: %w", err)
	}
	return nil
}

// vanishing is an exponent with which nothing is left of a share. PostgreSQL
// takes a power that is too small for a number for an error.
const vanishing = 1000

// storeCounts moves the shares as if the messages had come one after another:
// n of them leave (1-step)^n of what was there.
func storeCounts(ctx context.Context, tx pgx.Tx, now time.Time, counts map[pair]count) error {
	var (
		operators, prefixes []string
		seen, timely        []int64
	)
	for key, c := range counts {
		operators, prefixes = append(operators, key.operator), append(prefixes, key.prefix)
		seen, timely = append(seen, c.seen), append(timely, c.timely)
	}
	if len(operators) == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, `
		INSERT INTO routing.evidence AS e (operator, prefix, share, at, seen, timely)
		SELECT operator, prefix,
			greatest($2, 1 + (1 - power(1 - $3::float8, least(seen, $9::bigint)::float8)) * (timely::float8 / seen - 1)), $1, seen, timely
		FROM unnest($5::text[], $6::text[], $7::bigint[], $8::bigint[]) AS c (operator, prefix, seen, timely)
		ORDER BY operator, prefix
		ON CONFLICT (operator, prefix) DO UPDATE SET
			share = (
				SELECT greatest($2, old + (1 - power(1 - $3::float8, least(excluded.seen, $9::bigint)::float8))
					* (excluded.timely::float8 / excluded.seen - old))
				FROM (SELECT 1 - (1 - e.share) * power(2::float8,
					-least($9::bigint, greatest(0, extract(epoch FROM excluded.at - e.at)::float8) / $4::float8))) AS drifted (old)
			),
			at = greatest(e.at, excluded.at), seen = e.seen + excluded.seen, timely = e.timely + excluded.timely`,
		now, carrier.EvidenceFloor, carrier.EvidenceStep, carrier.EvidenceHalf.Seconds(),
		operators, prefixes, seen, timely, vanishing); err != nil {
		return fmt.Errorf("store evidence: %w", err)
	}
	return nil
}

func (m *Memory) readLearned(ctx context.Context) error {
	since := m.read.Add(-overlap)
	now := m.cfg.Now()
	rows, err := m.cfg.Pool.Query(ctx, `
		SELECT number, coalesce(operator, ''), coalesce(refused_by, ''), until FROM routing.learned
		WHERE changed_at > $1 ORDER BY changed_at DESC LIMIT $2`, since, mostLearned)
	if err != nil {
		return fmt.Errorf("read learned numbers: %w", err)
	}
	var (
		all    []carrier.Ported
		number int64
		p      carrier.Ported
	)
	if _, err := pgx.ForEachRow(rows, []any{&number, &p.Operator, &p.Not, &p.Until}, func() error {
		p.Phone = phone.Number(strconv.FormatInt(number, 10))
		all = append(all, p)
		return nil
	}); err != nil {
		return fmt.Errorf("read learned numbers: %w", err)
	}
	m.cfg.Exchange.SetLearned(all)
	m.read = now
	return nil
}

func (m *Memory) readEvidence(ctx context.Context) error {
	rows, err := m.cfg.Pool.Query(ctx, `SELECT operator, prefix, share, at FROM routing.evidence`)
	if err != nil {
		return fmt.Errorf("read evidence: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[carrier.Evidence])
	if err != nil {
		return fmt.Errorf("read evidence: %w", err)
	}
	m.cfg.Exchange.SetEvidence(all)
	return nil
}

// readImported reads the imported table whole when there was an import.
func (m *Memory) readImported(ctx context.Context) error {
	var last int64
	if err := m.cfg.Pool.QueryRow(ctx, `SELECT coalesce(max(id), 0) FROM routing.import`).Scan(&last); err != nil {
		return fmt.Errorf("look for imports of ported numbers: %w", err)
	}
	if last == m.imported {
		return nil
	}
	var table carrier.PortedTable
	if err := pgx.BeginFunc(ctx, m.cfg.Pool, func(tx pgx.Tx) error {
		// Tens of millions take longer than any other statement may.
		if _, err := tx.Exec(ctx, `SELECT set_config('statement_timeout', $1, true)`, fmt.Sprint(syncTimeout.Milliseconds())); err != nil {
			return err
		}
		var count int
		if err := tx.QueryRow(ctx, `SELECT numbers FROM routing.import WHERE id = $1`, last).Scan(&count); err != nil {
			return err
		}
		table.Grow(count)
		rows, err := tx.Query(ctx, `SELECT number, operator FROM routing.ported ORDER BY number`)
		if err != nil {
			return err
		}
		var (
			number int64
			raw    pgtype.DriverBytes // no copy of a word that comes millions of times
			words  = map[string]string{}
		)
		_, err = pgx.ForEachRow(rows, []any{&number, &raw}, func() error {
			operator, ok := words[string(raw)]
			if !ok {
				operator = string(raw)
				words[operator] = operator
			}
			table.AddNumber(uint64(number), operator)
			return nil
		})
		return err
	}); err != nil {
		return fmt.Errorf("read ported numbers: %w", err)
	}
	numbers := table.Numbers()
	m.cfg.Exchange.SetPorted(numbers)
	m.imported = last
	m.cfg.Log.Info("ported numbers read", "numbers", numbers.Len())
	return nil
}

// missing counts messages without a receipt against their operator's route,
// once for all processes together: an operator that swallows messages must not
// look as good as one that delivers them. An operator of which no receipt ever
// said "delivered" gives none, and nothing can be told.
func (m *Memory) missing(ctx context.Context) error {
	return pgx.BeginFunc(ctx, m.cfg.Pool, func(tx pgx.Tx) error {
		now := m.cfg.Now()
		var from time.Time
		err := tx.QueryRow(ctx, `SELECT until FROM routing.watched FOR UPDATE SKIP LOCKED`).Scan(&from)
		if err == pgx.ErrNoRows {
			return nil // another process is at it
		}
		if err != nil {
			return fmt.Errorf("look for missing receipts: %w", err)
		}
		to := now.Add(-delivery.ReceiptPatience)
		if from.Before(to.Add(-oldest)) {
			from = to.Add(-oldest)
		}
		if to.Sub(from) < syncInterval {
			return nil
		}
		silent, err := delivery.Silent(ctx, tx, from, to)
		if err != nil {
			return err
		}
		proven, err := provenOperators(ctx, tx)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE routing.watched SET until = $1`, to); err != nil {
			return fmt.Errorf("look for missing receipts: %w", err)
		}
		for _, s := range silent {
			if proven[s.Operator] {
				m.Delivered(s.Operator, s.Address, false)
			}
		}
		return nil
	})
}

func provenOperators(ctx context.Context, q pg.Querier) (map[string]bool, error) {
	rows, err := q.Query(ctx, `SELECT operator FROM routing.evidence GROUP BY operator HAVING sum(timely) > 0`)
	if err != nil {
		return nil, fmt.Errorf("look for missing receipts: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("look for missing receipts: %w", err)
	}
	proven := make(map[string]bool, len(names))
	for _, name := range names {
		proven[name] = true
	}
	return proven, nil
}
