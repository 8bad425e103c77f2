package notice

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"zvonok/gateway/carrier"
	"zvonok/gateway/delivery"
	"zvonok/gateway/subscription"
	"zvonok/ledger"
	"zvonok/ledger/money"
	"zvonok/templates"
)

// postedWorker tells of top-ups and corrections (R41).
type postedWorker struct {
	river.WorkerDefaults[ledger.Posted]
	teller *Teller
}

// Work tells the postings of a job.
func (w *postedWorker) Work(ctx context.Context, job *river.Job[ledger.Posted]) error {
	_, err := w.teller.posted.Do(ctx, job.Args)
	return err
}

func (t *Teller) tellPosted(ctx context.Context, jobs []ledger.Posted) ([]struct{}, error) {
	all := ledger.Posted{From: jobs[0].From, To: jobs[0].To}
	for _, job := range jobs {
		all.EventIDs = append(all.EventIDs, job.EventIDs...)
		if job.From.Before(all.From) {
			all.From = job.From
		}
		if job.To.After(all.To) {
			all.To = job.To
		}
	}
	return make([]struct{}, len(jobs)), t.tellAll(ctx, func(ctx context.Context, tx pgx.Tx) ([]news, error) {
		return t.postedNews(ctx, tx, all)
	})
}

// postedNews reads movements of wallets that have not been told. A transfer
// between two wallets is news of both children.
func (t *Teller) postedNews(ctx context.Context, tx pgx.Tx, job ledger.Posted) ([]news, error) {
	rows, err := tx.Query(ctx, `
		SELECT p.event_id, p.posted_at, p.occurred_at, a.person_id, p.kind IN ('topup', 'release'),
			CASE WHEN a.id = p.credit_id THEN p.amount ELSE -p.amount END,
			CASE WHEN a.id = p.credit_id THEN p.credit_after ELSE p.debit_after END,
			child.given_name, child.family_name, o.time_zone,
			extract(epoch FROM o.quiet_from)::bigint, extract(epoch FROM o.quiet_until)::bigint, o.id
		FROM ledger.posting AS p
		JOIN ledger.account AS a ON a.id = p.credit_id AND p.credit_ver IS NOT NULL
			OR a.id = p.debit_id AND p.debit_ver IS NOT NULL
		JOIN ledger.person AS child ON child.id = a.person_id
		JOIN ledger.organisation AS o ON o.id = child.organisation_id
		WHERE p.event_id = ANY ($1) AND p.booking_day BETWEEN $2 AND $3 AND child.kind = 'pupil'
		  AND NOT EXISTS (SELECT FROM notice.notice AS n WHERE n.event_id = p.event_id AND n.event_at = p.posted_at)
		ORDER BY p.id, a.id`, job.EventIDs, job.From, job.To)
	if err != nil {
		return nil, fmt.Errorf("read postings to tell: %w", err)
	}
	facts, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (news, error) {
		n := news{topic: subscription.TopUp, priority: carrier.Normal, again: delivery.Later}
		var (
			w        postedWords
			zone     string
			from, to int64
			occurred time.Time
		)
		if err := row.Scan(&n.event, &n.at, &occurred, &n.child, &w.topUp, &w.sum, &w.balance, &w.child.Given, &w.child.Family,
			&zone, &from, &to, &n.org); err != nil {
			return n, err
		}
		if err := t.place(&n, zone, from, to); err != nil {
			return n, err
		}
		// A payment that a registry brings days later is booked, and no news.
		n.expires = occurred.Add(topUpLife)
		w.at = occurred.In(n.zone)
		n.words = w
		return n, nil
	})
	if err != nil {
		return nil, fmt.Errorf("read postings to tell: %w", err)
	}
	return facts, nil
}

// place sets the zone and the quiet hours of news that may wait. From and to
// are seconds of the organisation's day.
func (t *Teller) place(n *news, zone string, from, to int64) error {
	var err error
	n.quiet = &quietHours{time.Duration(from) * time.Second, time.Duration(to) * time.Second}
	n.zone, err = t.zones.load(zone)
	return err
}

// postedWords is the text of a top-up or a correction.
type postedWords struct {
	child        templates.Name
	at           time.Time
	topUp        bool
	sum, balance money.Amount
}

func (w postedWords) message(to reader, _ []words) (string, *delivery.Letter) {
	if w.topUp {
		m := templates.TopUp{Child: w.child, At: w.at, Sum: w.sum, Balance: w.balance}
		if to.channel == subscription.Email {
			m.Links = to.links
			return "", letter(m.Mail(to.style.Language))
		}
		return m.SMS(to.style), nil
	}
	m := templates.Correction{Child: w.child, At: w.at, Sum: w.sum, Balance: w.balance}
	if to.channel == subscription.Email {
		m.Links = to.links
		return "", letter(m.Mail(to.style.Language))
	}
	return m.SMS(to.style), nil
}

// crossedWorker tells of crossed thresholds (R42, D1).
type crossedWorker struct {
	river.WorkerDefaults[ledger.Crossed]
	teller *Teller
}

// Work tells the crossings of a job.
func (w *crossedWorker) Work(ctx context.Context, job *river.Job[ledger.Crossed]) error {
	_, err := w.teller.crossed.Do(ctx, job.Args)
	return err
}

func (t *Teller) tellCrossed(ctx context.Context, jobs []ledger.Crossed) ([]struct{}, error) {
	var ids []int64
	for _, job := range jobs {
		ids = append(ids, job.EventIDs...)
	}
	return make([]struct{}, len(jobs)), t.tellAll(ctx, func(ctx context.Context, tx pgx.Tx) ([]news, error) {
		return t.crossedNews(ctx, tx, ids)
	})
}

// crossedNews reads crossings that have not been told. Each concerns only the
// representative whose threshold it is.
func (t *Teller) crossedNews(ctx context.Context, tx pgx.Tx, ids []int64) ([]news, error) {
	rows, err := tx.Query(ctx, `
		SELECT c.event_id, c.at, a.person_id, c.owner, c.upward, c.threshold, c.balance,
			child.given_name, child.family_name, o.time_zone,
			extract(epoch FROM o.quiet_from)::bigint, extract(epoch FROM o.quiet_until)::bigint, o.id
		FROM ledger.crossing AS c
		JOIN ledger.account AS a ON a.id = c.account_id
		JOIN ledger.person AS child ON child.id = a.person_id
		JOIN ledger.organisation AS o ON o.id = child.organisation_id
		WHERE c.event_id = ANY ($1) AND child.kind = 'pupil'
		  AND NOT EXISTS (SELECT FROM notice.notice AS n WHERE n.event_id = c.event_id AND n.event_at = c.at)
		ORDER BY c.event_id`, ids)
	if err != nil {
		return nil, fmt.Errorf("read crossings to tell: %w", err)
	}
	facts, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (news, error) {
		n := news{topic: subscription.Threshold, priority: carrier.Normal, again: delivery.Later}
		var (
			w        crossedWords
			zone     string
			from, to int64
		)
		if err := row.Scan(&n.event, &n.at, &n.child, &n.only, &w.up, &w.threshold, &w.balance,
			&w.child.Given, &w.child.Family, &zone, &from, &to, &n.org); err != nil {
			return n, err
		}
		if err := t.place(&n, zone, from, to); err != nil {
			return n, err
		}
		n.expires = n.at.Add(thresholdLife)
		n.words = w
		return n, nil
	})
	if err != nil {
		return nil, fmt.Errorf("read crossings to tell: %w", err)
	}
	return facts, nil
}

// crossedWords is the text of a crossed threshold.
type crossedWords struct {
	child              templates.Name
	up                 bool
	threshold, balance money.Amount
}

func (w crossedWords) message(to reader, _ []words) (string, *delivery.Letter) {
	m := templates.Threshold{Child: w.child, Balance: w.balance, Threshold: w.threshold, Up: w.up}
	if to.channel == subscription.Email {
		m.Links = to.links
		return "", letter(m.Mail(to.style.Language))
	}
	return m.SMS(to.style), nil
}
